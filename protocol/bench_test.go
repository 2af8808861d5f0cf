package protocol

import (
	"fmt"
	"testing"
)

func manyTasks(n int) []*Task {
	ts := make([]*Task, n)
	for i := range ts {
		t := sampleTask()
		t.RunID = fmt.Sprintf("01890a5d-ac96-774b-bcce-%012d", i)
		t.RoutingKey = t.RunID
		t.StepName = []string{"create", "pay", "deliver"}[i%3]
		t.Seq = uint64(i + 1)
		ts[i] = &t
	}
	return ts
}

func manyResults(n int) []*Result {
	rs := make([]*Result, n)
	for i := range rs {
		r := sampleResult()
		r.RunID = fmt.Sprintf("01890a5d-ac96-774b-bcce-%012d", i)
		r.Outcome, r.Code, r.Message, r.Stack, r.Retryable = OutcomeSucceeded, "", "", "", false
		rs[i] = &r
	}
	return rs
}

func TestBatchesCostFewAllocations(t *testing.T) {
	const n = 100
	ts, rs := manyTasks(n), manyResults(n)
	tm, rm := EncodeTasks(Version, "q", "orch-a", 9, ts), EncodeResults(Version, "x", rs)
	for _, c := range []struct {
		what string
		max  float64
		f    func()
	}{
		{"encode tasks", 5, func() { EncodeTasks(Version, "q", "orch-a", 9, ts) }},
		{"encode results", 5, func() { EncodeResults(Version, "x", rs) }},
		{"decode tasks", 2*n + 10, func() { _, _, _, _ = DecodeTasks(&tm) }},
		{"decode results", 2*n + 10, func() { _, _, _ = DecodeResults(&rm) }},
	} {
		got := testing.AllocsPerRun(50, c.f)
		t.Logf("%s, %d entries: %.0f allocations", c.what, n, got)
		if got > c.max {
			t.Errorf("%s: %.0f allocations, at most %.0f", c.what, got, c.max)
		}
	}
	t.Logf("bytes per task %d, per result %d", len(tm.Body)/n, len(rm.Body)/n)
}

func BenchmarkEncodeTask(b *testing.B) {
	t := manyTasks(1)[0]
	b.ReportAllocs()
	for b.Loop() {
		EncodeTask(Version, "q", t)
	}
}

func BenchmarkDecodeTask(b *testing.B) {
	m := EncodeTask(Version, "q", manyTasks(1)[0])
	b.ReportAllocs()
	for b.Loop() {
		_, _, _, _ = DecodeTasks(&m)
	}
}

func BenchmarkEncodeTasks100(b *testing.B) {
	ts := manyTasks(100)
	b.ReportAllocs()
	for b.Loop() {
		EncodeTasks(Version, "q", "orch-a", 9, ts)
	}
}

func BenchmarkDecodeTasks100(b *testing.B) {
	m := EncodeTasks(Version, "q", "orch-a", 9, manyTasks(100))
	b.ReportAllocs()
	for b.Loop() {
		_, _, _, _ = DecodeTasks(&m)
	}
}

func BenchmarkEncodeResults100(b *testing.B) {
	rs := manyResults(100)
	b.ReportAllocs()
	for b.Loop() {
		EncodeResults(Version, "x", rs)
	}
}

func BenchmarkDecodeResults100(b *testing.B) {
	m := EncodeResults(Version, "x", manyResults(100))
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = DecodeResults(&m)
	}
}

func manyHeld() Heartbeat {
	h := sampleHeartbeat()
	h.Queued = nil
	for i := range 256 {
		h.Queued = append(h.Queued, Held{TaskID: TaskID{Ref: int64(i) + 7<<40, Step: 1, Phase: PhaseAction, Generation: 1, Attempt: 1}, Shard: 7})
	}
	return h
}

func BenchmarkEncodeHeartbeat256(b *testing.B) {
	h := manyHeld()
	b.ReportAllocs()
	for b.Loop() {
		EncodeHeartbeat("x", &h)
	}
}

func BenchmarkDecodeHeartbeat256(b *testing.B) {
	h := manyHeld()
	m := EncodeHeartbeat("x", &h)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = DecodeHeartbeat(&m)
	}
}
