package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/lock"
)

// ownership keeps the leases of the shards that this engine owns, where several
// orchestrators share them.
//
// A lease says who should own a shard; that only one does is up to the epoch,
// which the store checks in every commit. So whatever goes wrong with leases
// costs time, and nothing else.
//
// Shards are spread without a leader. Each orchestrator knows from announcements
// who is there and what they own. It takes what nobody owns, up to its fair share,
// and gives away what it has above that when another has less: a shard moves only
// if somebody has come or gone.
type ownership struct {
	eng     *Engine
	session lock.Session

	mu      sync.Mutex
	held    map[uint32]*tenure
	busy    map[uint32]bool // being taken or dropped
	resting time.Time       // nothing is given away before: what others own is not known yet
	work    sync.WaitGroup
}

// tenure is a shard under its lease.
type tenure struct {
	lease lock.Lease
	shard *shard
}

const (
	// handovers is how many shards are taken, or given away, side by side.
	handovers = 4
	// leaseLooks is how often, within a lease's time, leases are looked at.
	leaseLooks = 20
)

func newOwnership(e *Engine) *ownership {
	return &ownership{eng: e, held: map[uint32]*tenure{}, busy: map[uint32]bool{}}
}

// ShardLease is the name of the lease of a shard: whoever holds it should own the
// shard.
func ShardLease(shard uint32) string { return "shard/" + strconv.FormatUint(uint64(shard), 10) }

// run keeps the engine's share of the shards until ctx ends, and then gives all
// of them back.
func (o *ownership) run(ctx context.Context) {
	tick := time.NewTicker(max(o.eng.cfg.LeaseTime/leaseLooks, 10*time.Millisecond))
	defer tick.Stop()
	housekeeping := time.Now().Add(time.Minute)
	for {
		o.look(ctx)
		if time.Now().After(housekeeping) {
			housekeeping = time.Now().Add(time.Hour)
			if err := o.eng.forgetNotes(ctx); err != nil {
				o.eng.log.Warn("old notes of workers are not removed", "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			o.leave()
			return
		}
	}
}

// open begins the first session: the start of an engine fails if it cannot.
func (o *ownership) open(ctx context.Context) error {
	s, err := o.eng.cfg.Leases.Open(ctx, lock.SessionConfig{Owner: o.eng.id, TTL: o.eng.cfg.LeaseTime, Logger: o.eng.log})
	if err != nil {
		return fmt.Errorf("open a session for leases: %w", err)
	}
	o.mu.Lock()
	o.session = s
	o.mu.Unlock()
	return nil
}

// look does what there is to do now.
func (o *ownership) look(ctx context.Context) {
	if o.session == nil {
		ctx, cancel := context.WithTimeout(ctx, o.eng.cfg.LeaseTime)
		defer cancel()
		if err := o.open(ctx); err != nil {
			o.eng.log.Warn("no session for leases", "error", err)
			return
		}
		o.eng.log.Info("session for leases is open again")
	}
	select {
	case <-o.session.Lost():
		o.lost()
		return
	default:
	}
	o.dropLost()
	if !o.eng.dispatcher.reachable(o.eng.cfg.ReconnectGrace) {
		if o.eng.roster.any() { // that may do better
			o.giveAway()
		}
		return
	}
	o.balance(ctx, o.eng.roster.view())
}

// standby tells whether this engine takes no shards now.
func (o *ownership) standby() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.session == nil || !o.eng.dispatcher.reachable(o.eng.cfg.ReconnectGrace)
}

// lost drops everything: other orchestrators may own it.
func (o *ownership) lost() {
	o.eng.log.Error("the session for leases is lost: all shards are dropped")
	o.eng.metrics.leasesLost.Inc()
	o.mu.Lock()
	for shard, t := range o.held {
		o.release(shard, t)
	}
	s := o.session
	o.session = nil
	o.mu.Unlock()
	o.work.Wait()
	ctx, cancel := context.WithTimeout(o.eng.background, time.Second)
	defer cancel()
	_ = s.Close(ctx)
}

// dropLost drops shards whose leases were taken away, or that have another owner.
func (o *ownership) dropLost() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for shard, t := range o.held {
		select {
		case <-t.lease.Lost():
		case <-t.shard.stale:
		default:
			continue
		}
		o.eng.log.Error("a shard was lost to another orchestrator", "shard", shard)
		o.eng.metrics.leasesLost.Inc()
		o.release(shard, t)
	}
}

// balance takes and gives away, up to the fair share.
func (o *ownership) balance(ctx context.Context, v view) {
	o.mu.Lock()
	defer o.mu.Unlock()
	shards := int(o.eng.shards.count())
	live := 1 + len(v.counts)
	share := (shards + live - 1) / live
	mine := len(o.held) + len(o.busy)
	if mine < share {
		o.takeFree(ctx, v, share-mine)
	}
	if len(o.busy) > 0 || time.Now().Before(o.resting) || len(v.counts) == 0 {
		return
	}
	room, least := 0, shards
	for _, n := range v.counts {
		room += max(0, share-n)
		least = min(least, n)
	}
	give := min(len(o.held)-share, room)
	if give <= 0 && len(o.held)-least >= 2 {
		give = 1
	}
	if give > 0 {
		o.give(min(give, handovers))
		// The others must be heard of again before more goes.
		o.resting = time.Now().Add(2 * o.eng.cfg.HeartbeatInterval)
	}
}

