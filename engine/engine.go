package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Engine is one orchestrator. Make it with [New], then [Engine.Start] it; its
// service methods are safe for concurrent use in between.
type Engine struct {
	cfg        Config
	id         string // incarnation: new at every start
	log        *slog.Logger
	clock      clock
	metrics    *metrics
	unregister func()

	conn       broker.Conn
	consumers  []broker.Consumer
	workflows  *workflows
	shards     *shardTable
	committer  *committer
	dispatcher *dispatcher
	strangers  *strangers
	waiters    *waiters
	roster     *roster
	ownership  *ownership // where shards are shared; and so are these:
	errands    *errands
	outgoing   *mailbox[letter]

	residentPerShard atomic.Int64 // see setResidents
	resident         atomic.Int64
	unfinished       atomic.Int64
	locksHeld        atomic.Int64 // by runs, each counted
	locksWaiting     atomic.Int64
	oldestEnded      atomic.Int64 // Unix ms of the earliest end of a run; 0: none has ended
	starting         atomic.Int64
	hello            chan struct{}
	news             chan struct{}          // what an announcement says has changed
	lanes            []chan func()          // of requests that come through the broker
	letters          chan struct{}          // slots for dead letters on their way
	ownHeartbeats    atomic.Pointer[string] // the queue on which workers' heartbeats come

	background context.Context // ends with the engine; for reads that serve no caller
	end        context.CancelFunc
	requests   context.Context // ends when the engine begins to stop
	endRequest context.CancelFunc
	tasks      sync.WaitGroup // goroutines other than the committer
	commits    sync.WaitGroup
	stopLoops  context.CancelFunc
	stopOwning func()
	stopCommit context.CancelFunc
	leaving    atomic.Bool
	announced  atomic.Uint64 // number of the last announcement
	noting     sync.Mutex    // held while the note of workers is written

	startMu sync.Mutex // held while Start works, so that Stop finds all or nothing
	mu      sync.Mutex
	state   engineState
	fatal   error
	ready   chan struct{} // closed once Start has succeeded
	done    chan struct{}
	stopped chan struct{}
}

type engineState uint8

const (
	stateNew engineState = iota
	stateStarting
	stateStarted
	stateStopped
)

// New makes an engine. It fails only on a bad Config.
func New(cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("engine config: %w", err)
	}
	e := &Engine{
		cfg: cfg, id: cfg.Node + "-" + uuid.NewString()[:8], clock: newClock(), waiters: newWaiters(),
		hello: make(chan struct{}, 1), news: make(chan struct{}, 1), letters: make(chan struct{}, 16), ready: make(chan struct{}), done: make(chan struct{}), stopped: make(chan struct{}),
	}
	e.log = cfg.Logger.With("orchestrator", e.id)
	e.background, e.end = context.WithCancel(context.Background())
	e.requests, e.endRequest = context.WithCancel(e.background)
	for range requestLanes {
		e.lanes = append(e.lanes, make(chan func(), 16))
	}
	e.shards = newShardTable(cfg.Store.Shards())
	e.metrics = newMetrics(e)
	e.workflows = newWorkflows(e)
	e.dispatcher = newDispatcher(e)
	e.roster = newRoster(e)
	e.ownership = newOwnership(e)
	e.errands, e.outgoing = newErrands(e), newMailbox[letter]()
	e.strangers = newStrangers(e)
	e.committer = newCommitter(e)
	e.setResidents(0)
	return e, nil
}

// Commits is the number of transactions committed so far. It stands still while
// there is nothing to do.
func (e *Engine) Commits() uint64 { return e.committer.commits.Load() }

// ID names this incarnation of the orchestrator.
func (e *Engine) ID() string { return e.id }

// Done is closed when the engine has failed and cannot go on (a commit failed,
// or a shard was lost to another orchestrator); Err tells why. The process
// should end, and be started again.
func (e *Engine) Done() <-chan struct{} { return e.done }

// Err is the failure that closed Done, or nil.
func (e *Engine) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fatal
}

func (e *Engine) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fatal == nil {
		e.fatal = err
		e.log.Error("the engine has failed", "error", err)
		close(e.done)
	}
}

