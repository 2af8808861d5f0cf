package machine

import (
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// phaseWords are the words before a step that say which task is meant.
var phaseWords = map[string]Phase{"undo": Compensate, "prepare": Prepare, "commit": Commit, "abort": Abort}

// defineTransaction reads a 2PC or a TCC: a line for itself, which names the
// kind, and one per participant.
func (sc *script) defineTransaction(kind, text string) {
	b := definitions.TwoPhase("test").Service("s")
	if kind == "tcc" {
		b = definitions.TCC("test").Service("s")
	}
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), " | ")
		if fields[0] == kind {
			for _, f := range fields[1:] {
				switch key, value, _ := strings.Cut(f, ": "); key {
				case "deadline":
					b.Deadline(duration(sc.t, value))
				case "key":
					b.RoutingKey(value)
				case "output":
					b.Output(value)
				case "lock":
					b.Lock(value)
				default:
					sc.t.Fatalf("define: %q", f)
				}
			}
			continue
		}
		once := definitions.RetryPolicy{Initial: time.Second, Jitter: definitions.NoJitter}
		p := b.Participant(fields[0]).Try("try-" + fields[0]).Confirm("confirm-" + fields[0]).Cancel("cancel-" + fields[0]).
			Retry(once).PhaseTwoRetry(once)
		for _, f := range fields[1:] {
			switch key, value, _ := strings.Cut(f, ": "); key {
			case "input":
				p.Input(value)
			case "retry":
				p.Retry(sc.policy(value))
			case "phase two retry":
				p.PhaseTwoRetry(sc.policy(value))
			default:
				sc.t.Fatalf("define: %q", f)
			}
		}
	}
	wf, err := b.Build()
	if err != nil {
		sc.t.Fatalf("define: %v", err)
	}
	sc.begin(wf)
}
