package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// redisBench is an inbox in Redis whose keys are the test's own.
type redisBench struct {
	client *redis.Client
	prefix string
	box    *inbox.Redis
	lose   atomic.Bool // answers get lost
}

func onRedis(t *testing.T, url string) *redisBench {
	t.Helper()
	b := &redisBench{client: redis.NewClient(must(redis.ParseURL(url))), prefix: fmt.Sprintf("test-%x:", rand.Uint64())}
	t.Cleanup(func() { _ = b.client.Close() })
	b.box = must(inbox.NewRedis(func(ctx context.Context, args ...any) (any, error) {
		reply, err := b.client.Do(ctx, args...).Result()
		if b.lose.Load() {
			return nil, errCut
		}
		return reply, err
	}, inbox.RedisOptions{Prefix: b.prefix + "inbox:", LookupTimeout: 200 * time.Millisecond}))
	return b
}

func (b *redisBench) key(run string, p protocol.Phase) string { return b.prefix + run + p.String() }

// apply counts up, and answers the attempt at which it did.
func (b *redisBench) apply(run string, p protocol.Phase, attempt int) inbox.Effect {
	return inbox.Effect{
		Script: `redis.call('INCR', KEYS[1]) return {attempt = tonumber(ARGV[1])}`,
		Keys:   []string{b.key(run, p)}, Args: []any{attempt},
	}
}

func (b *redisBench) effects(t *testing.T, run string, p protocol.Phase) int {
	t.Helper()
	n, err := b.client.Get(t.Context(), b.key(run, p)).Int()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	return n
}

func (b *redisBench) do(t *testing.T, run string, p protocol.Phase, generation, attempt uint32) (string, error) {
	t.Helper()
	out, err := b.box.Do(task(t.Context(), run, p, generation, attempt), b.apply(run, p, int(attempt)))
	return string(out), err
}

func TestRedisDuplicatesNullCompensationsAndGenerations(t *testing.T) {
	type step struct {
		run        string
		phase      protocol.Phase
		generation uint32
		out, code  string
	}
	b := onRedis(t, testenv.Redis(t))
	for i, s := range []step{
		{"twice", action, 1, `{"attempt":0}`, ""},
		{"twice", action, 1, `{"attempt":0}`, ""},
		{"undone", action, 1, `{"attempt":2}`, ""},
		{"undone", compensate, 1, `{"attempt":3}`, ""},
		{"undone", compensate, 1, `{"attempt":3}`, ""},
		{"undone", action, 1, `{"attempt":2}`, ""},
		{"early", compensate, 1, `null`, ""}, // S6
		{"early", compensate, 1, `null`, ""},
		{"early", action, 1, "", inbox.CodeSuspended},
		{"early", action, 2, "", inbox.CodeSuspended},
		{"tcc", protocol.PhaseAbort, 1, `null`, ""},
		{"tcc", protocol.PhasePrepare, 1, "", inbox.CodeSuspended},
		{"generations", action, 2, `{"attempt":12}`, ""},
		{"generations", action, 1, "", inbox.CodeSuperseded},
		{"generations", action, 3, "", inbox.CodeConflict},
	} {
		out, err := b.do(t, s.run, s.phase, s.generation, uint32(i))
		if out != s.out || codeOf(err) != s.code || (err == nil) != (s.code == "") {
			t.Errorf("%d %s %v: %s, %v", i, s.run, s.phase, out, err)
		}
	}
	for run, want := range map[string][2]int{"twice": {1, 0}, "undone": {1, 1}, "early": {0, 0}, "generations": {1, 0}} {
		if got := [2]int{b.effects(t, run, action), b.effects(t, run, compensate)}; got != want {
			t.Errorf("%s: %v", run, got)
		}
	}
}

func TestARejectedEffectLeavesNoKey(t *testing.T) {
	b := onRedis(t, testenv.Redis(t))
	withdraw := func(amount, attempt int) ([]byte, error) {
		return b.box.Do(task(t.Context(), "r", action, 1, uint32(attempt)), inbox.Effect{
			Script: `if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[1]) then
				return reject('no_cover', 'too little', ARGV[2] == '1')
			end
			return redis.call('DECRBY', KEYS[1], ARGV[1])`,
			Keys: []string{b.prefix + "account"}, Args: []any{amount, attempt},
		})
	}
	for attempt, retryable := range []bool{false, true} {
		_, err := withdraw(10, attempt)
		var stated *worker.Error
		if !errors.As(err, &stated) || stated.Code != "no_cover" || stated.Outcome != protocol.OutcomeFailed || stated.Retryable != retryable {
			t.Fatalf("%v", err)
		}
	}
	b.client.Set(t.Context(), b.prefix+"account", 15, 0)
	if out, err := withdraw(10, 3); err != nil || string(out) != "5" {
		t.Fatalf("%s, %v", out, err)
	}
}

