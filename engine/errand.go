package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// errands are calls of an engine's service methods that another orchestrator
// makes, since what they are about is there: a run is where its shard is owned.
//
// An errand is a message to the shard (or to one orchestrator), answered to the
// orchestrator that sent it. Nobody owns the shard for a moment: it comes back,
// and is sent again, until the caller's patience is over. What was delivered and
// is not answered is not sent again, since it may have been carried out.
type errands struct {
	eng *Engine

	next    atomic.Uint64
	mu      sync.Mutex
	pending map[string]chan reply
	slots   chan struct{} // of those carried out here
}

// The methods that others can call.
const (
	errandStart    = "start"
	errandCancel   = "cancel"
	errandSignal   = "signal"
	errandRetry    = "retry"
	errandSkip     = "skip"
	errandResolve  = "resolve"
	errandDecision = "decision"
	errandWait     = "wait"
	errandRun      = "run"
	errandStats    = "stats"
)

const (
	// errandPatience is how long a call waits for its answer, and for somebody
	// who owns the shard.
	errandPatience = 20 * time.Second
	// resendAfter is how long after nobody was there an errand is sent again.
	resendAfter = 100 * time.Millisecond
	// maxErrands is how many are carried out side by side.
	maxErrands = 1024
)

// order is the body of an errand.
type order struct {
	Method string          `json:"method"`
	ID     string          `json:"id,omitempty"`   // of the run
	Name   string          `json:"name,omitempty"` // of a signal
	Args   json.RawMessage `json:"args,omitempty"`
}

// reply is the body of an answer.
type reply struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *refusal        `json:"error,omitempty"`
}

// refusal is an Error that travels.
type refusal struct {
	Kind    Kind          `json:"kind,omitempty"`
	Code    string        `json:"code,omitempty"`
	Field   string        `json:"field,omitempty"`
	Message string        `json:"message"`
	Hint    string        `json:"hint,omitempty"`
	AfterMS int64         `json:"after_ms,omitempty"`
	Removed *rest.Removed `json:"removed,omitempty"`
}

func refusalOf(err error) *refusal {
	var own *Error
	if !errors.As(err, &own) {
		return &refusal{Message: err.Error()}
	}
	return &refusal{Kind: own.Kind, Code: own.Code, Field: own.Field, Message: own.Message, Hint: own.Hint, AfterMS: own.RetryAfter.Milliseconds(), Removed: own.Removed}
}

func (r *refusal) err() error {
	if r.Kind == 0 {
		return errors.New(r.Message)
	}
	return &Error{Kind: r.Kind, Code: r.Code, Field: r.Field, Message: r.Message, Hint: r.Hint, RetryAfter: time.Duration(r.AfterMS) * time.Millisecond, Removed: r.Removed}
}

// nobody is the code of a reply that says that the shard is not owned there.
const nobody = "not_owner"

func newErrands(e *Engine) *errands {
	return &errands{eng: e, pending: map[string]chan reply{}, slots: make(chan struct{}, maxErrands)}
}

// owns tells whether the run of an id, or what would be one, is this engine's.
func (e *Engine) owns(id string) bool {
	return e.cfg.Leases == nil || e.shards.get(e.shardOf(id)) != nil
}

// ask has the owner of a run's shard carry out a method, and returns its answer.
func ask[T any](ctx context.Context, e *Engine, o order, args any) (T, error) {
	var out T
	if err := e.serving(); err != nil {
		return out, err
	}
	var err error
	if o.Args, err = json.Marshal(args); err != nil {
		return out, fmt.Errorf("encode a call of %s: %w", o.Method, err)
	}
	ctx, cancel := context.WithTimeout(ctx, errandPatience)
	defer cancel()
	for {
		r, err := e.errands.try(ctx, protocol.ShardKey(e.shardOf(o.ID)), &o)
		if err != nil {
			return out, err
		}
		if r == nil || r.Error != nil && r.Error.Code == nobody {
			select {
			case <-time.After(resendAfter):
			case <-ctx.Done():
				return out, errNobody()
			}
			if e.owns(o.ID) {
				local := e.errands.carryOut(ctx, &o)
				r = &local
			} else {
				continue
			}
		}
		if r.Error != nil {
			return out, r.Error.err()
		}
		if err := json.Unmarshal(r.Result, &out); err != nil {
			return out, fmt.Errorf("decode the answer to %s: %w", o.Method, err)
		}
		return out, nil
	}
}

// errNobody answers when a run's shard has no owner.
func errNobody() *Error {
	return &Error{
		Kind: KindUnavailable, Code: "no_owner", Message: "no orchestrator owns the shard of this run at present; one will within seconds",
		Hint: "repeat with the same id", RetryAfter: time.Second,
	}
}

