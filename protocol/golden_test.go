package protocol

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// testdata/versionN.txt has messages of every kind as version N writes them. Those
// of older versions were recorded by code that spoke nothing newer, and never
// change.

var update = flag.Bool("update", false, "write the messages of this version anew")

// goldenMessage is a message and the value that it says.
type goldenMessage struct {
	name    string
	message broker.Message
	value   any
}

func goldenTask(change func(*Task)) *Task {
	t := &Task{
		TaskID: TaskID{Ref: 7<<40 | 42, Step: 1, Phase: PhaseAction, Generation: 1, Attempt: 1},
		RunID:  "order-1001", Workflow: "order-flow", StepName: "pay", Service: "payments", Type: "payments.charge",
		RoutingKey: "order-1001", Shard: 7, Epoch: 3, Owner: "node-a-3f9c1b7d", Seq: 118, Timeout: 30 * time.Second,
	}
	if change != nil {
		change(t)
	}
	return t
}

func fullTask(t *Task) {
	t.RoutingKey, t.Attempt, t.Generation, t.Seq = "customer-7", 3, 2, 119
	t.NotAfter = time.UnixMilli(1_798_761_600_000).UTC()
	t.Trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	t.Resent, t.Progress = true, []byte(`{"page":7}`)
	t.Tokens = []Token{{Name: "account/7", Token: 12_884_901_889}, {Name: "serial:order-flow/customer-7", Token: 4}}
	t.Payload = []byte(`{"amount":4200}`)
}

func onePhase(t *Task) { t.Phase, t.OnePhase, t.Seq = PhaseCommit, true, 120 }

func undoesRun(t *Task) {
	t.Phase, t.UndoesRun, t.Seq, t.Payload = PhaseCompensate, true, 121, []byte(`{}`)
}

func ofPhase(p Phase) func(*Task) { return func(t *Task) { t.Phase = p } }

func goldenResult(change func(*Result)) *Result {
	r := &Result{
		TaskID: goldenTask(nil).TaskID, RunID: "order-1001", StepName: "pay", Shard: 7, Worker: "payments-1-5e0c2a91",
		Owner: "node-a-3f9c1b7d", Seq: 55, Outcome: OutcomeSucceeded, Duration: 8_412 * time.Microsecond, Payload: []byte(`{"charge":"ch_1"}`),
	}
	if change != nil {
		change(r)
	}
	return r
}

func fullResult(r *Result) {
	r.Outcome, r.Retryable, r.Resent, r.Seq = OutcomeUnknown, true, true, 56
	r.Code, r.Message, r.Stack = "panic", "index out of range: €", "main.go:7\nmain.go:9"
	r.Trace, r.Payload = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", []byte(`{"page":7}`)
}

func outcome(o Outcome, code string) func(*Result) {
	return func(r *Result) { r.Outcome, r.Code, r.Payload, r.Seq = o, code, nil, 57 }
}

func goldenHeartbeats() (small, full *Heartbeat) {
	held := func(step int32, age int64, progress string) []Held {
		h := Held{TaskID: TaskID{Ref: 7<<40 | 42, Step: step, Phase: PhaseAction, Generation: 1, Attempt: 2}, Shard: 7, AgeMS: age}
		if progress != "" {
			h.Progress = json.RawMessage(progress)
		}
		return []Held{h}
	}
	small = &Heartbeat{
		Worker: "payments-1-5e0c2a91", Name: "payments-1", Queue: "ringmaster.worker.payments-1-5e0c2a91.k3v9",
		Service: "payments", TaskTypes: []string{"payments.charge", "payments.refund"}, Capacity: 16, Credit: 272, Weight: 100,
		IntervalMS: 1000, Sequence: 1,
	}
	h := *small
	h.Capabilities, h.Release, h.Draining, h.Leaving, h.Sequence = []string{CapabilityBatch}, "1.4.0", true, true, 12
	h.Received, h.Floor = map[string]uint64{"node-a-3f9c1b7d": 118, "node-b-77aa0010": 4}, map[string]uint64{"node-a-3f9c1b7d": 55}
	h.Queued, h.Running, h.Finished = held(0, 0, ""), held(1, 310, `{"page":7}`), held(2, 0, "")
	return small, &h
}