// What an effect wrote before it raised an error stays: it is not run again,
// nobody takes it for done or for undone, and its compensation runs.
func TestAnEffectThatRaisesAnErrorIsUnknownForGood(t *testing.T) {
	b := onRedis(t, testenv.Redis(t))
	broken := b.apply("r", action, 1)
	broken.Script = `redis.call('INCR', KEYS[1]) redis.call('LPUSH', KEYS[1], 'x')`
	for attempt := uint32(1); attempt <= 2; attempt++ {
		_, err := b.box.Do(task(t.Context(), "r", action, 1, attempt), broken)
		var stated *worker.Error
		if !errors.As(err, &stated) || stated.Code != inbox.CodeBroken || stated.Outcome != protocol.OutcomeUnknown {
			t.Fatalf("%v", err)
		}
	}
	if _, err := b.do(t, "r", compensate, 1, 1); err != nil {
		t.Fatal(err)
	}
	if b.effects(t, "r", action) != 1 || b.effects(t, "r", compensate) != 1 {
		t.Fatal("not once each")
	}
	// A script that does not even compile has no effect.
	_, err := b.box.Do(task(t.Context(), "other", action, 1, 1), inbox.Effect{Script: `this is not Lua`})
	var stated *worker.Error
	if !errors.As(err, &stated) || stated.Outcome != protocol.OutcomeFailed || stated.Code != inbox.CodeDatabase {
		t.Fatalf("%v", err)
	}
}

func TestALostAnswerOfRedisIsUnknownUntilItIsFound(t *testing.T) {
	b := onRedis(t, testenv.Redis(t))
	b.lose.Store(true)
	_, err := b.do(t, "r", action, 1, 1)
	var stated *worker.Error
	if !errors.As(err, &stated) || stated.Outcome != protocol.OutcomeUnknown || !errors.Is(err, errCut) {
		t.Fatalf("%v", err)
	}
	b.lose.Store(false)
	if out, err := b.do(t, "r", action, 1, 2); err != nil || out != `{"attempt":1}` {
		t.Fatalf("%s, %v", out, err)
	}
	if n := b.effects(t, "r", action); n != 1 {
		t.Fatalf("%d effects", n)
	}
}

// S5, S6 on Redis: many deliveries at once in every order, while the server is
// killed and started again.
func TestS5EffectsInRedisHappenOnceThoughTheServerIsKilled(t *testing.T) {
	const runs = 150
	server, err := testenv.StartRedis(t.Context(), testenv.RedisConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	b := onRedis(t, server.URL)
	var halfway sync.Once
	half := make(chan struct{})
	var done atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, d := range deliveries(runs) {
				for attempt := uint32(1); ; attempt++ {
					_, err := b.do(t, d.run, d.phase, 1, attempt)
					if err == nil || codeOf(err) == inbox.CodeSuspended {
						break
					}
					if attempt > 1000 {
						t.Errorf("%v: %v", d, err)
						return
					}
				}
				if done.Add(1) == runs {
					halfway.Do(func() { close(half) })
				}
			}
		})
	}
	<-half
	server.Kill()
	if err := server.Start(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	for r := range runs {
		run := fmt.Sprint("run-", r)
		if a, c := b.effects(t, run, action), b.effects(t, run, compensate); a != c || a > 1 {
			t.Errorf("%s: action %d times, compensation %d times", run, a, c)
		}
	}
}

func TestBadRedisOptionsAreRefused(t *testing.T) {
	command := func(context.Context, ...any) (any, error) { return nil, nil }
	if _, err := inbox.NewRedis(nil, inbox.RedisOptions{}); err == nil {
		t.Error("no command was taken")
	}
	if _, err := inbox.NewRedis(command, inbox.RedisOptions{Keep: time.Second}); err == nil {
		t.Error("a second was taken")
	}
	box := must(inbox.NewRedis(command, inbox.RedisOptions{}))
	if _, err := box.Do(t.Context(), inbox.Effect{}); codeOf(err) != inbox.CodeNoTask {
		t.Errorf("outside of a task: %v", err)
	}
	if _, err := box.Do(task(t.Context(), "r", action, 1, 1), inbox.Effect{}); codeOf(err) != inbox.CodeCommit {
		t.Errorf("an answer that is none: %v", err)
	}
}
