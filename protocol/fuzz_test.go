package protocol

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/ringmaster-dev/ringmaster/broker"
)

func malformedOnly(t *testing.T, err error) bool {
	if err != nil && !errors.Is(err, ErrMalformed) {
		t.Fatalf("an error that does not wrap ErrMalformed: %v", err)
	}
	return err != nil
}

// What is decoded must encode to what decodes to the same.
func FuzzDecodeTasksBatch(f *testing.F) {
	x := sampleTask()
	f.Add(EncodeTasks(Version, "q", "o", 1, []*Task{&x}).Body)
	f.Add(EncodeTasks(Version, "q", "o", 1, manyTasks(3)).Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		m := broker.Message{Type: string(KindTask), ContentType: ContentTypeBatch, Headers: versionHeader(Version), Body: body}
		before := bytes.Clone(body)
		ts, durable, bad, err := DecodeTasks(&m)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		for i := range bad {
			malformedOnly(t, bad[i].Err)
		}
		if malformedOnly(t, err) || len(ts) == 0 {
			return
		}
		again := EncodeTasks(Version, "q", ts[0].Owner, durable, pointers(ts))
		got, d, bad, err := DecodeTasks(&again)
		if err != nil || len(bad) > 0 || d != durable || !reflect.DeepEqual(got, ts) {
			t.Fatalf("%v %v\n got %+v\nwant %+v", err, bad, got, ts)
		}
	})
}

func FuzzDecodeResultsBatch(f *testing.F) {
	x := sampleResult()
	f.Add(EncodeResults(Version, "x", []*Result{&x}).Body)
	f.Add(EncodeResults(Version, "x", manyResults(3)).Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		m := broker.Message{Type: string(KindResult), ContentType: ContentTypeBatch, Headers: versionHeader(Version), Body: body}
		rs, bad, err := DecodeResults(&m)
		for i := range bad {
			malformedOnly(t, bad[i].Err)
		}
		if malformedOnly(t, err) || len(rs) == 0 {
			return
		}
		again := EncodeResults(Version, "x", pointers(rs))
		got, bad, err := DecodeResults(&again)
		if err != nil || len(bad) > 0 || !reflect.DeepEqual(got, rs) {
			t.Fatalf("%v %v\n got %+v\nwant %+v", err, bad, got, rs)
		}
	})
}

func FuzzDecodeTaskSingle(f *testing.F) {
	f.Add("run", "wf", "step", "svc", "type", "key", "owner", "action", "", int64(1), int64(2), int64(3), int64(4), int64(5), []byte("{}"))
	f.Fuzz(func(t *testing.T, run, wf, step, svc, typ, key, owner, phase, trace string, ref, index, gen, seq, timeout int64, body []byte) {
		m := broker.Message{Type: string(KindTask), Headers: map[string]any{
			HeaderVersion: int64(Version), HeaderRun: run, HeaderWorkflow: wf, HeaderStep: step, HeaderService: svc,
			HeaderTaskType: typ, HeaderRoutingKey: key, HeaderOwner: owner, HeaderPhase: phase, HeaderTrace: trace,
			HeaderRef: ref, HeaderStepIndex: index, HeaderGeneration: gen, HeaderAttempt: gen, HeaderShard: index,
			HeaderEpoch: seq, HeaderSeq: seq, HeaderTimeout: timeout, HeaderNotAfter: timeout, HeaderDurable: seq,
		}, Body: body}
		ts, durable, _, err := DecodeTasks(&m)
		if malformedOnly(t, err) {
			return
		}
		again := EncodeTasks(Version, "q", ts[0].Owner, durable, pointers(ts))
		got, d, bad, err := DecodeTasks(&again)
		if err != nil || len(bad) > 0 || d != durable || !reflect.DeepEqual(got, ts) {
			t.Fatalf("%v %v\n got %+v\nwant %+v", err, bad, got, ts)
		}
	})
}

