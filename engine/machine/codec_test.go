package machine

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 5_000_000, time.UTC)

// sampleRecords are records of every kind of event.
func sampleRecords() [][]Event {
	full := Event{
		Kind: AttemptFailed, Step: 255, Phase: Compensate, Generation: 3, Attempt: 1 << 31, Worker: "w", Code: "c",
		Message: "m", Stack: "s", By: "b", Until: noon.Add(time.Hour), Payload: []byte("{}"), RunID: "r", Key: "k",
		RetryOf: "o", Priority: 9, Parent: Parent{RunID: "p", Step: "s", Depth: 3}, Token: math.MaxUint64, Late: true, Sent: true, Applied: true,
	}
	records := [][]Event{{full}, {
		{Kind: RunStarted, Step: -1, RunID: "run", Payload: []byte("{}"), Until: noon.Add(-time.Hour)},
		{Kind: AttemptScheduled, Step: 0, Phase: Action, Generation: 1, Attempt: 1},
	}}
	for k := EventKind(1); k < kindEnd; k++ {
		records = append(records, []Event{{Kind: k, Step: -1}, {Kind: k, Step: 0, Phase: Abort, Generation: math.MaxUint32, Attempt: math.MaxUint32}})
	}
	for i := range records {
		for j := range records[i] {
			records[i][j].Seq = uint64(7 + j)
			records[i][j].At = noon.Add(time.Duration(j*j) * -time.Millisecond)
		}
	}
	return records
}

func TestRecordsDecodeToWhatWasEncoded(t *testing.T) {
	for _, events := range sampleRecords() {
		got, err := DecodeEvents(AppendEvents(nil, events))
		if err != nil {
			t.Fatalf("%v: %v", events[0].Kind, err)
		}
		if !reflect.DeepEqual(got, events) {
			t.Errorf("%v:\ngot  %+v\nwant %+v", events[0].Kind, got, events)
		}
	}
}

func TestAppendEventsKeepsWhatIsInTheBuffer(t *testing.T) {
	events := sampleRecords()[0]
	got := AppendEvents([]byte("before"), events)
	if !bytes.Equal(got, append([]byte("before"), AppendEvents(nil, events)...)) {
		t.Error("the buffer's content was not kept")
	}
	if got := AppendEvents([]byte("before"), nil); string(got) != "before" {
		t.Errorf("no events made %q", got)
	}
}

// The common record of the happy path is small: a success and the next
// scheduled attempt, beside output and worker name.
func TestCommonRecordIsSmall(t *testing.T) {
	const worker, output = "orders-1", `{"id":7}`
	events := []Event{
		{Seq: 3, At: noon, Kind: AttemptSucceeded, Step: 0, Phase: Action, Generation: 1, Attempt: 1, Worker: worker, Payload: []byte(output)},
		{Seq: 4, At: noon, Kind: AttemptScheduled, Step: 1, Phase: Action, Generation: 1, Attempt: 1},
	}
	if n := len(AppendEvents(nil, events)) - len(output); n >= 25 {
		t.Errorf("%d bytes beyond the output, want fewer than 25", n)
	}
}

func TestEveryCutOfARecordIsRefused(t *testing.T) {
	for _, events := range sampleRecords() {
		whole := AppendEvents(nil, events)
		for n := range len(whole) {
			got, err := DecodeEvents(whole[:n])
			if err == nil && len(got) == len(events) {
				t.Errorf("%v: %d of %d bytes decode to all events", events[0].Kind, n, len(whole))
			}
			if err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("%v: error %v does not wrap ErrCorrupt", events[0].Kind, err)
			}
		}
	}
}

