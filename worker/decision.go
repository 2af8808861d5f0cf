package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Decision is what was decided of a TCC or two-phase-commit run.
type Decision = protocol.Decision

// The decisions. A run that is committed or aborted is that for ever;
// undecided promises nothing.
const (
	Undecided = protocol.Undecided
	Committed = protocol.Committed
	Aborted   = protocol.Aborted
)

var (
	// ErrNoDecision is wrapped by the error of a question for the decision of a
	// run that has none: a saga, or one that the orchestrator cannot read.
	ErrNoDecision = errors.New("worker: the run has no decision")
	// ErrLeft is wrapped by the error of a question that is asked of a worker
	// that has left.
	ErrLeft = errors.New("worker: has left")
)

// A question is asked again when no answer has come for this long, and then
// after pauses that double.
const (
	firstAsk = 2 * time.Second
	lastAsk  = 30 * time.Second
)

// Decision asks the orchestrator what was decided of a run, for a participant
// that has prepared and has heard no more. It may be called while the worker
// runs and before (then it waits), from handlers and elsewhere, and asks until
// an answer comes or ctx ends.
//
// The answer is durable. [Undecided] means that votes can still come in: do
// nothing, and ask again later. Of a run that the orchestrator does not know the
// answer is [Aborted], and a run of this id can then not be started any more: ask
// only for runs whose tasks have come.
func (w *Worker) Decision(ctx context.Context, run string) (Decision, error) {
	d, err := w.askDecision(ctx, run)
	if err != nil {
		return Undecided, fmt.Errorf("worker: asking for the decision of run %q: %w", run, err)
	}
	return d, nil
}

func (w *Worker) askDecision(ctx context.Context, run string) (Decision, error) {
	if run == "" || len(run) > protocol.MaxNameBytes {
		return Undecided, fmt.Errorf("the id of a run has 1 to %d bytes", protocol.MaxNameBytes)
	}
	select {
	case <-w.connected:
	case <-w.left:
		return Undecided, ErrLeft
	case <-ctx.Done():
		return Undecided, context.Cause(ctx)
	}
	q := w.questions.add(run)
	defer w.questions.remove(run, q)
	pause := firstAsk
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-again.C:
		case <-q.ask:
		case a := <-q.answer:
			return taken(a)
		case <-w.left:
			return Undecided, ErrLeft
		case <-ctx.Done():
			return Undecided, context.Cause(ctx)
		}
		if err := w.publishQuestion(ctx, run); err != nil {
			w.log.Warn("question not sent", slog.String("run", run), slog.Any("error", err))
		}
		again.Reset(pause)
		pause = min(2*pause, lastAsk)
	}
}

// publishQuestion asks by way of the requests queue, which outlives
// orchestrators. The answer comes to the queue of the worker's tasks.
func (w *Worker) publishQuestion(ctx context.Context, run string) error {
	w.mu.Lock()
	queue := w.queue
	w.mu.Unlock()
	if queue == "" {
		return broker.ErrUnavailable
	}
	return w.conn.PublishConfirmed(ctx, protocol.EncodeRequest(protocol.RequestsQueue(w.cfg.Namespace),
		&protocol.Request{Type: protocol.RequestDecision, RunID: run, ReplyTo: queue}))
}

func taken(a protocol.Answer) (Decision, error) {
	if a.Code != "" {
		return Undecided, fmt.Errorf("%w: %s: %s", ErrNoDecision, a.Code, a.Message)
	}
	return a.Decision, nil
}

// question is one call of Decision that waits.
type question struct {
	answer chan protocol.Answer // holds one
	ask    chan struct{}        // ask at once
}

// questions are those that wait for an answer, by run.
type questions struct {
	mu    sync.Mutex
	asked map[string][]*question
}

func (qs *questions) add(run string) *question {
	q := &question{answer: make(chan protocol.Answer, 1), ask: make(chan struct{}, 1)}
	qs.mu.Lock()
	defer qs.mu.Unlock()
	if qs.asked == nil {
		qs.asked = map[string][]*question{}
	}
	qs.asked[run] = append(qs.asked[run], q)
	return q
}

func (qs *questions) remove(run string, q *question) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	kept := qs.asked[run][:0]
	for _, other := range qs.asked[run] {
		if other != q {
			kept = append(kept, other)
		}
	}
	if qs.asked[run] = kept; len(kept) == 0 {
		delete(qs.asked, run)
	}
}

// answered hands an answer to all that wait for it.
func (qs *questions) answered(a protocol.Answer) {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	for _, q := range qs.asked[a.RunID] {
		select {
		case q.answer <- a:
		default: // it has one
		}
	}
}

// again has all be asked once more: the queue that answers were to come to is
// gone.
func (qs *questions) again() {
	qs.mu.Lock()
	defer qs.mu.Unlock()
	for _, of := range qs.asked {
		for _, q := range of {
			kick(q.ask)
		}
	}
}
