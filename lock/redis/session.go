package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/internal/session"
)

// backend is one session on all nodes.
type backend struct {
	p       *Provider
	id      string
	cfg     lock.SessionConfig
	session *session.Session

	mu     sync.Mutex
	woken  map[string]chan struct{} // by name: who waits for it and may have to ask again
	held   map[string]*grant        // by name: what was granted and not given back
	fresh  []bool                   // by node: whether it has been renewed at least as lately as the session
	losses []int                    // by node: how often it has lost the session
}

// grant is a lease on the nodes.
type grant struct {
	nonce string
	token uint64
	on    []bool // by node: whether it keeps the lease for this session, under this token
}

// count counts the nodes that keep the lease, of those nodes if some are given.
func (g *grant) count(of []bool) (n int) {
	for i, on := range g.on {
		if on && (of == nil || of[i]) {
			n++
		}
	}
	return n
}

// answer is what one node has answered.
type answer[T any] struct {
	value T
	err   error
}

// onAll asks all nodes at the same time. Of several, none gets longer than leaves
// time for another attempt before the session is over, and when a majority has
// answered the rest gets little more time than that: a node that hangs must not
// slow down everything. What it does later is looked for in the renewals to come.
func onAll[T any](ctx context.Context, b *backend, f func(ctx context.Context, node int) (T, error)) []answer[T] {
	answers := make([]answer[T], len(b.p.nodes))
	if len(answers) == 1 {
		answers[0].value, answers[0].err = f(ctx, 0)
		return answers
	}
	type indexed struct {
		node int
		answer[T]
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.TTL/4)
	defer cancel()
	got := make(chan indexed, len(answers))
	for i := range answers {
		answers[i].err = errNoAnswer
		go func() {
			v, err := f(ctx, i)
			got <- indexed{i, answer[T]{v, err}}
		}()
	}
	var late <-chan time.Time
	good := 0
	for range answers {
		select {
		case a := <-got:
			answers[a.node] = a.answer
			if a.err == nil {
				good++
			}
		case <-late:
			return answers
		}
		if good == b.p.quorum() && late == nil {
			late = time.After(max(b.cfg.TTL/50, 20*time.Millisecond))
		}
	}
	return answers
}

var errNoAnswer = errors.New("a node does not answer")

// count counts the nodes that have answered 1, and joins the errors of the others.
func count(answers []answer[int]) (n int, err error) {
	var errs []error
	for _, a := range answers {
		if a.err == nil && a.value == 1 {
			n++
		}
		errs = append(errs, a.err)
	}
	return n, errors.Join(errs...)
}

// run runs a script on a node for this session.
func (b *backend) run(ctx context.Context, node int, s *redis.Script, args ...any) *redis.Cmd {
	return s.Run(ctx, b.p.nodes[node], []string{b.p.prefix}, append([]any{b.id}, args...)...)
}

// Renew implements session.Backend. The session is renewed if for each of its
// leases more than half of the nodes have renewed it and keep the lease, and lost
// if that cannot be any more. A node that alone does not know the session has lost
// its data, or was away for longer than the TTL: it gets what it is to keep again.
func (b *backend) Renew(ctx context.Context) error {
	answers := onAll(ctx, b, func(ctx context.Context, node int) (int, error) {
		return b.run(ctx, node, renewScript, b.cfg.TTL.Milliseconds()).Int()
	})
	if !b.keeps(answers) {
		return fmt.Errorf("%w: Redis does not know it", lock.ErrLost)
	}
	for i, a := range answers {
		if a.err == nil && a.value == 0 {
			answers[i].value = 1
			answers[i].err = b.join(ctx, i)
		}
	}
	return b.renewed(answers)
}

// keeps writes down which nodes do not know the session, and reports whether it
// may still live.
func (b *backend) keeps(answers []answer[int]) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	unknown := 0
	for i, a := range answers {
		if a.err != nil || a.value == 1 {
			continue
		}
		unknown++
		b.losses[i]++
		for _, g := range b.held {
			g.on[i] = false
		}
	}
	for _, g := range b.held {
		if g.count(nil) < b.p.quorum() {
			return false
		}
	}
	return len(answers)-unknown >= b.p.quorum()
}

