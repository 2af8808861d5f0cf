package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Worker performs tasks of one service. Make one with [New], register handlers
// with [Handle], then call [Worker.Run] once.
type Worker struct {
	cfg      Config
	id       string
	log      *slog.Logger
	metrics  *metrics
	handlers map[string]*handler
	faults   []error
	ran      atomic.Bool

	background []func(context.Context)

	conn broker.Conn
	base context.Context // parent of the handlers' contexts; ends with none of them

	mu    sync.Mutex
	board board
	queue string // "" until it is declared
	types []string
	beats uint64
	// sharers is among how many orchestrators the last heartbeat divided the
	// worker's room.
	sharers int
	idle    int       // executors that wait
	work    sync.Cond // executors wait here for tasks and for room

	executors sync.WaitGroup
	post      chan struct{} // there may be something in the outbox
	news      chan struct{} // a heartbeat is due at once
	quiet     chan struct{} // the last held result became durable
	drain     chan struct{} // an orchestrator asked for it

	strangers strangers
	questions questions
	connected chan struct{} // closed once conn may be used
	left      chan struct{} // closed when Run has ended
}

// New checks the configuration; its error names every field at fault and the
// rule. Nothing is connected yet.
func New(cfg Config) (*Worker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("worker: configuration: %w", err)
	}
	w := &Worker{
		cfg: cfg, id: cfg.Name + "-" + randomHex(4), metrics: newMetrics(), handlers: map[string]*handler{},
		post: make(chan struct{}, 1), news: make(chan struct{}, 1), quiet: make(chan struct{}, 1), drain: make(chan struct{}, 1),
		connected: make(chan struct{}), left: make(chan struct{}),
	}
	w.strangers.known = map[string]*stranger{}
	w.log = cfg.Logger.With(slog.String("worker", w.id))
	w.board = newBoard(w.id, &cfg)
	w.work.L = &w.mu
	w.metrics.watch(w)
	return w, nil
}

// ID is the worker's identity: its name and random characters. It outlives
// reconnects, not restarts.
func (w *Worker) ID() string { return w.id }

// Name is the name that the worker has on the ring.
func (w *Worker) Name() string { return w.cfg.Name }

// Run connects, registers the workflows and performs tasks until ctx ends or
// an orchestrator asks the worker to drain. Then it starts no more tasks, lets
// running handlers end, waits until their results are known to be durable (both
// in bounded time), and leaves. It returns nil after that (also if ctx ended
// before it had begun), an error that wraps [ErrUnclean] if it had to leave
// something behind, and other errors if it could not start. Handlers get ctx's values but not its end.
func (w *Worker) Run(ctx context.Context) error {
	if w.ran.Swap(true) {
		return ErrRan
	}
	defer close(w.left)
	if w.cfg.Service == "" {
		w.faults = append(w.faults, errors.New("configuration: Service: is required"))
	}
	if len(w.handlers) == 0 {
		w.faults = append(w.faults, errors.New("no handlers are registered"))
	}
	if len(w.handlers) > protocol.MaxTaskTypes {
		w.faults = append(w.faults, fmt.Errorf("more than %d handlers", protocol.MaxTaskTypes))
	}
	if err := errors.Join(w.faults...); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	w.types = w.TaskTypes()
	if r := w.cfg.Registerer; r != nil {
		r = prometheus.WrapRegistererWith(prometheus.Labels{"service": w.cfg.Service, "worker": w.cfg.Name}, r)
		if err := r.Register(w.metrics); err != nil {
			return fmt.Errorf("worker: registering metrics: %w", err)
		}
		defer r.Unregister(w.metrics)
	}
	return w.run(ctx)
}

func (w *Worker) run(ctx context.Context) error {
	conn, err := w.cfg.Broker.Open(ctx, broker.Options{
		Name: "worker " + w.id, OnReturn: w.onReturn, OnState: w.onState,
		Logger: w.cfg.Logger, Registerer: w.cfg.Registerer,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it had anything to drain
		}
		return fmt.Errorf("worker: connecting to the broker: %w", err)
	}
	// What goes on in the background outlives ctx until the worker has left.
	w.base = context.WithoutCancel(ctx)
	background, stop := context.WithCancel(w.base)
	var tasks sync.WaitGroup
	defer func() {
		stop()
		tasks.Wait()
		closing, cancel := context.WithTimeout(w.base, broker.WriteDeadline)
		defer cancel()
		if err := conn.Close(closing); err != nil {
			w.log.Warn("closing the broker connection", slog.Any("error", err))
		}
	}()
	w.conn = conn
	if err := w.subscribe(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("worker: %w", err)
	}
	close(w.connected)
	for range w.cfg.Concurrency {
		w.executors.Add(1)
		go w.execute()
	}
	tasks.Go(func() { w.sendResults(background) })
	tasks.Go(func() { w.registerWorkflows(ctx) })
	for _, fn := range w.background {
		tasks.Go(func() { fn(background) })
	}
	beating, stopBeating := context.WithCancel(background)
	defer stopBeating()
	beat := make(chan struct{})
	tasks.Go(func() { defer close(beat); w.beat(beating) })
	kick(w.news)
	w.log.Info("worker started", slog.String("service", w.cfg.Service), slog.Any("types", w.types))

	select {
	case <-ctx.Done():
	case <-w.drain:
		w.log.Info("an orchestrator asked the worker to drain")
	}
	err = w.leave()
	stopBeating()
	<-beat
	w.publishHeartbeat(background, true)
	w.log.Info("worker left", slog.Any("error", err))
	return err
}

