package machine

import (
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

func threeSteps() *definitions.Workflow {
	b := definitions.Saga("three").Service("s")
	b.Step("create").Action("create").Compensation("cancel")
	b.Step("pay").Action("pay").Compensation("refund")
	b.Step("deliver").Action("deliver").Compensation("recall")
	return b.MustBuild()
}

// BenchmarkThreeStepSaga runs a whole saga: a start and three results, the
// events encoded as they would be stored, the commands read.
func BenchmarkThreeStepSaga(b *testing.B) {
	wf := threeSteps()
	now := time.UnixMilli(1_700_000_000_000)
	input := []byte(`{"order":1}`)
	output := []byte(`{"id":7}`)
	var cmds []Command
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		s := NewState(wf)
		events, err := s.Step(Start{RunID: "018f4e9a-0000-7000-8000-000000000001", Input: input}, now)
		if err != nil {
			b.Fatal(err)
		}
		buf = AppendEvents(buf[:0], events)
		for {
			cmds = s.Commands(cmds[:0])
			if len(cmds) == 0 {
				break
			}
			c := cmds[0]
			events, err = s.Step(Result{
				Step: c.Step, Phase: c.Phase, Generation: c.Generation, Attempt: c.Attempt,
				Outcome: OutcomeSucceeded, Worker: "orders-1", Output: output,
			}, now)
			if err != nil {
				b.Fatal(err)
			}
			buf = AppendEvents(buf[:0], events)
		}
		if s.Status() != Succeeded {
			b.Fatal(s.Status())
		}
	}
	b.ReportMetric(float64(len(buf)), "bytes/last-record")
}

// BenchmarkFold rebuilds the state of a three-step saga from its records.
func BenchmarkFold(b *testing.B) {
	wf := threeSteps()
	now := time.UnixMilli(1_700_000_000_000)
	s := NewState(wf)
	var records [][]byte
	step := func(in Input) {
		events, err := s.Step(in, now)
		if err != nil {
			b.Fatal(err)
		}
		records = append(records, AppendEvents(nil, events))
	}
	step(Start{RunID: "r", Input: []byte(`{"order":1}`)})
	for i := range 2 {
		step(Result{Step: i, Phase: Action, Generation: 1, Attempt: 1, Outcome: OutcomeSucceeded, Worker: "orders-1", Output: []byte(`{"id":7}`)})
	}
	b.ReportAllocs()
	for b.Loop() {
		s := NewState(wf)
		for _, data := range records {
			events, err := DecodeEvents(data)
			if err != nil {
				b.Fatal(err)
			}
			for _, e := range events {
				if err := s.Apply(e); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}