// try sends an errand once. A nil reply means that nobody got it.
func (x *errands) try(ctx context.Context, key string, o *order) (*reply, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode a call of %s: %w", o.Method, err)
	}
	id := fmt.Sprint(x.next.Add(1))
	answer := make(chan reply, 1)
	x.mu.Lock()
	x.pending[id] = answer
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		delete(x.pending, id)
		x.mu.Unlock()
	}()
	err = x.eng.conn.Publish(ctx, protocol.EncodeErrand(protocol.ShardsExchange(x.eng.cfg.Namespace), key, x.eng.id, id, body))
	if errors.Is(err, broker.ErrUnavailable) {
		return nil, &Error{Kind: KindUnavailable, Code: "no_broker", Message: "the run is at another orchestrator, and the broker is not connected", RetryAfter: time.Second, Err: err}
	}
	if errors.Is(err, broker.ErrClosed) {
		return nil, errStopping()
	}
	if err != nil {
		return nil, fmt.Errorf("send a call of %s: %w", o.Method, err)
	}
	select {
	case r := <-answer:
		if r.Result == nil && r.Error == nil {
			return nil, nil // it came back
		}
		return &r, nil
	case <-ctx.Done():
		return nil, unanswered(ctx)
	case <-x.eng.background.Done():
		return nil, errStopping()
	}
}

// answered hands an answer to who waits for it; an empty one says that the
// errand came back.
func (x *errands) answered(id string, r reply) {
	x.mu.Lock()
	ch := x.pending[id]
	x.mu.Unlock()
	if ch != nil {
		select {
		case ch <- r:
		default:
		}
	}
}

// onMail takes in what other orchestrators send to this one, or to its shards.
func (e *Engine) onMail(dl broker.Delivery) {
	m, err := protocol.DecodeMail(&dl.Message)
	if err != nil {
		e.metrics.poison.Inc()
		e.log.Warn("message of another orchestrator refused", "error", err)
		return
	}
	switch m.Kind {
	case protocol.KindErrand:
		var o order
		if err := json.Unmarshal(m.Body, &o); err != nil {
			e.log.Warn("call of another orchestrator refused", "from", m.From, "error", err)
			return
		}
		e.errands.received(m, &o)
	case protocol.KindErrandReply:
		var r reply
		if err := json.Unmarshal(m.Body, &r); err != nil {
			r.Error = refusalOf(err)
		}
		e.errands.answered(m.ID, r)
	case protocol.KindLetters:
		e.lettersCame(m.Body)
	}
}

// received carries out another orchestrator's errand, beside others.
func (x *errands) received(m protocol.Mail, o *order) {
	answer := func(r reply) {
		body, err := json.Marshal(r)
		if err != nil {
			x.eng.log.Error("an answer to another orchestrator cannot be written", "to", m.From, "error", err)
			return
		}
		_ = x.eng.conn.Publish(x.eng.background, protocol.EncodeErrandReply(protocol.ShardsExchange(x.eng.cfg.Namespace), m.From, x.eng.id, m.ID, body))
	}
	select {
	case x.slots <- struct{}{}:
	default:
		answer(reply{Error: refusalOf(overloaded("errands", "the orchestrator that owns the run has too much to do"))})
		return
	}
	x.eng.tasks.Go(func() {
		defer func() { <-x.slots }()
		ctx, cancel := context.WithTimeout(x.eng.requests, errandPatience)
		defer cancel()
		answer(x.carryOut(ctx, o))
	})
}

// carryOut calls the method that an errand names.
func (x *errands) carryOut(ctx context.Context, o *order) reply {
	if o.Method != errandStats && !x.eng.owns(o.ID) {
		return reply{Error: &refusal{Code: nobody, Message: "not the owner"}}
	}
	result, err := x.call(ctx, o)
	if err != nil {
		return reply{Error: refusalOf(err)}
	}
	body, err := json.Marshal(result)
	if err != nil {
		return reply{Error: refusalOf(err)}
	}
	return reply{Result: body}
}

func (x *errands) call(ctx context.Context, o *order) (any, error) {
	e := x.eng
	switch o.Method {
	case errandStart:
		return with(o, func(a startArgs) (any, error) { return e.startHere(ctx, a) })
	case errandCancel:
		return with(o, func(a rest.Cancel) (any, error) { return e.Cancel(ctx, o.ID, a) })
	case errandSignal:
		return with(o, func(a rest.Signal) (any, error) { return e.Signal(ctx, o.ID, o.Name, a) })
	case errandRetry:
		return with(o, func(a rest.Settle) (any, error) { return e.Retry(ctx, o.ID, a) })
	case errandSkip:
		return with(o, func(a rest.Settle) (any, error) { return e.Skip(ctx, o.ID, a) })
	case errandResolve:
		return with(o, func(a rest.Settle) (any, error) { return e.Resolve(ctx, o.ID, a) })
	case errandDecision:
		return e.Decision(ctx, o.ID)
	case errandWait:
		return with(o, func(timeout time.Duration) (any, error) { return e.waitHere(ctx, o.ID, timeout) })
	case errandRun:
		return e.Run(ctx, o.ID)
	case errandStats:
		return e.statsHere(), nil
	}
	return nil, fmt.Errorf("there is no method %q", o.Method)
}

// with decodes an errand's arguments.
func with[T any](o *order, f func(T) (any, error)) (any, error) {
	var args T
	if err := json.Unmarshal(o.Args, &args); err != nil {
		return nil, fmt.Errorf("arguments of %s: %w", o.Method, err)
	}
	return f(args)
}