// subscribe declares what the worker publishes to, and consumes.
func (w *Worker) subscribe(ctx context.Context) error {
	ns := w.cfg.Namespace
	announcements := broker.Exchange{Name: protocol.AnnouncementsExchange(ns), Kind: broker.Fanout}
	exchanges := []broker.Exchange{
		{Name: protocol.ResultsExchange(ns), Kind: broker.Direct},
		{Name: protocol.HeartbeatsExchange(ns), Kind: broker.Fanout},
		announcements,
	}
	shared := []string{protocol.RequestsQueue(ns), protocol.DeadLettersQueue(ns)}
	if err := w.conn.Declare(ctx, exchanges, shared); err != nil {
		return fmt.Errorf("declaring exchanges and queues: %w", err)
	}
	if _, err := w.conn.Subscribe(ctx, broker.Subscription{
		Queue: protocol.WorkerQueue(ns, w.id) + ".announcements", Kind: broker.Exclusive, NoAck: true,
		Bindings: []broker.Binding{{Exchange: announcements}}, Handler: w.onAnnouncement,
	}); err != nil {
		return fmt.Errorf("subscribing to announcements: %w", err)
	}
	// A task need not be acknowledged: heartbeats say what has arrived.
	if _, err := w.conn.Subscribe(ctx, broker.Subscription{
		Queue: protocol.WorkerQueue(ns, w.id), Kind: broker.Exclusive, NoAck: true,
		OnDeclared: w.onDeclared, Handler: w.onMessage,
	}); err != nil {
		return fmt.Errorf("subscribing to tasks: %w", err)
	}
	return nil
}

// leave drains: it returns once nothing runs and nothing is held, or the time
// for that is up.
func (w *Worker) leave() error {
	w.mu.Lock()
	dropped := w.board.drain()
	w.work.Broadcast()
	w.mu.Unlock()
	kick(w.news)
	w.log.Info("worker drains", slog.Int("dropped", dropped))

	ended := make(chan struct{})
	go func() { w.executors.Wait(); close(ended) }()
	if !within(ended, w.cfg.DrainTimeout) {
		w.mu.Lock()
		w.board.interruptAll()
		w.mu.Unlock()
		within(ended, interruptGrace)
	}
	settle := time.NewTimer(w.cfg.SettleTimeout)
	defer settle.Stop()
	for {
		w.mu.Lock()
		running, held := w.board.running, w.board.held
		w.mu.Unlock()
		if held == 0 {
			return unclean(running, 0)
		}
		select {
		case <-w.quiet:
		case <-settle.C:
			return unclean(running, held)
		}
	}
}

// interruptGrace is how long a handler may take to end after its context did.
const interruptGrace = 2 * time.Second

func unclean(running, held int) error {
	if running == 0 && held == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d handlers still running, %d results not known to be durable", ErrUnclean, running, held)
}

func within(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// registerWorkflows sends the workflows to the requests queue, each until the broker
// has it or ctx ends.
func (w *Worker) registerWorkflows(ctx context.Context) {
	for _, wf := range w.cfg.Workflows {
		if err := w.registerWorkflow(ctx, wf); err != nil {
			w.log.Warn("workflow not registered", slog.String("workflow", wf.Name()), slog.Any("error", err))
		}
	}
}

func (w *Worker) registerWorkflow(ctx context.Context, wf *definitions.Workflow) error {
	m := protocol.EncodeRequest(protocol.RequestsQueue(w.cfg.Namespace),
		&protocol.Request{Type: protocol.RequestRegister, Body: wf.JSON()})
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		return struct{}{}, w.conn.PublishConfirmed(ctx, m)
	}, backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, d time.Duration) {
		w.log.Warn("workflow not registered yet", slog.String("workflow", wf.Name()), slog.Any("error", err), slog.Duration("retry_in", d))
	}))
	return err
}
