package protocol

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"pgregory.net/rapid"
)

func sampleTask() Task {
	return Task{
		TaskID: TaskID{Ref: 7<<40 | 42, Step: 1, Phase: PhaseAction, Generation: 1, Attempt: 2},
		RunID:  "order-1001", Workflow: "order-flow", StepName: "pay", Service: "payments", Type: "payments.charge",
		RoutingKey: "customer-7", Shard: 7, Epoch: 3, Owner: "orch-a-0190", Seq: 118, Timeout: 30 * time.Second,
		NotAfter: time.UnixMilli(1_767_225_600_000).UTC(),
		Trace:    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Payload: []byte(`{"amount":4200}`),
	}
}

func sampleResult() Result {
	return Result{
		TaskID: TaskID{Ref: 7<<40 | 42, Step: 1, Phase: PhaseAction, Generation: 1, Attempt: 2},
		RunID:  "order-1001", StepName: "pay", Shard: 7, Worker: "payments-1-0190", Owner: "orch-a-0190", Seq: 55, Outcome: OutcomeFailed,
		Retryable: true, Code: "card_declined", Message: "the card was declined", Stack: "main.go:1",
		Duration: 1234 * time.Microsecond, Trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		Payload: []byte(`{}`),
	}
}

func sampleHeartbeat() Heartbeat {
	held := func(step int32) []Held {
		return []Held{{TaskID: TaskID{Ref: 9, Step: step, Phase: PhaseCompensate, Generation: 1, Attempt: 1}, Shard: 2, AgeMS: 15}}
	}
	return Heartbeat{
		Version: MinVersion, MaxVersion: Version, Worker: "payments-1-0190", Name: "payments-1", Queue: "ringmaster.worker.payments-1-0190.x",
		Service: "payments", TaskTypes: []string{"payments.charge"}, Capabilities: []string{CapabilityBatch},
		Capacity: 16, Credit: 32, Weight: 100, Release: "1.4.0", IntervalMS: 1000, Sequence: 12,
		Received: map[string]uint64{"orch-a-0190": 118}, Floor: map[string]uint64{"orch-a-0190": 55}, Queued: held(1), Running: held(2), Finished: held(3),
	}
}