// renewed writes down which nodes have renewed the session, and reports whether
// they are enough.
func (b *backend) renewed(answers []answer[int]) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := make([]bool, len(answers))
	for i, a := range answers {
		now[i] = a.err == nil
		b.fresh[i] = b.fresh[i] || now[i]
	}
	least, err := count(answers)
	for _, g := range b.held {
		least = min(least, g.count(now))
	}
	if least < b.p.quorum() {
		return fmt.Errorf("%d of %d nodes have renewed it: %w", least, len(answers), err)
	}
	copy(b.fresh, now)
	return nil
}

// join has a node keep the session, and those of its leases that are free there.
func (b *backend) join(ctx context.Context, node int) error {
	args := []any{b.cfg.Owner, b.cfg.TTL.Milliseconds()}
	b.mu.Lock()
	sent := map[string]*grant{}
	for name, g := range b.held {
		sent[name] = g
		args = append(args, name, g.nonce, g.token)
	}
	b.session.Doubt() // one of them may be released while the request is under way
	b.mu.Unlock()
	names, err := b.run(ctx, node, joinScript, args...).StringSlice()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range names {
		sent[name].on[node] = true
	}
	return nil
}

// taken is what a node answers to takeScript.
type taken struct {
	state string
	token uint64
	wait  time.Duration
}

func (b *backend) take(ctx context.Context, name, nonce string, wait bool) []answer[taken] {
	return onAll(ctx, b, func(ctx context.Context, node int) (taken, error) {
		v, err := b.run(ctx, node, takeScript, name, nonce, wait).Slice()
		if err != nil {
			return taken{}, err
		}
		if len(v) != 3 {
			return taken{}, fmt.Errorf("Redis answered %v", v)
		}
		state, _ := v[0].(string)
		number, _ := v[1].(string)
		millis, _ := v[2].(int64)
		token, err := strconv.ParseUint(number, 10, 64)
		return taken{state, token, time.Duration(millis) * time.Millisecond}, err
	})
}

// TryLock implements session.Backend.
func (b *backend) TryLock(ctx context.Context, name string) (uint64, error) {
	token, _, err := b.try(ctx, name, false)
	return token, err
}

// try asks for a lease once. With lock.ErrHeld comes the time after which what is
// in the way may have expired.
func (b *backend) try(ctx context.Context, name string, wait bool) (uint64, time.Duration, error) {
	g := &grant{nonce: rand.Text(), on: make([]bool, len(b.p.nodes))}
	b.mu.Lock()
	losses := slices.Clone(b.losses)
	b.mu.Unlock()
	var errs []error
	var granted, refused int
	var soonest time.Duration
	for i, a := range b.take(ctx, name, g.nonce, wait) {
		switch {
		case a.err != nil:
			errs = append(errs, a.err)
		case a.value.state == "granted":
			granted++
			g.on[i] = true
			g.token = max(g.token, a.value.token)
		case a.value.state == "lost":
			if len(b.p.nodes) == 1 {
				return 0, 0, lock.ErrLost
			}
			errs = append(errs, errors.New("a node does not know the session"))
		default: // held or waiting
			if refused++; refused == 1 || a.value.wait < soonest {
				soonest = a.value.wait
			}
		}
	}
	if len(errs) > 0 {
		b.doubt()
	}
	switch {
	case granted >= b.p.quorum():
		return g.token, 0, b.confirm(ctx, name, g, losses)
	case granted > 0:
		if err := b.Forget(ctx, name); err != nil {
			return 0, 0, err
		}
	}
	if len(b.p.nodes)-refused < b.p.quorum() || len(errs) == 0 {
		return 0, soonest, lock.ErrHeld
	}
	return 0, 0, errors.Join(errs...)
}