func TestDecodeEventsRefuses(t *testing.T) {
	head := []byte{recordVersion, 1, 0}
	for name, data := range map[string][]byte{
		"nothing":                       {},
		"another version":               {9, 1, 0, byte(RunSucceeded), 0},
		"no events":                     head,
		"event number 0":                {recordVersion, 0, 0, byte(RunSucceeded), 0},
		"event number out of range":     append([]byte{recordVersion}, bytes.Repeat([]byte{0xff}, 9)...),
		"kind 0":                        append(head[:3:3], 0, 0),
		"an unknown kind":               append(head[:3:3], byte(kindEnd), 0),
		"unknown presence bits":         append(head[:3:3], byte(RunSucceeded), 0x80, 0x80, 0x80, 0x01),
		"a varint in a long form":       append(head[:3:3], byte(RunSucceeded), 0x80, 0x00),
		"an explicit usual attempt":     append(head[:3:3], byte(AttemptScheduled), hasStep|hasAttempt, 0, 1),
		"an explicit usual phase":       append(head[:3:3], byte(AttemptScheduled), hasStep|hasPhase, 0, byte(Action)),
		"an empty payload":              append(head[:3:3], byte(RunSucceeded), hasPayload, 0),
		"an empty string":               append(head[:3:3], byte(RunSucceeded), hasWorker, 0),
		"no time passed":                append(head[:3:3], byte(RunSucceeded), hasElapsed, 0),
		"a string longer than the rest": append(head[:3:3], byte(RunSucceeded), hasWorker, 200, 1, 'x'),
		"a length beyond all":           append(append(head[:3:3], byte(RunSucceeded), hasPayload), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01),
		"a time before year 1":          {recordVersion, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, byte(RunSucceeded), 0},
	} {
		if _, err := DecodeEvents(data); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
}

func TestDecodeEventsBoundsTheNumberOfEvents(t *testing.T) {
	data := append([]byte{recordVersion, 1, 0}, bytes.Repeat([]byte{byte(RunSucceeded), 0}, maxRecordEvents+1)...)
	if _, err := DecodeEvents(data); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

func TestApplyRefusesWhatCannotFollow(t *testing.T) {
	wf := threeSteps()
	started := func() *State {
		s := NewState(wf)
		if _, err := s.Step(Start{RunID: "r"}, noon); err != nil {
			t.Fatal(err)
		}
		return s
	}
	ended := started()
	for i := range 3 {
		if _, err := ended.Step(Result{Step: i, Phase: Action, Generation: 1, Attempt: 1, Outcome: OutcomeSucceeded}, noon); err != nil {
			t.Fatal(err)
		}
	}
	cp := started().Checkpoint(noon)
	cut := cp
	cut.Payload = cp.Payload[:len(cp.Payload)-1]
	long := cp
	long.Payload = append(bytes.Clone(cp.Payload), 0)
	for name, c := range map[string]struct {
		state *State
		event Event
	}{
		"a first event that is not the start":     {NewState(wf), Event{Seq: 1, Kind: CancelRequested, Step: -1}},
		"a second start":                          {started(), Event{Seq: 3, Kind: RunStarted, Step: -1}},
		"a gap":                                   {started(), Event{Seq: 4, Kind: CancelRequested, Step: -1}},
		"a repetition":                            {started(), Event{Seq: 2, Kind: CancelRequested, Step: -1}},
		"a step that there is not":                {started(), Event{Seq: 3, Kind: AttemptSucceeded, Step: 3, Phase: Action}},
		"no step":                                 {started(), Event{Seq: 3, Kind: AttemptSucceeded, Step: -1, Phase: Action}},
		"a phase that sagas do not have":          {started(), Event{Seq: 3, Kind: AttemptSucceeded, Step: 0, Phase: Prepare}},
		"an unknown kind":                         {started(), Event{Seq: 3, Kind: kindEnd, Step: -1}},
		"anything after the end":                  {ended, Event{Seq: ended.Seq() + 1, Kind: CancelRequested, Step: -1}},
		"a checkpoint before the start":           {NewState(wf), cp},
		"a checkpoint of the past":                {started(), Event{Seq: 2, Kind: Checkpointed, Step: -1, Payload: cp.Payload}},
		"a checkpoint cut short":                  {started(), cut},
		"a checkpoint with something after it":    {started(), long},
		"an empty checkpoint":                     {started(), Event{Seq: 3, Kind: Checkpointed, Step: -1}},
		"a checkpoint of a workflow of two steps": {started(), checkpointOfTwo(t)},
	} {
		before := c.state.AppendState(nil)
		if err := c.state.Apply(c.event); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
		if !bytes.Equal(before, c.state.AppendState(nil)) {
			t.Errorf("%s: the state has changed", name)
		}
	}
}

func TestTextsOfWorkersAreCut(t *testing.T) {
	s := NewState(threeSteps())
	if _, err := s.Step(Start{RunID: "r"}, noon); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("ä", MaxStackBytes)
	events, err := s.Step(Result{Step: 0, Phase: Action, Generation: 1, Attempt: 1, Outcome: OutcomeUnknown,
		Code: long, Message: "x" + long, Stack: long}, noon)
	if err != nil {
		t.Fatal(err)
	}
	e := events[0]
	if len(e.Code) != MaxCodeBytes || len(e.Message) != MaxMessageBytes-1 || len(e.Stack) != MaxStackBytes {
		t.Errorf("code, message, stack have %d, %d, %d bytes", len(e.Code), len(e.Message), len(e.Stack))
	}
	if strings.ContainsRune(e.Message, '\uFFFD') {
		t.Error("the message was cut within a character")
	}
}

func TestInputsMayBePointers(t *testing.T) {
	s := NewState(threeSteps())
	for _, in := range []Input{
		&Start{RunID: "r"}, &Tick{}, &Lost{Step: 0, Phase: Action, Generation: 1, Attempt: 1, Reason: LostVanished},
		&Result{Step: 0, Phase: Action, Generation: 1, Attempt: 1, Outcome: OutcomeSucceeded},
		&Expired{Step: 1, Phase: Compensate}, &Withdrawn{Step: 1, Phase: Action, Generation: 1, Attempt: 1}, &Cancel{},
	} {
		if _, err := s.Step(in, noon); err != nil {
			t.Errorf("%T: %v", in, err)
		}
	}
	for _, in := range []Input{&Retry{Step: 9}, &Skip{Step: 9}, &Resolve{Step: 9}} {
		if _, err := s.Step(in, noon); err == nil {
			t.Errorf("%T of no step was taken", in)
		}
	}
	if _, err := s.Step(nil, noon); !errors.Is(err, ErrEnded) && !errors.Is(err, ErrRejected) {
		t.Errorf("nil input: %v", err)
	}
}

func TestEveryKindHasAWordAndAnExplanation(t *testing.T) {
	wf := threeSteps()
	seen := map[string]bool{}
	for k := EventKind(1); k < kindEnd; k++ {
		if w := k.String(); w == "" || seen[w] {
			t.Errorf("kind %d is called %q", k, w)
		}
		seen[k.String()] = true
		for _, step := range []int{-1, 0, 99} {
			if NewState(wf).Explain(Event{Kind: k, Step: step, Phase: Action}) == "" {
				t.Errorf("%v of step %d has no explanation", k, step)
			}
		}
	}
	if NewState(wf).Explain(Event{}) == "" || EventKind(0).String() != "invalid" {
		t.Error("an invalid event has no words")
	}
}

func checkpointOfTwo(t *testing.T) Event {
	two := &State{wf: threeSteps(), turnedBy: -1, status: Running, seq: 2, steps: make([]step, 2)}
	return two.Checkpoint(noon)
}

// FuzzDecodeEvents: whatever bytes come, decoding does not panic, what it
// accepts encodes to the same bytes, and folding and explaining it does no harm.
func FuzzDecodeEvents(f *testing.F) {
	wf := threeSteps()
	for _, events := range sampleRecords() {
		f.Add(AppendEvents(nil, events))
	}
	s := NewState(wf)
	var history []Event
	for _, in := range []Input{
		Start{RunID: "r", Input: []byte("1")},
		Lost{Step: 0, Phase: Action, Generation: 1, Attempt: 1, Reason: LostWorkerDied},
		Cancel{By: "ann"},
	} {
		events, err := s.Step(in, noon)
		if err != nil {
			f.Fatal(err)
		}
		history = append(history, events...)
	}
	f.Add(AppendEvents(nil, history))
	f.Add(AppendEvents(nil, append(history, s.Checkpoint(noon))))
	transaction, single, fan := participants(2), participants(1), fanOutOf(2)
	for _, fails := range []string{"", "ship[2]"} {
		c := course{state: NewState(fan), fails: fails, size: 1}
		c.run(f, Start{RunID: "r", Input: []byte("[1,{\"a\":2},3]")})
		f.Add(c.history(f))
		if c.records = c.records[:len(c.records)-2]; fails != "" {
			s := NewState(fan)
			events, err := DecodeEvents(c.history(f))
			if err != nil {
				f.Fatal(err)
			}
			for _, e := range events {
				if err := s.Apply(e); err != nil {
					f.Fatal(err)
				}
			}
			f.Add(AppendEvents(nil, append(events, s.Checkpoint(noon))))
		}
	}
	waiting := waitsAndChoice()
	waits, events := waitsHistory(f, waitsInputs...)
	f.Add(AppendEvents(nil, events))
	early, events := waitsHistory(f, waitsInputs[:3]...)
	f.Add(AppendEvents(nil, append(events, early.Checkpoint(noon))))
	if waits.Status() != Succeeded {
		f.Fatalf("the run that waits is %v", waits.Status())
	}
	for _, events := range transactionHistories(f) {
		f.Add(AppendEvents(nil, events))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		events, err := DecodeEvents(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error does not wrap ErrCorrupt: %v", err)
			}
			return
		}
		if again := AppendEvents(nil, events); !bytes.Equal(again, data) {
			t.Fatalf("%x decodes to what encodes to %x", data, again)
		}
		foldAnything(t, wf, events)
		foldAnything(t, transaction, events)
		foldAnything(t, single, events)
		foldAnything(t, fan, events)
		foldAnything(t, waiting, events)
	})
}

// foldAnything folds events that may make no sense, as far as they are taken,
// and uses the state that comes of it.
func foldAnything(t *testing.T, wf *definitions.Workflow, events []Event) {
	s := NewState(wf)
	for _, e := range events {
		NewState(wf).Explain(e)
		if s.Apply(e) != nil {
			break
		}
		s.Commands(nil)
		s.Wake()
		s.Failure()
	}
	if s.Seq() == 0 {
		return
	}
	for i := range s.NumSteps() {
		s.StepView(i)
		s.TaskInput(i, Compensate)
	}
	first := NewState(wf)
	if err := first.Apply(events[0]); err != nil {
		t.Fatal(err)
	}
	cp := s.Checkpoint(noon)
	if s.Status().Final() || cp.Seq <= first.Seq() {
		return
	}
	if err := first.Apply(cp); err != nil {
		t.Fatalf("checkpoint of a folded state: %v", err)
	}
	if err := s.Apply(cp); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.AppendState(nil), s.AppendState(nil)) {
		t.Fatal("the checkpoint makes another state")
	}
	if _, err := s.Step(Tick{}, noon); err != nil {
		t.Fatal(err)
	}
}