func TestNamesCarryTheNamespace(t *testing.T) {
	for got, want := range map[string]string{
		WorkerQueue("", "w1"):           "ringmaster.worker.w1",
		WorkerQueue("shop", "w1"):       "shop.worker.w1",
		ResultsExchange("shop"):         "shop.results",
		ResultsQueue("shop", "o1"):      "shop.results.o1",
		HeartbeatsExchange("shop"):      "shop.heartbeats",
		AnnouncementsExchange("shop"):   "shop.announcements",
		RequestsQueue("shop"):           "shop.requests",
		DeadLettersQueue("shop"):        "shop.deadletters",
		ShardKey(0):                     "shard.0",
		ShardKey(4_000_000_000):         "shard.4000000000",
		RequestsQueue(DefaultNamespace): RequestsQueue(""),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if n := len(WorkerQueue("", strings.Repeat("é", 200))); n > 200 {
		t.Errorf("queue prefix of a long worker id has %d bytes", n)
	}
}

func TestPhasesAndOutcomesRoundTripAsText(t *testing.T) {
	for p := PhaseAction; p <= PhaseAbort; p++ {
		text, _ := p.MarshalText()
		var q Phase
		if err := q.UnmarshalText(text); err != nil || q != p {
			t.Errorf("%s: got %v, %v", text, q, err)
		}
	}
	for o := OutcomeSucceeded; o <= OutcomeReadOnly; o++ {
		text, _ := o.MarshalText()
		var q Outcome
		if err := q.UnmarshalText(text); err != nil || q != o {
			t.Errorf("%s: got %v, %v", text, q, err)
		}
	}
	for _, text := range []string{"", "Action", "phase(9)", "outcome(0)", "act"} {
		var p Phase
		var o Outcome
		if err := p.UnmarshalText([]byte(text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("phase %q: %v", text, err)
		}
		if err := o.UnmarshalText([]byte(text)); !errors.Is(err, ErrMalformed) {
			t.Errorf("outcome %q: %v", text, err)
		}
	}
	if s := Phase(9).String() + Outcome(0).String(); s != "phase(9)outcome(0)" {
		t.Error(s)
	}
}

// Generators of what may travel.

var (
	genName = rapid.StringOfN(rapid.RuneFrom([]rune("ab.-_é√0")), 1, 40, 200)
	genKey  = rapid.StringOfN(rapid.RuneFrom([]rune("ab 7é")), 0, 30, 256)
	genText = rapid.StringOfN(rapid.RuneFrom([]rune("ab\n\t é")), 0, 50, 1000)
)

func genTaskID(t *rapid.T) TaskID {
	return TaskID{
		Ref:        rapid.Int64Min(0).Draw(t, "ref"),
		Step:       rapid.Int32Min(0).Draw(t, "step"),
		Phase:      Phase(rapid.IntRange(1, 5).Draw(t, "phase")),
		Generation: rapid.Uint32Min(1).Draw(t, "generation"),
		Attempt:    rapid.Uint32Min(1).Draw(t, "attempt"),
	}
}

func genPayload(t *rapid.T) []byte {
	b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "payload")
	if len(b) == 0 {
		return nil
	}
	return b
}

var genTask = rapid.Custom(func(t *rapid.T) Task {
	x := Task{
		TaskID:   genTaskID(t),
		Progress: rapid.SampledFrom([][]byte{nil, []byte(`"half"`), []byte(`{"rows":100}`)}).Draw(t, "progress"),
		OnePhase: rapid.Bool().Draw(t, "one phase"),
		Tokens:   rapid.SampledFrom([][]Token{nil, {{"a", 1}}, {{"account/é 1", 7}, {"serial:w/k", 1 << 62}}}).Draw(t, "tokens"),
		Resent:   rapid.Bool().Draw(t, "resent"), UndoesRun: rapid.Bool().Draw(t, "undoes a run"),
		RunID:    genName.Draw(t, "run"),
		Workflow: genName.Draw(t, "workflow"), StepName: genName.Draw(t, "step"),
		Service: genName.Draw(t, "service"), Type: genName.Draw(t, "type"), RoutingKey: genKey.Draw(t, "key"),
		Shard: rapid.Uint32Max(MaxShards-1).Draw(t, "shard"), Epoch: rapid.Uint64Max(maxNumber).Draw(t, "epoch"),
		Owner: "owner", Seq: rapid.Uint64Range(1, maxNumber).Draw(t, "seq"),
		Timeout: time.Duration(rapid.Int64Range(1, maxTimeoutMS).Draw(t, "timeout")) * time.Millisecond,
		Trace:   rapid.SampledFrom([]string{"", sampleTask().Trace}).Draw(t, "trace"),
		Payload: genPayload(t),
	}
	if rapid.Bool().Draw(t, "same key") {
		x.RoutingKey = x.RunID
	}
	if rapid.Bool().Draw(t, "bounded") {
		x.NotAfter = time.UnixMilli(rapid.Int64Range(1, maxUnixMS).Draw(t, "not after")).UTC()
	}
	return x
})

var genResult = rapid.Custom(func(t *rapid.T) Result {
	return Result{
		TaskID: genTaskID(t), RunID: genName.Draw(t, "run"), StepName: genName.Draw(t, "step"),
		Shard: rapid.Uint32Max(MaxShards-1).Draw(t, "shard"), Worker: "worker", Owner: "owner",
		Seq:       rapid.Uint64Range(1, maxNumber).Draw(t, "seq"),
		Outcome:   Outcome(rapid.IntRange(1, 3).Draw(t, "outcome")),
		Retryable: rapid.Bool().Draw(t, "retryable"), Resent: rapid.Bool().Draw(t, "resent"), Code: rapid.SampledFrom([]string{"", "timeout", "card é"}).Draw(t, "code"),
		Message: genText.Draw(t, "message"), Stack: genText.Draw(t, "stack"),
		Duration: time.Duration(rapid.Int64Range(0, maxDurUS).Draw(t, "duration")) * time.Microsecond,
		Trace:    rapid.SampledFrom([]string{"", sampleTask().Trace}).Draw(t, "trace"), Payload: genPayload(t),
	}
})

func pointers[T any](xs []T) []*T {
	ps := make([]*T, len(xs))
	for i := range xs {
		ps[i] = &xs[i]
	}
	return ps
}

func TestTasksAreTheSameInBothForms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(genTask, 0, 8).Draw(t, "tasks")
		durable := rapid.Uint64Max(maxNumber).Draw(t, "durable")
		m := EncodeTasks(Version, "q", "owner", durable, pointers(want))
		got, d, bad, err := DecodeTasks(&m)
		if err != nil || len(bad) > 0 || d != durable || !reflect.DeepEqual(got, want) && len(want) > 0 {
			t.Fatalf("batch: %v %v durable %d\n got %+v\nwant %+v", err, bad, d, got, want)
		}
		size := headSize("owner", &table{}) + encodeTable*(MaxNameBytes+stringPrefix)
		for i := range want {
			size += want[i].Size() + entryPrefix
			m := EncodeTask(Version, "q", &want[i])
			SetDurable(&m, durable)
			one, d, bad, err := DecodeTasks(&m)
			if err != nil || len(bad) > 0 || d != durable || len(one) != 1 || !reflect.DeepEqual(one[0], want[i]) {
				t.Fatalf("single: %v %v\n got %+v\nwant %+v", err, bad, one, want[i])
			}
		}
		if len(m.Body) > size {
			t.Fatalf("body has %d bytes, Size promised at most %d", len(m.Body), size)
		}
	})
}

