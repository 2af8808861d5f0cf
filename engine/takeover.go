package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/ringmaster-dev/ringmaster/store"
)

// take makes this engine the owner of a shard: it inherits what the owner before
// knew of workers, gets a new epoch, and folds the runs that have not ended. What
// those ask of workers waits until serve.
func (e *Engine) take(ctx context.Context, id uint32) (*shard, error) {
	before, err := e.inherit(ctx, id)
	if err != nil {
		return nil, err
	}
	epoch, lastRef, err := e.cfg.Store.Acquire(ctx, id, e.id)
	if err != nil {
		return nil, fmt.Errorf("take over shard %d: %w", id, err)
	}
	s := newShard(e, id, epoch, lastRef)
	s.before = before
	e.dispatcher.own(id, epoch)
	if err := s.takeStock(ctx); err != nil {
		s.clear()
		return nil, fmt.Errorf("take over shard %d: %w", id, err)
	}
	return s, nil
}

// takeStock reads all that the shard has to do.
func (s *shard) takeStock(ctx context.Context) error {
	counts, err := s.eng.cfg.Store.Unended(ctx, s.id)
	if err != nil {
		return fmt.Errorf("count runs: %w", err)
	}
	s.census.begin(counts)
	return s.recover(ctx)
}

// launch has a shard that was taken begin to work.
func (e *Engine) launch(s *shard) {
	ctx, cancel := context.WithCancel(e.background)
	s.cancel = cancel
	e.shards.add(s)
	e.dispatcher.serve(s.id, s.before)
	e.tasks.Go(func() {
		defer close(s.ended)
		if err := s.loop(ctx); err != nil && ctx.Err() == nil {
			e.fail(fmt.Errorf("shard %d: %w", s.id, err))
		}
	})
}

// drop ends the ownership of a shard, as far as this process goes: when it
// returns, nothing of the shard is left here, and all that was decided on is
// durable or, if the shard has another owner already, void. Whoever waits for an
// answer is told to ask again.
func (e *Engine) drop(s *shard) {
	if !e.shards.remove(s) {
		<-s.gone
		return
	}
	defer close(s.gone)
	s.inbox.close()
	s.cancel()
	<-s.ended
	for _, m := range s.inbox.take(nil) {
		m.refuse(errMoved())
	}
	done := make(chan struct{})
	if e.committer.queue.put(submission{effects: effects{shard: s, number: s.number, replies: []func(error){func(error) { close(done) }}}}) {
		select {
		case <-done:
		case <-e.done: // the committer has failed, and with it the engine
		}
	}
	s.clear()
}

// clear takes out of the engine what a shard has put there.
func (s *shard) clear() {
	s.eng.dispatcher.disown(s.id)
	s.census.end()
	s.eng.resident.Add(-int64(s.residents))
	for _, q := range s.locks.queues {
		n := newLockCount(q)
		s.eng.locksHeld.Add(-n.held)
		s.eng.locksWaiting.Add(-n.waiting)
	}
}

// refuse answers a message that is not carried out.
func (m *message) refuse(why error) {
	switch {
	case m.start != nil:
		m.start.refuse(why)
	case m.decision != nil:
		m.decision.reply(0, why)
	case m.reply != nil:
		m.reply(store.Run{}, why)
	}
}

// errMoved answers who asked for something that this engine can no longer do.
func errMoved() *Error {
	return &Error{
		Kind: KindUnavailable, Code: "moved", Message: "the shard has just moved to another orchestrator; it is not known whether this was carried out",
		Hint: "repeat with the same id", RetryAfter: retrySoon,
	}
}

// inherit takes over, durably, the note of workers of a shard's owner before,
// and returns those workers, by the service they are of.
func (e *Engine) inherit(ctx context.Context, id uint32) (map[string]string, error) {
	owner, _, err := e.cfg.Store.Owner(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("who owned shard %d: %w", id, err)
	}
	if owner == "" || owner == e.id {
		return nil, nil
	}
	data, err := e.cfg.Store.Note(ctx, noteWorkers+owner)
	if err != nil {
		return nil, fmt.Errorf("read the workers that %s knew: %w", owner, err)
	}
	before := map[string]string{}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &before); err != nil {
			return nil, fmt.Errorf("read the workers that %s knew: %w", owner, err)
		}
	}
	if !e.dispatcher.inherits(before) {
		return before, nil
	}
	return before, e.note(ctx)
}

// inherits adds workers to those that may hold tasks, and tells whether that
// has changed anything.
func (d *dispatcher) inherits(workers map[string]string) (changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for worker, service := range workers {
		if d.known.now[worker] == service {
			continue
		}
		changed = true
		d.known.now[worker] = service
		if d.peers[worker] == nil {
			d.known.gone[worker] = d.eng.clock.since() // until it is heard of
		}
	}
	return changed
}

// note keeps, in the store, which workers may hold tasks.
func (e *Engine) note(ctx context.Context) error {
	d := e.dispatcher
	e.noting.Lock() // what is written last is the newest
	defer e.noting.Unlock()
	d.mu.Lock()
	now := maps.Clone(d.known.now)
	d.mu.Unlock()
	data, err := json.Marshal(now)
	if err == nil {
		err = e.cfg.Store.SetNote(ctx, noteWorkers+e.id, data)
	}
	if err != nil {
		return fmt.Errorf("note the known workers: %w", err)
	}
	d.noted(now)
	return nil
}

// forgetNotes removes the notes of orchestrators that own no shard any more and
// are not heard of. Whoever owns a shard that was theirs has inherited them.
func (e *Engine) forgetNotes(ctx context.Context) error {
	notes, err := e.cfg.Store.Notes(ctx, noteWorkers)
	if err != nil {
		return err
	}
	delete(notes, noteWorkers+e.id)
	if len(notes) == 0 {
		return nil
	}
	for id := range e.shards.count() {
		owner, _, err := e.cfg.Store.Owner(ctx, id)
		if err != nil {
			return err
		}
		delete(notes, noteWorkers+owner)
	}
	for name := range notes {
		if e.roster.lives(name[len(noteWorkers):]) {
			continue
		}
		if err := e.cfg.Store.SetNote(ctx, name, nil); err != nil {
			return err
		}
	}
	return nil
}
