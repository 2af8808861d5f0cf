package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// refused checks an error: it wraps ErrMalformed and names what is wrong.
func refused(t *testing.T, what string, err error, names string) {
	t.Helper()
	if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), names) {
		t.Errorf("%s: got %v, want a malformed message that names %q", what, err, names)
	}
}

func TestSingleFormRefusesByNamingTheHeader(t *testing.T) {
	task := sampleTask()
	result := sampleResult()
	for _, c := range []struct {
		kind   Kind
		header string
		value  any // nil removes it
	}{
		{KindTask, HeaderVersion, nil},
		{KindTask, HeaderVersion, "1"},
		{KindTask, HeaderRun, nil},
		{KindTask, HeaderRun, ""},
		{KindTask, HeaderRun, int64(4)},
		{KindTask, HeaderRun, "a\x00b"},
		{KindTask, HeaderRun, "a\u0085b"},
		{KindTask, HeaderRun, "\xff"},
		{KindTask, HeaderRun, strings.Repeat("x", 201)},
		{KindTask, HeaderRef, int64(-1)},
		{KindTask, HeaderRef, "7"},
		{KindTask, HeaderRef, 1.5},
		{KindTask, HeaderStepIndex, int64(1) << 31},
		{KindTask, HeaderStep, nil},
		{KindTask, HeaderPhase, "Action"},
		{KindTask, HeaderPhase, int64(1)},
		{KindTask, HeaderGeneration, int64(0)},
		{KindTask, HeaderAttempt, int64(1) << 32},
		{KindTask, HeaderService, nil},
		{KindTask, HeaderTaskType, nil},
		{KindTask, HeaderWorkflow, nil},
		{KindTask, HeaderRoutingKey, strings.Repeat("x", 257)},
		{KindTask, HeaderShard, int64(MaxShards)},
		{KindTask, HeaderEpoch, int64(-1)},
		{KindTask, HeaderEpoch, uint64(1) << 63},
		{KindTask, HeaderOwner, nil},
		{KindTask, HeaderSeq, int64(0)},
		{KindTask, HeaderTimeout, int64(0)},
		{KindTask, HeaderTimeout, maxTimeoutMS + 1},
		{KindTask, HeaderNotAfter, int64(0)},
		{KindTask, HeaderDurable, int64(-1)},
		{KindResult, HeaderWorker, nil},
		{KindResult, HeaderOutcome, "won"},
		{KindResult, HeaderRetryable, "true"},
		{KindResult, HeaderDuration, int64(-1)},
		{KindResult, HeaderSeq, nil},
	} {
		m := EncodeTask(Version, "q", &task)
		if c.kind == KindResult {
			m = EncodeResult(Version, "x", &result)
		}
		if m.Headers[c.header] = c.value; c.value == nil {
			delete(m.Headers, c.header)
		}
		var err error
		if c.kind == KindTask {
			_, _, _, err = DecodeTasks(&m)
		} else {
			_, _, err = DecodeResults(&m)
		}
		refused(t, c.header, err, c.header)
	}
	m := EncodeResult(Version, "x", &result)
	_, _, _, err := DecodeTasks(&m)
	refused(t, "a result as a task", err, "type")
	m.Body = make([]byte, MaxPayloadBytes+1)
	_, _, err = DecodeResults(&m)
	refused(t, "a huge payload", err, "payload")
}

func TestEveryIntegerTypeOfAMQPIsAccepted(t *testing.T) {
	task := sampleTask()
	for _, v := range []any{int8(5), int16(5), int32(5), int64(5), int(5), uint8(5), uint16(5), uint32(5), uint64(5), uint(5)} {
		m := EncodeTask(Version, "q", &task)
		m.Headers[HeaderSeq] = v
		m.Headers[HeaderRun] = []byte("order-1001")
		ts, _, _, err := DecodeTasks(&m)
		if err != nil || ts[0].Seq != 5 || ts[0].RunID != "order-1001" {
			t.Errorf("%T: %v", v, err)
		}
	}
}