// goldenMessages are messages of every kind, as this code writes them when it
// speaks version v and nothing else.
func goldenMessages(v int) []goldenMessage {
	const queue, exchange, owner = "ringmaster.worker.payments-1-5e0c2a91.k3v9", "ringmaster.results", "node-a-3f9c1b7d"
	const heartbeats, announcements = "ringmaster.heartbeats", "ringmaster.announcements"
	spoken := Versions{v, v}
	var all []goldenMessage
	add := func(name string, m broker.Message, value any) { all = append(all, goldenMessage{name, m, value}) }
	var tasks []*Task
	for _, t := range []struct {
		name   string
		change func(*Task)
	}{
		{"plain", nil}, {"with all that a task may have", fullTask}, {"commit in one phase", onePhase}, {"undoes a child run", undoesRun},
		{"prepare", ofPhase(PhasePrepare)}, {"abort", ofPhase(PhaseAbort)},
	} {
		task := goldenTask(t.change)
		m := EncodeTask(v, queue, task)
		SetDurable(&m, 54)
		add("task: "+t.name, m, []*Task{task})
		tasks = append(tasks, task)
	}
	add("tasks: one in a batch", EncodeTasks(v, queue, owner, 54, tasks[:1]), tasks[:1])
	add("tasks: all of these in a batch", EncodeTasks(v, queue, owner, 0, tasks), tasks)
	var results []*Result
	for _, r := range []struct {
		name   string
		change func(*Result)
	}{
		{"succeeded", nil}, {"with all that a result may have", fullResult}, {"failed", outcome(OutcomeFailed, "card_declined")},
		{"read-only", outcome(OutcomeReadOnly, "")},
	} {
		result := goldenResult(r.change)
		add("result: "+r.name, EncodeResult(v, exchange, result), []*Result{result})
		results = append(results, result)
	}
	add("results: all of these in a batch", EncodeResults(v, exchange, results), results)
	small, full := goldenHeartbeats()
	add("heartbeat: the first", encodeHeartbeat(spoken, heartbeats, small), small)
	add("heartbeat: with all that it may have", encodeHeartbeat(spoken, heartbeats, full), full)
	for name, a := range map[string]*Announcement{
		"hello":    {Orchestrator: owner, Hello: true, Shards: map[uint32]uint64{0: 2, 7: 3}},
		"ordinary": {Orchestrator: owner, Shards: map[uint32]uint64{0: 2}, Durable: map[string]uint64{"payments-1-5e0c2a91": 54}},
		"leaving":  {Orchestrator: owner, Leaving: true, Shards: map[uint32]uint64{}},
	} {
		add("announcement: "+name, encodeAnnouncement(spoken, announcements, a), a)
	}
	cancel := &Control{Orchestrator: owner, Cancel: []TaskID{goldenTask(nil).TaskID}, Durable: 54}
	add("control: cancel", EncodeControl(v, queue, cancel), cancel)
	if v >= 2 {
		refused := &Control{Orchestrator: owner, Refused: "worker speaks version 5, this side 2"}
		add("control: refused", EncodeControl(v, queue, refused), refused)
	}
	if v >= mailVersion {
		addMail(add, owner)
	}
	if v == Version { // as it is really sent
		add("heartbeat: of one that speaks the version before too", EncodeHeartbeat(heartbeats, small), small)
		add("announcement: of one that speaks the version before too", EncodeAnnouncement(announcements, &Announcement{Orchestrator: owner, Shards: map[uint32]uint64{}}),
			&Announcement{Orchestrator: owner, Shards: map[uint32]uint64{}})
	}
	drain := &Control{Orchestrator: owner, Drain: true}
	add("control: drain", EncodeControl(v, queue, drain), drain)
	for _, r := range []*Request{
		{Type: RequestStart, RunID: "order-1001", Body: []byte(`{"workflow":"order-flow","id":"order-1001","input":{}}`)},
		{Type: RequestCancel, RunID: "order-1001", Body: []byte(`{"reason":"changed my mind"}`)},
		{Type: RequestSignal, RunID: "order-1001", Body: []byte(`{"name":"approval","id":"t-17"}`)},
		{Type: RequestRegister, Trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Body: []byte(`{"name":"order-flow"}`)},
		{Type: RequestDecision, RunID: "order-1001", ReplyTo: queue},
	} {
		add("request: "+string(r.Type), EncodeRequest("ringmaster.requests", r), r)
	}
	for _, a := range []*Answer{
		{RunID: "order-1001", Orchestrator: owner, Decision: Committed},
		{RunID: "order-1001", Orchestrator: owner, Decision: Undecided},
		{RunID: "order-1001", Orchestrator: owner, Code: "no_decision", Message: "the run is a saga"},
	} {
		add("answer: "+a.Decision.String()+a.Code, EncodeAnswer(queue, a), a)
	}
	slices.SortStableFunc(all, func(a, b goldenMessage) int { return strings.Compare(a.name, b.name) })
	return all
}