// takeFree tries to take shards that nobody says are theirs.
func (o *ownership) takeFree(ctx context.Context, v view, want int) {
	free := make([]uint32, 0, o.eng.shards.count())
	for i := range o.eng.shards.count() {
		if o.held[i] == nil && !o.busy[i] && v.claimed[i] == "" {
			free = append(free, i)
		}
	}
	rand.Shuffle(len(free), func(i, j int) { free[i], free[j] = free[j], free[i] })
	for _, shard := range free[:min(len(free), want, max(0, handovers-len(o.busy)))] {
		o.busy[shard] = true
		session := o.session
		o.work.Go(func() { o.take(ctx, session, shard) })
	}
}

// take gets a shard's lease, if that is free, and makes the shard this engine's.
func (o *ownership) take(ctx context.Context, session lock.Session, shard uint32) {
	defer func() {
		o.mu.Lock()
		delete(o.busy, shard)
		o.mu.Unlock()
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lease, err := session.TryLock(ctx, ShardLease(shard))
	if err != nil {
		if !errors.Is(err, lock.ErrHeld) && ctx.Err() == nil {
			o.eng.log.Warn("the lease of a shard cannot be had", "shard", shard, "error", err)
		}
		return
	}
	stop := context.AfterFunc(o.eng.background, cancel)
	defer stop()
	go func() {
		select {
		case <-lease.Lost():
			cancel()
		case <-ctx.Done():
		}
	}()
	s, err := o.eng.take(ctx, shard)
	if err != nil {
		if ctx.Err() == nil {
			o.eng.log.Error("a shard cannot be taken over", "shard", shard, "error", err)
		}
		o.giveBack(lease)
		return
	}
	runs := s.residents
	s.lease = lease.Lost()
	o.eng.launch(s)
	o.mu.Lock()
	o.held[shard] = &tenure{lease: lease, shard: s}
	o.mu.Unlock()
	o.eng.log.Info("shard taken over", "shard", shard, "epoch", s.epoch, "runs", runs)
	o.eng.metrics.takeovers.Inc()
	o.eng.listen(ctx, shard)
	o.eng.sayHello()
	o.eng.dispatcher.releaseUnknown()
	o.eng.ownerChanged(shard, s.epoch)
}

// giveAway gives shards back, so that others can take them.
func (o *ownership) giveAway() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.give(handovers - len(o.busy))
}

// give releases n shards, those with the fewest runs first.
func (o *ownership) give(n int) {
	held := make([]*tenure, 0, len(o.held))
	for _, t := range o.held {
		held = append(held, t)
	}
	slices.SortFunc(held, func(a, b *tenure) int { return int(a.shard.id) - int(b.shard.id) })
	for i := 0; i < n && len(held) > 0; i++ {
		t := held[len(held)-1]
		held = held[:len(held)-1]
		o.release(t.shard.id, t)
	}
}

// release drops a shard and gives its lease back, on its own goroutine. The
// caller has the mutex.
func (o *ownership) release(shard uint32, t *tenure) {
	delete(o.held, shard)
	o.busy[shard] = true
	o.work.Go(func() {
		// First, since it may have another owner: nothing may be decided any more.
		o.eng.drop(t.shard)
		if !o.eng.leaving.Load() { // then its consumers have stopped
			o.eng.unlisten(shard)
		}
		o.eng.announceSoon()
		o.giveBack(t.lease)
		o.mu.Lock()
		delete(o.busy, shard)
		o.mu.Unlock()
	})
}

func (o *ownership) giveBack(l lock.Lease) {
	ctx, cancel := context.WithTimeout(o.eng.background, o.eng.cfg.LeaseTime)
	defer cancel()
	if err := l.Release(ctx); err != nil && !errors.Is(err, lock.ErrNotHolder) && !errors.Is(err, lock.ErrLost) {
		o.eng.log.Warn("a lease was not given back; it will run out", "lease", l.Name(), "error", err)
	}
}

// leave gives everything back.
func (o *ownership) leave() {
	o.work.Wait() // what is being taken is given up
	o.mu.Lock()
	for shard, t := range o.held {
		o.release(shard, t)
	}
	o.mu.Unlock()
	o.work.Wait()
	if o.session != nil {
		ctx, cancel := context.WithTimeout(o.eng.background, o.eng.cfg.LeaseTime)
		defer cancel()
		if err := o.session.Close(ctx); err != nil {
			o.eng.log.Warn("the session for leases was not closed", "error", err)
		}
	}
}