func TestTextsForPeopleAreCutAndNeverRefused(t *testing.T) {
	r := sampleResult()
	r.Code = "bad\ncode " + strings.Repeat("é", 200)
	r.Message = "a\x00b\xff" + strings.Repeat("m", 5000)
	r.Stack = strings.Repeat("é", 20_000)
	r.Trace = "not a trace"
	one := EncodeResult(Version, "x", &r)
	many := EncodeResults(Version, "x", []*Result{&r})
	dirty := EncodeResult(Version, "x", &r) // as another implementation may send it
	dirty.Headers[HeaderCode], dirty.Headers[HeaderMessage], dirty.Headers[HeaderStack] = r.Code, r.Message, r.Stack
	dirty.Headers[HeaderTrace] = r.Trace
	var first *Result
	for _, m := range []broker.Message{one, many, dirty} {
		rs, bad, err := DecodeResults(&m)
		if err != nil || len(bad) > 0 {
			t.Fatal(err, bad)
		}
		g := &rs[0]
		if !strings.HasPrefix(g.Code, "bad?code ") || !strings.HasPrefix(g.Message, "a?b?mmm") || g.Trace != "" ||
			len(g.Code) > MaxCodeBytes || len(g.Message) > MaxMessageBytes || len(g.Stack) > MaxStackBytes {
			t.Errorf("got code %q, message %.20q, trace %q", g.Code, g.Message, g.Trace)
		}
		if first == nil {
			first = g
		} else if !reflect.DeepEqual(first, g) {
			t.Errorf("the forms differ:\n%.300v\n%.300v", first, g)
		}
	}
}

func TestTimeoutsAreRoundedUpAndNeverVanish(t *testing.T) {
	for in, want := range map[time.Duration]time.Duration{
		1: time.Millisecond, time.Millisecond: time.Millisecond, time.Millisecond + 1: 2 * time.Millisecond,
		1<<63 - 1: time.Duration(maxTimeoutMS) * time.Millisecond,
	} {
		task := sampleTask()
		task.Timeout = in
		for _, m := range []broker.Message{EncodeTask(Version, "q", &task), EncodeTasks(Version, "q", "o", 0, []*Task{&task})} {
			ts, _, bad, err := DecodeTasks(&m)
			if err != nil || len(bad) > 0 || ts[0].Timeout != want {
				t.Errorf("%d ns: %v %v", in, err, bad)
			}
		}
	}
}

func TestABadEntryFailsAlone(t *testing.T) {
	for _, c := range []struct {
		names string
		spoil func(*Task)
	}{
		{"phase", func(x *Task) { x.Phase = 9 }},
		{"generation", func(x *Task) { x.Generation = 0 }},
		{"attempt", func(x *Task) { x.Attempt = 0 }},
		{"ref", func(x *Task) { x.Ref = -1 }},
		{"step index", func(x *Task) { x.Step = -1 }},
		{"run", func(x *Task) { x.RunID = "" }},
		{"run", func(x *Task) { x.RunID = "a\tb" }},
		{"run", func(x *Task) { x.RunID = strings.Repeat("r", 201) }},
		{"step", func(x *Task) { x.StepName = "\xff" }},
		{"service", func(x *Task) { x.Service = strings.Repeat("s", 300) }},
		{"task type", func(x *Task) { x.Type = "" }},
		{"workflow", func(x *Task) { x.Workflow = "\x7f" }},
		{"routing key", func(x *Task) { x.RoutingKey = "\n" }},
		{"shard", func(x *Task) { x.Shard = MaxShards }},
		{"epoch", func(x *Task) { x.Epoch = 1 << 63 }},
		{"seq", func(x *Task) { x.Seq = 0 }},
		{"timeout", func(x *Task) { x.Timeout = 0 }},
		{"not after", func(x *Task) { x.NotAfter = time.UnixMilli(-1) }},
	} {
		ts := []Task{sampleTask(), sampleTask(), sampleTask()}
		ts[0].Owner, ts[1].Owner, ts[2].Owner = "o", "o", "o"
		c.spoil(&ts[1])
		m := EncodeTasks(Version, "q", "o", 4, pointers(ts))
		got, durable, bad, err := DecodeTasks(&m)
		if err != nil || durable != 4 || len(bad) != 1 || bad[0].Index != 1 || !reflect.DeepEqual(got, []Task{ts[0], ts[2]}) {
			t.Fatalf("%s: %v %v, %d tasks", c.names, err, bad, len(got))
		}
		refused(t, c.names, bad[0].Err, "entry 1: "+c.names)
		// The dead letter is a batch of this entry, with the same fault.
		d := DeadLetterEntry("dead", &m, "q", bad[0])
		got, _, again, err := DecodeTasks(&d)
		if err != nil || len(got) != 0 || len(again) != 1 || d.Headers[HeaderReason] != bad[0].Err.Error() {
			t.Errorf("%s: dead letter: %v %v %v", c.names, err, got, again)
		}
	}
}

