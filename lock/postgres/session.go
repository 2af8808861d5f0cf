package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/internal/session"
)

// backend is one session at the database.
type backend struct {
	p       *Provider
	id      string
	session *session.Session

	mu    sync.Mutex
	woken map[string]chan struct{} // by name: who waits for it and may have to ask again
}

// Renew implements session.Backend.
func (b *backend) Renew(ctx context.Context) error {
	return b.expect(ctx, lock.ErrLost, `SELECT {s}.lease_renew($1)`, b.id)
}

// expect runs a statement whose answer is true, or else the error is no.
func (b *backend) expect(ctx context.Context, no error, query string, args ...any) error {
	var ok bool
	if err := b.p.db.QueryRowContext(ctx, b.p.sql(query), args...).Scan(&ok); err != nil {
		return err
	}
	if !ok {
		return no
	}
	return nil
}

// TryLock implements session.Backend.
func (b *backend) TryLock(ctx context.Context, name string) (uint64, error) {
	token, _, err := b.take(ctx, name, false)
	return token, err
}

// Lock implements session.Backend: it asks whenever it is woken, and when the
// session expires that is in the way.
func (b *backend) Lock(ctx context.Context, name string) (uint64, error) {
	wake := make(chan struct{}, 1)
	b.expectWake(name, wake)
	defer b.expectWake(name, nil)
	for waits := false; ; waits = true {
		token, wait, err := b.take(ctx, name, true)
		switch {
		case err != nil && waits:
			if err := session.Pause(ctx, err); err != nil {
				return 0, err
			}
			continue
		case err != nil || wait == 0:
			return token, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, ctx.Err()
		}
		timer.Stop()
	}
}

// take asks for a lease once. A wait is returned when there is a place for the
// session among those who wait.
func (b *backend) take(ctx context.Context, name string, wait bool) (uint64, time.Duration, error) {
	var state string
	var token, millis sql.NullInt64
	err := b.p.db.QueryRowContext(ctx, b.p.sql(`SELECT state, token, millis FROM {s}.lease_take($1, $2, $3)`), b.id, name, wait).
		Scan(&state, &token, &millis)
	switch {
	case err != nil:
		return 0, 0, err
	case state == "granted":
		return uint64(token.Int64), 0, nil
	case state == "held":
		return 0, 0, lock.ErrHeld
	case state == "waiting":
		// What is in the way may have ended meanwhile, or its renewal be under way.
		return 0, max(time.Duration(millis.Int64)*time.Millisecond, 10*time.Millisecond), nil
	case state == "lost":
		return 0, 0, lock.ErrLost
	}
	return 0, 0, fmt.Errorf("the database answered %q", state)
}

// Release implements session.Backend.
func (b *backend) Release(ctx context.Context, name string, token uint64) error {
	return b.expect(ctx, lock.ErrNotHolder, `SELECT {s}.lease_release($1, $2, $3)`, b.id, name, int64(token))
}

// Forget implements session.Backend.
func (b *backend) Forget(ctx context.Context, name string) error {
	_, err := b.p.db.ExecContext(ctx, b.p.sql(`SELECT {s}.lease_forget($1, $2)`), b.id, name)
	return err
}

// Held implements session.Backend: a request that waits in the socket of a
// stopped process of the server may be overtaken.
func (b *backend) Held(ctx context.Context) (names []string, err error) {
	rows, err := b.p.db.QueryContext(ctx, b.p.sql(`SELECT name FROM {s}.leases WHERE session = $1`), b.id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // its error is that of Err
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// End implements session.Backend.
func (b *backend) End(ctx context.Context) error {
	b.p.remove(b.id)
	_, err := b.p.db.ExecContext(ctx, b.p.sql(`SELECT {s}.lease_end($1)`), b.id)
	return err
}

// expectWake sets whom to wake for a name; nil: nobody.
func (b *backend) expectWake(name string, wake chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wake == nil {
		delete(b.woken, name)
	} else {
		b.woken[name] = wake
	}
}

func (b *backend) wake(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	poke(b.woken[name])
}

func (b *backend) wakeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.woken {
		poke(c)
	}
}

// poke leaves a note unless one lies there already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
