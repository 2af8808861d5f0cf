package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// fenced is the context of a task that bears tokens.
func fenced(ctx context.Context, run string, p protocol.Phase, tokens ...protocol.Token) context.Context {
	info := worker.TaskFrom(task(ctx, run, p, 1, 1))
	info.Tokens = tokens
	return worker.WithTask(ctx, info)
}

func on(name string, token uint64) protocol.Token { return protocol.Token{Name: name, Token: token} }

// stale tells whether an error is the final refusal of a token.
func stale(err error) bool {
	var e *worker.Error
	return errors.As(err, &e) && e.Code == inbox.CodeStaleToken && e.Outcome == protocol.OutcomeFailed && !e.Retryable
}

// A fencing token that goes backwards is refused for good, and leaves nothing.
func TestALowerTokenIsRefused(t *testing.T) {
	const big = 1_800_000_000 << 20
	steps := []struct {
		run    string
		phase  protocol.Phase
		tokens []protocol.Token
		stale  bool
	}{
		{"first", action, []protocol.Token{on("b", big), on("a", 5)}, false},
		{"same", action, []protocol.Token{on("a", 5)}, false},
		{"lower", action, []protocol.Token{on("a", 4)}, true},
		{"lower of two", action, []protocol.Token{on("a", 6), on("b", big-1)}, true},
		{"a was not raised by that", action, []protocol.Token{on("a", 5), on("b", big)}, false},
		{"higher", action, []protocol.Token{on("b", big+1)}, false},
		{"another name", action, []protocol.Token{on("A", 1), on("account/Ä ' x", 1)}, false},
		{"late undo", compensate, []protocol.Token{on("b", big)}, true},
		{"none", action, nil, false},
		// What took effect in its time is answered as ever.
		{"first", action, []protocol.Token{on("b", big), on("a", 5)}, false},
	}
	onEach(t, inbox.Options{Table: "my_inbox"}, func(t *testing.T, b bench) {
		for _, s := range steps {
			_, err := b.box.Do(fenced(t.Context(), s.run, s.phase, s.tokens...), b.apply)
			if stale(err) != s.stale || err != nil && !s.stale {
				t.Errorf("%s: %v", s.run, err)
			}
			want := 1
			if s.stale {
				want = 0
			}
			if n := b.effects(t, s.run, action) + b.effects(t, s.run, compensate); n != want {
				t.Errorf("%s: %d effects", s.run, n)
			}
		}
		// A refused one may come again with the token that its run has now.
		if _, err := b.box.Do(fenced(t.Context(), "lower", action, on("a", 7)), b.apply); err != nil {
			t.Error(err)
		}
		b.db.MustExec(`UPDATE my_inbox_tokens SET seen_at = 0`)
		if _, err := b.box.Cleanup(t.Context(), time.Hour, 0); err != nil {
			t.Fatal(err)
		}
		var left int
		if err := b.db.Get(&left, `SELECT count(*) FROM my_inbox_tokens`); err != nil || left != 0 {
			t.Errorf("%d tokens are left, %v", left, err)
		}
	})
	t.Run("Redis", func(t *testing.T) {
		b := onRedis(t, testenv.Redis(t))
		for _, s := range steps {
			_, err := b.box.Do(fenced(t.Context(), s.run, s.phase, s.tokens...), b.apply(s.run, s.phase, 1))
			// What undoes an action that never ran has nothing to do, unless it is refused.
			if stale(err) != s.stale || err != nil && !s.stale {
				t.Errorf("%s: %v", s.run, err)
			}
			want := 1
			if s.stale {
				want = 0
			}
			if n := b.effects(t, s.run, s.phase); n != want {
				t.Errorf("%s: %d effects", s.run, n)
			}
		}
	})
}

// A holder that stands still in its transaction has its effect before the next
// holder, which waits, or not at all.
func TestAHigherTokenWaitsForTheTransactionBefore(t *testing.T) {
	onEach(t, inbox.Options{RetryFor: time.Minute}, func(t *testing.T, b bench) {
		var mu sync.Mutex
		var order []string
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, what)
		}
		inside, next := make(chan struct{}), make(chan struct{})
		var both sync.WaitGroup
		both.Go(func() {
			_, err := b.box.Do(fenced(t.Context(), "paused", action, on("a", 5)), func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
				close(inside)
				<-next
				note("paused")
				return b.apply(ctx, tx)
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-inside
		both.Go(func() {
			close(next) // it can only be late, and the first is in its transaction
			_, err := b.box.Do(fenced(t.Context(), "after", action, on("a", 6)), func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
				note("after")
				return b.apply(ctx, tx)
			})
			if err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		if fmt.Sprint(order) != "[paused after]" {
			t.Errorf("the order was %v", order)
		}
	})
}

// Tasks of one run come side by side, and so do those of runs that share a lock:
// all are let in, though they may be the first with that token.
func TestTasksOfOneTokenDoNotRefuseEachOther(t *testing.T) {
	onEach(t, inbox.Options{RetryFor: time.Minute}, func(t *testing.T, b bench) {
		for round := range uint64(3) {
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					run := fmt.Sprintf("%d-%d", round, i)
					if _, err := b.box.Do(fenced(t.Context(), run, action, on("b", 5+round), on("a", 5+round)), b.apply); err != nil {
						t.Errorf("%s: %v", run, err)
					}
				})
			}
			all.Wait()
		}
	})
}