// addMail adds what orchestrators send each other.
func addMail(add func(string, broker.Message, any), from string) {
	const exchange, to = "ringmaster.shards", "node-b-77aa0010"
	body := []byte(`{"method":"cancel","id":"order-1001"}`)
	add("mail: errand", EncodeErrand(exchange, ShardKey(7), from, "12", body), &Mail{Kind: KindErrand, ID: "12", From: from, Body: body})
	add("mail: reply", EncodeErrandReply(exchange, to, from, "12", body), &Mail{Kind: KindErrandReply, ID: "12", From: from, Body: body})
	add("mail: letters", EncodeLetters(exchange, 7, from, body), &Mail{Kind: KindLetters, From: from, Body: body})
}

// format writes all that travels of a message, types of headers included.
func format(name string, m *broker.Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "== %s\nexchange %q key %q mandatory %t persistent %t\n", name, m.Exchange, m.Key, m.Mandatory, m.Persistent)
	fmt.Fprintf(&b, "type %q content-type %q app-id %q correlation-id %q message-id %q\n", m.Type, m.ContentType, m.AppID, m.CorrelationID, m.ID)
	for _, key := range slices.Sorted(maps.Keys(m.Headers)) {
		fmt.Fprintf(&b, "%s %T %s\n", key, m.Headers[key], strconv.Quote(fmt.Sprint(m.Headers[key])))
	}
	fmt.Fprintf(&b, "body %s\n", strconv.QuoteToASCII(string(m.Body)))
	return b.String()
}

// Peers of the version before are served by what stands there: this code writes
// it for them byte by byte, and reads it.
func TestMessagesOfEachVersionAreThoseRecorded(t *testing.T) {
	for v := MinVersion; v <= Version; v++ {
		file := "testdata/version" + strconv.Itoa(v) + ".txt"
		var written []string
		for _, g := range goldenMessages(v) {
			written = append(written, format(g.name, &g.message))
		}
		if *update && v == Version {
			if err := os.WriteFile(file, []byte(strings.Join(written, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		recorded, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := strings.SplitAfter(string(recorded), "\n\n")
		for i := range max(len(written), len(want)) {
			var w, r string
			if i < len(written) {
				w = strings.TrimSpace(written[i])
			}
			if i < len(want) {
				r = strings.TrimSpace(want[i])
			}
			if w != r {
				t.Errorf("version %d, written:\n%s\nrecorded:\n%s", v, w, r)
			}
		}
	}
}

func TestRecordedMessagesOfEachVersionAreRead(t *testing.T) {
	for v := MinVersion; v <= Version; v++ {
		for _, g := range goldenMessages(v) {
			got, err := decodeGolden(&g)
			if err != nil {
				t.Errorf("version %d, %s: %v", v, g.name, err)
			} else if !reflect.DeepEqual(got, g.value) {
				t.Errorf("version %d, %s: read\n%+v, want\n%+v", v, g.name, got, g.value)
			}
		}
	}
}

// decodeGolden reads a message, without what it says of versions.
func decodeGolden(g *goldenMessage) (any, error) {
	m := &g.message
	switch Kind(m.Type) {
	case KindTask:
		tasks, _, bad, err := DecodeTasks(m)
		return pointers(tasks), cmp.Or(err, firstBad(bad))
	case KindResult:
		results, bad, err := DecodeResults(m)
		return pointers(results), cmp.Or(err, firstBad(bad))
	case KindHeartbeat:
		h, err := DecodeHeartbeat(m)
		h.Version, h.MaxVersion = 0, 0
		return &h, err
	case KindAnnouncement:
		a, err := DecodeAnnouncement(m)
		a.Version, a.MaxVersion = 0, 0
		return &a, err
	case KindControl:
		c, err := DecodeControl(m)
		c.Version = 0
		return &c, err
	case KindRequest:
		r, err := DecodeRequest(m)
		return &r, err
	case KindErrand, KindErrandReply, KindLetters:
		mail, err := DecodeMail(m)
		return &mail, err
	default:
		a, err := DecodeAnswer(m)
		return &a, err
	}
}

func firstBad(bad []BadEntry) error {
	if len(bad) > 0 {
		return bad[0].Err
	}
	return nil
}