func TestABatchThatIsCutOffGivesItsFirstEntries(t *testing.T) {
	ts := []Task{sampleTask(), sampleTask(), sampleTask()}
	whole := EncodeTasks(Version, "q", "o", 4, pointers(ts))
	var full int
	for n := range whole.Body {
		m := whole
		m.Body = whole.Body[:n]
		got, _, bad, err := DecodeTasks(&m)
		if err == nil && (len(bad) != 1 || bad[0].Index != len(got)) {
			t.Fatalf("cut at %d: %d tasks, bad %v", n, len(got), bad)
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		full = max(full, len(got))
	}
	if full != 2 {
		t.Errorf("at most %d of 3 tasks came through a cut batch", full)
	}
	m := whole
	m.Body = append(bytes.Clone(whole.Body), 1, 2, 3)
	got, _, bad, err := DecodeTasks(&m)
	if err != nil || len(got) != 3 || len(bad) != 1 || bad[0].Index != 3 {
		t.Errorf("bytes after the last entry: %d tasks, %v, %v", len(got), bad, err)
	}
}

func TestBatchHeadsAreRefusedByNamingThePart(t *testing.T) {
	str := func(s string) []byte { return appendString(nil, s) }
	num := func(n uint64) []byte { return binary.AppendUvarint(nil, n) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	tv := []byte{Version, batchTasks}
	for _, c := range []struct {
		names string
		body  []byte
	}{
		{"version", nil},
		{"kind", []byte{Version}},
		{"kind", []byte{Version, batchResults, 0, 1, 'o', 0, 0}},
		{"durable", tv},
		{"durable", join(tv, num(1<<63))},
		{"durable", join(tv, bytes.Repeat([]byte{0xff}, 11))},
		{"sender", join(tv, num(0), str(""), num(0), num(0))},
		{"sender", join(tv, num(0), str("a\nb"), num(0), num(0))},
		{"sender", join(tv, num(0), num(50), []byte("short"))},
		{"table", join(tv, num(0), str("o"), num(257))},
		{"table", join(tv, num(0), str("o"), num(1), str(strings.Repeat("x", 257)))},
		{"count", join(tv, num(0), str("o"), num(0))},
		{"count", join(tv, num(0), str("o"), num(0), num(MaxBatchEntries+1))},
		{"count", join(tv, num(0), str("o"), num(0), num(9_999), []byte("few"))},
	} {
		m := broker.Message{Type: string(KindTask), ContentType: ContentTypeBatch, Headers: versionHeader(Version), Body: c.body}
		_, _, _, err := DecodeTasks(&m)
		refused(t, c.names, err, c.names)
	}
}

// Another implementation may leave the table empty and write every string
// where it is used.
func TestTheTableIsOptional(t *testing.T) {
	want := sampleTask()
	want.Owner = "o"
	var none table
	var h hints
	b := appendHead(nil, Version, batchTasks, 0, "o", &none, 1)
	b = appendEntry(b, func(b []byte) []byte { return appendTask(b, &want, &none, &h) })
	m := broker.Message{Type: string(KindTask), ContentType: ContentTypeBatch, Headers: versionHeader(Version), Body: b}
	got, _, bad, err := DecodeTasks(&m)
	if err != nil || len(bad) > 0 || !reflect.DeepEqual(got[0], want) {
		t.Fatal(err, bad, got)
	}
}

func TestJSONMessagesAreRefusedByNamingTheField(t *testing.T) {
	bad := TaskID{Ref: 1, Step: 1, Phase: PhaseAction, Generation: 1}
	for _, c := range []struct {
		names string
		spoil func(*Heartbeat)
	}{
		{"worker", func(h *Heartbeat) { h.Worker = "" }},
		{"worker", func(h *Heartbeat) { h.Worker = strings.Repeat("w", 201) }},
		{"name", func(h *Heartbeat) { h.Name = "a\x1bb" }},
		{"queue", func(h *Heartbeat) { h.Queue = "" }},
		{"service", func(h *Heartbeat) { h.Service = "" }},
		{"task_types", func(h *Heartbeat) { h.TaskTypes = []string{"a", ""} }},
		{"task_types", func(h *Heartbeat) { h.TaskTypes = make([]string, MaxTaskTypes+1) }},
		{"capabilities", func(h *Heartbeat) { h.Capabilities = []string{"\n"} }},
		{"capacity", func(h *Heartbeat) { h.Capacity = 0 }},
		{"credit", func(h *Heartbeat) { h.Credit = -1 }},
		{"weight", func(h *Heartbeat) { h.Weight = MaxWeight + 1 }},
		{"release", func(h *Heartbeat) { h.Release = "\t" }},
		{"interval_ms", func(h *Heartbeat) { h.IntervalMS = 0 }},
		{"sequence", func(h *Heartbeat) { h.Sequence = 0 }},
		{"received", func(h *Heartbeat) { h.Received = map[string]uint64{"": 1} }},
		{"received", func(h *Heartbeat) { h.Received = map[string]uint64{"o": 1 << 63} }},
		{"floor", func(h *Heartbeat) { h.Floor = map[string]uint64{"\n": 1} }},
		{"queued", func(h *Heartbeat) { h.Queued[0].TaskID = bad }},
		{"running.shard", func(h *Heartbeat) { h.Running[0].Shard = MaxShards }},
		{"finished.age_ms", func(h *Heartbeat) { h.Finished[0].AgeMS = -1 }},
		{"phase(0)", func(h *Heartbeat) { h.Finished[0].Phase = 0 }},
	} {
		h := sampleHeartbeat()
		c.spoil(&h)
		m := EncodeHeartbeat("x", &h)
		_, err := DecodeHeartbeat(&m)
		refused(t, c.names, err, c.names)
	}
	for names, a := range map[string]Announcement{
		"orchestrator": {},
		"shards":       {Orchestrator: "o", Shards: map[uint32]uint64{MaxShards: 1}},
		"durable":      {Orchestrator: "o", Durable: map[string]uint64{"w": 1 << 63}},
	} {
		m := EncodeAnnouncement("x", &a)
		_, err := DecodeAnnouncement(&m)
		refused(t, names, err, names)
	}
	for names, k := range map[string]Control{
		"orchestrator": {},
		"cancel":       {Orchestrator: "o", Cancel: []TaskID{bad}},
		"durable":      {Orchestrator: "o", Durable: 1 << 63},
	} {
		m := EncodeControl(Version, "q", &k)
		_, err := DecodeControl(&m)
		refused(t, names, err, names)
	}
}

func TestRequestsAreRefusedByNamingTheField(t *testing.T) {
	for names, r := range map[string]Request{
		HeaderRequest: {Type: "run.fly", Body: []byte("{}")},
		HeaderRun:     {Type: RequestCancel},
		"run":         {Type: RequestSignal, Body: []byte("{}")},
		HeaderReplyTo: {Type: RequestDecision, RunID: "r"},
		"body":        {Type: RequestStart, Body: []byte("{")},
	} {
		m := EncodeRequest("q", &r)
		_, err := DecodeRequest(&m)
		refused(t, names, err, names)
	}
}

func TestJSONMessagesRoundTripAndIgnoreUnknownFields(t *testing.T) {
	hb := sampleHeartbeat()
	m := EncodeHeartbeat("x", &hb)
	if !bytes.Contains(m.Body, []byte(`"phase":"compensate"`)) {
		t.Errorf("a held task's phase is not a word: %s", m.Body)
	}
	m.Body = append([]byte(`{"from_the_future":{"a":1},`), m.Body[1:]...)
	if got, err := DecodeHeartbeat(&m); err != nil || !reflect.DeepEqual(got, hb) {
		t.Errorf("heartbeat: %v\n got %+v\nwant %+v", err, got, hb)
	}
	a := Announcement{Version: MinVersion, MaxVersion: Version, Orchestrator: "o", Hello: true, Leaving: true,
		Shards: map[uint32]uint64{0: 1, 65_535: 9}, Durable: map[string]uint64{"w": 7}}
	m = EncodeAnnouncement("x", &a)
	if got, err := DecodeAnnouncement(&m); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("announcement: %v\n got %+v\nwant %+v", err, got, a)
	}
	k := Control{Version: Version, Orchestrator: "o", Cancel: []TaskID{hb.Running[0].TaskID}, Drain: true, Durable: 7}
	m = EncodeControl(Version, "q", &k)
	if got, err := DecodeControl(&m); err != nil || !reflect.DeepEqual(got, k) {
		t.Errorf("control: %v\n got %+v\nwant %+v", err, got, k)
	}
	for _, r := range []Request{
		{Type: RequestStart, Body: []byte(`{"workflow":"order-flow"}`), Trace: sampleTask().Trace},
		{Type: RequestCancel, RunID: "order-1001"},
		{Type: RequestSignal, RunID: "order-1001", Body: []byte(`{"name":"approval","id":"s-1"}`)},
		{Type: RequestRegister, Body: []byte(`{}`)},
		{Type: RequestDecision, RunID: "order-1001", ReplyTo: "ringmaster.worker.w.k3v9x2m4"},
	} {
		m = EncodeRequest("q", &r)
		if got, err := DecodeRequest(&m); err != nil || !reflect.DeepEqual(got, r) || !m.Persistent || !m.Mandatory {
			t.Errorf("request: %v\n got %+v\nwant %+v", err, got, r)
		}
	}
}

func TestAnswersRoundTrip(t *testing.T) {
	for _, a := range []Answer{
		{RunID: "r", Orchestrator: "o"},
		{RunID: "r", Orchestrator: "o", Decision: Committed},
		{RunID: "r", Decision: Aborted},
		{RunID: "r", Orchestrator: "o", Code: "no_decision", Message: "it is a saga"},
	} {
		m := EncodeAnswer("q", &a)
		if got, err := DecodeAnswer(&m); err != nil || got != a || m.Key != "q" || m.Mandatory {
			t.Errorf("answer: %v\n got %+v\nwant %+v", err, got, a)
		}
	}
	m := EncodeAnswer("q", &Answer{Decision: Committed})
	_, err := DecodeAnswer(&m)
	refused(t, "an answer without a run", err, HeaderRun)
	for _, word := range []string{"", "commit", "decision(7)"} {
		m = EncodeAnswer("q", &Answer{RunID: "r"})
		m.Headers[HeaderDecision] = word
		_, err = DecodeAnswer(&m)
		refused(t, word, err, HeaderDecision)
	}
}

func TestADeadLetterIsTheMessageAsItWas(t *testing.T) {
	task := sampleTask()
	m := EncodeTask(Version, "worker-queue", &task)
	m.Headers[HeaderPhase] = "fly"
	before := maps.Clone(m.Headers)
	_, _, _, err := DecodeTasks(&m)
	d := DeadLetter("dead", &m, "worker-queue", err)
	if d.Key != "dead" || d.Exchange != "" || !d.Persistent || !bytes.Equal(d.Body, m.Body) ||
		d.Headers[HeaderSource] != "worker-queue" || d.Headers[HeaderReason] != err.Error() || d.Headers[HeaderPhase] != "fly" {
		t.Errorf("%+v", d)
	}
	if !maps.Equal(before, m.Headers) {
		t.Error("the message itself was changed")
	}
	if d := DeadLetter("dead", &broker.Message{}, "s", errors.New("r")); len(d.Headers) != 2 {
		t.Errorf("%+v", d)
	}
}