func TestResultsAreTheSameInBothForms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(genResult, 0, 8).Draw(t, "results")
		m := EncodeResults(Version, "x", pointers(want))
		got, bad, err := DecodeResults(&m)
		if len(want) == 0 {
			return // there is no worker to name
		}
		if err != nil || len(bad) > 0 || !reflect.DeepEqual(got, want) {
			t.Fatalf("batch: %v %v\n got %+v\nwant %+v", err, bad, got, want)
		}
		if m.Exchange != "x" || m.Key != ShardKey(want[0].Shard) || !m.Mandatory {
			t.Fatalf("batch is addressed %+v", m)
		}
		for i := range want {
			m := EncodeResult(Version, "x", &want[i])
			one, bad, err := DecodeResults(&m)
			if err != nil || len(bad) > 0 || len(one) != 1 || !reflect.DeepEqual(one[0], want[i]) {
				t.Fatalf("single: %v %v\n got %+v\nwant %+v", err, bad, one, want[i])
			}
		}
	})
}

func TestHeadersHoldOnlyTheTypesOfThePort(t *testing.T) {
	task, result, hb := sampleTask(), sampleResult(), sampleHeartbeat()
	msgs := []broker.Message{
		EncodeTask(Version, "q", &task), EncodeTasks(Version, "q", "o", 1, []*Task{&task}), EncodeResult(Version, "x", &result),
		EncodeResults(Version, "x", []*Result{&result}), EncodeHeartbeat("x", &hb),
		EncodeAnnouncement("x", &Announcement{Orchestrator: "o"}), EncodeControl(Version, "q", &Control{Orchestrator: "o"}),
		EncodeRequest("q", &Request{Type: RequestStart, Trace: task.Trace, RunID: "r"}),
		EncodeAnswer("q", &Answer{RunID: "r", Code: "c"}),
	}
	msgs = append(msgs, DeadLetter("q", &msgs[0], "s", errors.New("broken")))
	for _, m := range msgs {
		if v := MessageVersion(&m); v < 1 || v > Version {
			t.Errorf("%s has no version", m.Type)
		}
		for k, v := range m.Headers {
			switch v.(type) {
			case string, int64, bool, []byte:
			default:
				t.Errorf("%s: %s is a %T", m.Type, k, v)
			}
		}
	}
}