func FuzzDecodeResultSingle(f *testing.F) {
	f.Add("run", "step", "worker", "failed", "code", "message", "stack", "action", true, int64(1), int64(2), int64(3), []byte("{}"))
	f.Fuzz(func(t *testing.T, run, step, worker, outcome, code, message, stack, phase string, retryable bool, ref, gen, seq int64, body []byte) {
		m := broker.Message{Type: string(KindResult), Headers: map[string]any{
			HeaderVersion: int64(Version), HeaderRun: run, HeaderStep: step, HeaderWorker: worker, HeaderOutcome: outcome,
			HeaderCode: code, HeaderMessage: message, HeaderStack: stack, HeaderPhase: phase, HeaderRetryable: retryable,
			HeaderRef: ref, HeaderStepIndex: gen, HeaderGeneration: gen, HeaderAttempt: gen, HeaderShard: gen,
			HeaderSeq: seq, HeaderDuration: seq,
		}, Body: body}
		rs, _, err := DecodeResults(&m)
		if malformedOnly(t, err) {
			return
		}
		again := EncodeResults(Version, "x", pointers(rs))
		got, bad, err := DecodeResults(&again)
		if err != nil || len(bad) > 0 || !reflect.DeepEqual(got, rs) {
			t.Fatalf("%v %v\n got %+v\nwant %+v", err, bad, got, rs)
		}
	})
}

func FuzzDecodeJSON(f *testing.F) {
	hb := sampleHeartbeat()
	f.Add(EncodeHeartbeat("x", &hb).Body)
	f.Add(EncodeAnnouncement("x", &Announcement{Orchestrator: "o", Shards: map[uint32]uint64{1: 2}}).Body)
	f.Add(EncodeControl(Version, "q", &Control{Orchestrator: "o", Cancel: []TaskID{{Phase: 1, Generation: 1, Attempt: 1}}}).Body)
	f.Fuzz(func(t *testing.T, body []byte) {
		msg := func(k Kind) *broker.Message {
			return &broker.Message{Type: string(k), Headers: versionHeader(Version), Body: body}
		}
		if h, err := DecodeHeartbeat(msg(KindHeartbeat)); !malformedOnly(t, err) {
			m := EncodeHeartbeat("x", &h)
			if _, err := DecodeHeartbeat(&m); err != nil {
				t.Fatal(err)
			}
		}
		if a, err := DecodeAnnouncement(msg(KindAnnouncement)); !malformedOnly(t, err) {
			m := EncodeAnnouncement("x", &a)
			if _, err := DecodeAnnouncement(&m); err != nil {
				t.Fatal(err)
			}
		}
		if c, err := DecodeControl(msg(KindControl)); !malformedOnly(t, err) {
			m := EncodeControl(Version, "q", &c)
			if _, err := DecodeControl(&m); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add("run.start", "", []byte(`{"workflow":"a"}`))
	f.Add("run.cancel", "r", []byte(nil))
	f.Add("run.decision", "r", []byte("{}"))
	f.Fuzz(func(t *testing.T, typ, run string, body []byte) {
		m := broker.Message{Type: string(KindRequest), Body: body,
			Headers: map[string]any{HeaderVersion: int64(Version), HeaderRequest: typ, HeaderRun: run, HeaderReplyTo: run}}
		r, err := DecodeRequest(&m)
		if malformedOnly(t, err) {
			return
		}
		again := EncodeRequest("q", &r)
		got, err := DecodeRequest(&again)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%v\n got %+v\nwant %+v", err, got, r)
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add("r", "committed", "", "", "o")
	f.Add("r", "", "no_decision", "it is a saga", "o")
	f.Fuzz(func(t *testing.T, run, decision, code, message, app string) {
		m := broker.Message{Type: string(KindDecision), AppID: app, Headers: map[string]any{
			HeaderVersion: int64(Version), HeaderRun: run, HeaderDecision: decision, HeaderCode: code, HeaderMessage: message}}
		a, err := DecodeAnswer(&m)
		if malformedOnly(t, err) {
			return
		}
		again := EncodeAnswer("q", &a)
		got, err := DecodeAnswer(&again)
		got.Orchestrator, a.Orchestrator = "", "" // may have been cut
		if err != nil || !reflect.DeepEqual(got, a) {
			t.Fatalf("%v\n got %+v\nwant %+v", err, got, a)
		}
	})
}