// confirm enters a grant in the books. Of several nodes, a majority must write the
// token back while it still grants the lease: whoever holds the lease later asks
// one of them. And a majority must have been renewed with the session, or the
// lease would end there before the session's own deadline.
func (b *backend) confirm(ctx context.Context, name string, g *grant, losses []int) error {
	var err error
	if len(b.p.nodes) > 1 {
		answers := onAll(ctx, b, func(ctx context.Context, node int) (int, error) {
			if !g.on[node] {
				return 0, nil
			}
			return b.run(ctx, node, raiseScript, name, g.nonce, g.token).Int()
		})
		_, err = count(answers)
		for i, a := range answers {
			g.on[i] = a.err == nil && a.value == 1
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range g.on {
		g.on[i] = g.on[i] && b.losses[i] == losses[i]
	}
	if n := g.count(b.fresh); n < b.p.quorum() {
		return fmt.Errorf("%d of %d nodes keep the lease: %w", n, len(g.on), errors.Join(err, errTooFew))
	}
	b.held[name] = g
	return nil
}

var errTooFew = errors.New("too few")

// Lock implements session.Backend. On one node it has a place in the line, and
// asks whenever it is woken and when the session expires that is in the way. On
// several it asks whenever the lease may be free, a random moment later, so that
// those who ask do not share out the nodes again and again.
func (b *backend) Lock(ctx context.Context, name string) (uint64, error) {
	wake := make(chan struct{}, 1)
	b.expectWake(name, wake)
	defer b.expectWake(name, nil)
	several := len(b.p.nodes) > 1
	for waits := false; ; waits = true {
		token, wait, err := b.try(ctx, name, !several)
		switch {
		case err == nil:
			return token, nil
		case !errors.Is(err, lock.ErrHeld) && !waits:
			return 0, err
		case !errors.Is(err, lock.ErrHeld):
			if err := session.Pause(ctx, err); err != nil {
				return 0, err
			}
			continue
		}
		if several {
			wait += mathrand.N(b.cfg.TTL / 10)
		}
		timer := time.NewTimer(max(wait, 10*time.Millisecond))
		select {
		case <-wake:
			timer.Stop()
			if several && !pause(ctx, mathrand.N(20*time.Millisecond)) {
				return 0, ctx.Err()
			}
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, ctx.Err()
		}
	}
}

// pause waits; false: ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// Release implements session.Backend.
func (b *backend) Release(ctx context.Context, name string, token uint64) error {
	b.mu.Lock()
	g := b.held[name]
	delete(b.held, name)
	b.mu.Unlock()
	if g == nil || g.token != token {
		return lock.ErrNotHolder
	}
	n, err := count(onAll(ctx, b, func(ctx context.Context, node int) (int, error) {
		return b.run(ctx, node, releaseScript, name, g.nonce).Int()
	}))
	switch {
	case err != nil && n >= b.p.quorum():
		b.doubt() // the others may keep it
		return nil
	case err == nil && n < b.p.quorum():
		return lock.ErrNotHolder
	}
	return err
}

// doubt has the session look for what a node may still do, or keep, for it.
func (b *backend) doubt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.session.Doubt()
}

// lose ends a lease that the one node has taken away.
func (b *backend) lose(name, token string) {
	n, err := strconv.ParseUint(token, 10, 64)
	if err != nil {
		return
	}
	b.mu.Lock()
	if g := b.held[name]; g != nil && g.token == n {
		delete(b.held, name)
	}
	b.mu.Unlock()
	b.session.LoseLease(name, n)
}

// Forget implements session.Backend.
func (b *backend) Forget(ctx context.Context, name string) error {
	b.mu.Lock()
	delete(b.held, name)
	b.mu.Unlock()
	n, err := count(onAll(ctx, b, func(ctx context.Context, node int) (int, error) {
		return b.run(ctx, node, forgetScript, name).Int()
	}))
	if n >= b.p.quorum() {
		return nil
	}
	return err
}

// Held implements session.Backend: a request that waits in the socket of a stopped
// node may be overtaken, and a node that was away has missed what it was told.
func (b *backend) Held(ctx context.Context) ([]string, error) {
	answers := onAll(ctx, b, func(ctx context.Context, node int) ([]string, error) {
		return b.p.nodes[node].HKeys(ctx, b.p.prefix+"held:"+b.id).Result()
	})
	seen := map[string]bool{}
	var names []string
	for _, a := range answers {
		for _, name := range a.value {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// End implements session.Backend.
func (b *backend) End(ctx context.Context) error {
	b.p.remove(b.id)
	n, err := count(onAll(ctx, b, func(ctx context.Context, node int) (int, error) {
		return b.run(ctx, node, endScript).Int()
	}))
	if n >= b.p.quorum() {
		return nil
	}
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

// wake has who waits for a name ask again; without a name, everybody.
func (b *backend) wake(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n, c := range b.woken {
		if n != name && name != "" {
			continue
		}
		select {
		case c <- struct{}{}:
		default: // a note lies there already
		}
	}
}
