package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// Locks returns a page of the named locks that are held, by name: who holds
// each, and who waits.
func (e *Engine) Locks(ctx context.Context, f rest.LockFilter) (rest.LockPage, error) {
	if err := e.serving(); err != nil {
		return rest.LockPage{}, err
	}
	if f.Name != "" {
		l, err := e.lock(ctx, f.Name)
		if err != nil || l == nil {
			return rest.LockPage{}, err
		}
		return rest.LockPage{Locks: []rest.Lock{*l}}, nil
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 50
	}
	limit = min(limit, 1000)
	var rows []store.Lock
	for shard := range e.shards.count() {
		of, err := e.cfg.Store.Locks(ctx, shard, f.Cursor, limit+1)
		if err != nil {
			return rest.LockPage{}, storeError("list locks", err)
		}
		rows = append(rows, of...)
	}
	slices.SortFunc(rows, func(a, b store.Lock) int { return strings.Compare(a.Name, b.Name) })
	var page rest.LockPage
	if len(rows) > limit {
		rows = rows[:limit]
		page.Next = rows[limit-1].Name
	}
	for _, row := range rows {
		l, err := lockOf(row)
		if err != nil {
			e.log.Error("lock is left out of a list", "lock", row.Name, "error", err)
			continue
		}
		page.Locks = append(page.Locks, l)
	}
	return page, nil
}

// lock is one lock; nil if nobody holds it, or its row cannot be read.
func (e *Engine) lock(ctx context.Context, name string) (*rest.Lock, error) {
	row, err := e.cfg.Store.Lock(ctx, e.shardOf(name), name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storeError("read lock", err)
	}
	l, err := lockOf(row)
	if err != nil {
		e.log.Error("lock cannot be shown", "lock", name, "error", err)
		return nil, nil
	}
	return &l, nil
}

func lockOf(row store.Lock) (rest.Lock, error) {
	q, err := decodeLock(row.Data)
	if err != nil {
		return rest.Lock{}, fmt.Errorf("lock %q: %w", row.Name, err)
	}
	l := rest.Lock{
		Name: row.Name, Shared: q.Holders()[0].Shared, Token: q.Holders()[0].Token, WaitingCount: len(q.Waiters()),
	}
	for _, h := range q.Holders() {
		l.Holders = append(l.Holders, rest.LockHolder{Run: h.RunID, Since: time.UnixMilli(h.Got).UTC()})
	}
	for i, w := range q.Waiters() {
		if i == rest.MaxShownWaiters {
			break
		}
		l.Waiting = append(l.Waiting, rest.LockWaiter{Run: w.RunID, Shared: w.Shared, Since: time.UnixMilli(w.Asked).UTC()})
	}
	return l, nil
}

// locksOf are the locks that a run wants.
func locksOf(r *run) (locks []rest.RunLock) {
	for _, l := range r.state.Locks() {
		locks = append(locks, rest.RunLock{Name: l.Name, Shared: l.Shared, Token: l.Token})
	}
	return locks
}

// waitsForLock says in words which lock a run waits for, and who holds it; empty
// if for none.
func (e *Engine) waitsForLock(ctx context.Context, r *run) (string, error) {
	next, ok := r.state.NextLock()
	if !ok {
		return "", nil
	}
	l, err := e.lock(ctx, next.Name)
	if err != nil {
		return "", err
	}
	text := "lock " + next.Name
	if l == nil || l.Holders[0].Run == r.row.ID {
		return text + " is being asked for", nil
	}
	text += ", which is held by run " + l.Holders[0].Run
	if n := len(l.Holders) - 1; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	text += " since " + l.Holders[0].Since.Format(time.RFC3339)
	for i, w := range l.Waiting {
		if w.Run == r.row.ID && i > 0 {
			text += fmt.Sprintf("; %d wait before it", i)
		}
	}
	return "the run waits for " + text, nil
}