// Start takes over the shards, recovers their unfinished runs, and begins to
// serve. It returns once that is done. ctx bounds the start alone.
func (e *Engine) Start(ctx context.Context) error {
	e.mu.Lock()
	if e.state != stateNew {
		e.mu.Unlock()
		return errors.New("engine: started before")
	}
	e.state = stateStarting
	e.mu.Unlock()
	e.startMu.Lock()
	err := e.start(ctx)
	e.startMu.Unlock()
	if err != nil {
		_ = e.Stop(context.WithoutCancel(ctx))
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state == stateStarting {
		e.state = stateStarted
		close(e.ready)
	}
	return nil
}

func (e *Engine) start(ctx context.Context) error {
	unregister, err := e.metrics.register(e.cfg.Registerer)
	if err != nil {
		return err
	}
	e.unregister = unregister
	var mine []*shard
	if e.cfg.Leases == nil {
		if mine, err = e.takeAll(ctx); err != nil {
			return err
		}
	} else if err := e.ownership.open(ctx); err != nil {
		return err
	}
	conn, err := e.cfg.Broker.Open(ctx, broker.Options{
		Name: "orchestrator " + e.id, OnReturn: e.onReturn, OnState: e.onBrokerState,
		Logger: e.log, Registerer: e.cfg.Registerer,
	})
	if err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	e.conn = conn
	if err := e.declare(ctx); err != nil {
		return fmt.Errorf("declare exchanges and queues: %w", err)
	}
	e.begin()
	for _, s := range mine {
		e.launch(s)
	}
	if err := e.subscribe(ctx); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	e.sayHello()
	e.dispatcher.releaseUnknown()
	if e.cfg.RecoveryGrace == 0 {
		e.dispatcher.sweep()
	}
	if e.cfg.Leases != nil {
		if err := e.strangers.admitted(ctx); err != nil {
			return err
		}
		e.share()
	}
	return nil
}

// takeAll takes all shards, side by side: there is nobody else.
func (e *Engine) takeAll(ctx context.Context) ([]*shard, error) {
	began := time.Now()
	mine := make([]*shard, e.shards.count())
	g, taking := errgroup.WithContext(ctx)
	g.SetLimit(handovers)
	for id := range e.shards.count() {
		g.Go(func() (err error) {
			mine[id], err = e.take(taking, id)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := e.forgetNotes(ctx); err != nil {
		return nil, fmt.Errorf("remove old notes of workers: %w", err)
	}
	e.log.Info("recovered", "unfinished", e.unfinished.Load(), "took", time.Since(began).Round(time.Millisecond))
	return mine, nil
}

// share has the engine take its part of the shards, until it stops.
func (e *Engine) share() {
	ctx, cancel := context.WithCancel(e.background)
	done := make(chan struct{})
	e.stopOwning = func() { cancel(); <-done }
	go func() {
		defer close(done)
		e.ownership.run(ctx)
	}()
}

// begin starts the goroutines that are not a shard's.
func (e *Engine) begin() {
	loopCtx, stopLoops := context.WithCancel(e.background)
	commitCtx, stopCommit := context.WithCancel(e.background)
	e.stopLoops, e.stopCommit = stopLoops, stopCommit
	e.commits.Go(func() {
		if err := e.committer.run(commitCtx); err != nil {
			e.fail(err)
		}
	})
	e.commits.Go(e.committer.perform)
	e.tasks.Go(func() { e.sendLoop(loopCtx) })
	e.tasks.Go(func() { e.announceLoop(loopCtx) })
	e.tasks.Go(func() { e.noteLoop(loopCtx) })
	e.tasks.Go(func() { e.mailLoop(loopCtx) })
	e.tasks.Go(func() { e.janitorLoop(loopCtx) })
	for _, lane := range e.lanes {
		e.tasks.Go(func() { e.runLane(lane) })
	}
}

// Stop ends the engine gracefully: it takes no more work, makes durable what
// it has decided, and leaves. Runs go on at the next start. ctx bounds the
// wait. It may be called more than once, also after a failure.
func (e *Engine) Stop(ctx context.Context) error {
	e.mu.Lock()
	first := e.state != stateStopped
	e.state = stateStopped
	e.mu.Unlock()
	if first {
		go func() {
			defer close(e.stopped)
			e.startMu.Lock()
			defer e.startMu.Unlock()
			e.stop(ctx)
		}()
	}
	select {
	case <-e.stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the engine: %w", context.Cause(ctx))
	}
}

func (e *Engine) stop(ctx context.Context) {
	for _, c := range e.consumers {
		if err := c.Stop(ctx); err != nil {
			e.log.Warn("subscription not stopped", "error", err)
		}
	}
	e.endRequest() // those under way go back to the queue
	if e.stopLoops != nil {
		e.leaving.Store(true)
		e.announce(ctx, protocol.Announcement{})
		if e.stopOwning != nil {
			e.stopOwning()
		}
		var dropped sync.WaitGroup
		for s := range e.shards.all() {
			dropped.Go(func() { e.drop(s) })
		}
		dropped.Wait()
		e.stopLoops()
		e.tasks.Wait()
		e.stopCommit()
		e.commits.Wait()
	}
	e.waiters.close()
	if e.unregister != nil {
		e.unregister()
	}
	if e.conn != nil {
		if err := e.conn.Close(ctx); err != nil {
			e.log.Warn("broker connection not closed", "error", err)
		}
	}
	e.end()
}

// serving tells whether the engine takes requests.
func (e *Engine) serving() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.fatal != nil:
		return &Error{Kind: KindUnavailable, Code: "failed", Message: "the orchestrator has failed and must be restarted", RetryAfter: time.Second, Err: e.fatal}
	case e.state == stateNew, e.state == stateStarting:
		return &Error{Kind: KindUnavailable, Code: "starting", Message: "the orchestrator is starting: it recovers its runs and connects to the broker", RetryAfter: time.Second}
	case e.state != stateStarted:
		return errStopping()
	}
	return nil
}

func (e *Engine) onBrokerState(s broker.State) {
	e.dispatcher.connection(s == broker.StateConnected)
	if s == broker.StateConnected {
		e.sayHello()
	}
}

// announceSoon has the announcer say what it has to say now.
func (e *Engine) announceSoon() {
	select {
	case e.news <- struct{}{}:
	default:
	}
}

// sayHello has the announcer ask all workers what they hold.
func (e *Engine) sayHello() {
	select {
	case e.hello <- struct{}{}:
	default:
	}
}

// setResidents sets how many runs each shard keeps in memory: its part of the
// limit, or, where more tasks are at workers, enough for their runs twice over,
// since those are needed again soon.
func (e *Engine) setResidents(inFlight int) {
	shards := int(e.cfg.Store.Shards())
	e.residentPerShard.Store(int64(max(1, e.cfg.Limits.MaxResidentRuns/shards, 2*inFlight/shards)))
}
