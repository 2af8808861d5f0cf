package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// The clients' patience.
const (
	starters = 64
	minPause = 50 * time.Millisecond
	maxPause = time.Second
	pollFor  = 5 * time.Second // a long poll; then another orchestrator is asked
	tick     = 20 * time.Millisecond
	maxBad   = 1000 // findings that are kept
)

// Ack is a start that was acknowledged, as its client saw it.
type Ack struct {
	Job    Job
	Asked  time.Time     // when it was first sent
	Took   time.Duration // until it was acknowledged
	Tries  int
	Status string // the final status that the client was told; empty: none yet
}

// Load starts jobs at a rate and follows them to their end. It is safe for
// concurrent use.
type Load struct {
	clients []*client.Client // of each orchestrator
	jobs    []Job
	log     io.Writer

	mu       sync.Mutex
	rate     float64 // starts per second
	released int
	acks     map[string]*Ack
	ended    int
	statuses map[string]int
	findings []string
}

// New returns a load on orchestrators; every acknowledgement becomes a line of
// the log before anything else is made of it.
func New(clients []*client.Client, jobs []Job, log io.Writer) *Load {
	return &Load{clients: clients, jobs: jobs, log: log, acks: map[string]*Ack{}, statuses: map[string]int{}}
}

// SetRate says how many jobs are started per second from now on.
func (l *Load) SetRate(perSecond float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = perSecond
}

// Remaining is how many jobs are still to be started.
func (l *Load) Remaining() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.jobs) - l.released
}

// Counts tells how far it is: jobs whose start was asked for, acknowledged
// starts, and ends that clients were told.
func (l *Load) Counts() (released, acknowledged, ended int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.released, len(l.acks), l.ended
}

// Statuses counts the ends by status.
func (l *Load) Statuses() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[string]int{}
	for s, n := range l.statuses {
		counts[s] = n
	}
	return counts
}

// Acks are all acknowledged starts by id. It is for when Run has returned.
func (l *Load) Acks() map[string]*Ack { return l.acks }

// Findings are answers that no orchestrator may give, whatever happens to it.
func (l *Load) Findings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.findings...)
}

func (l *Load) find(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.findings) < maxBad {
		l.findings = append(l.findings, fmt.Sprintf(format, args...))
	}
}

// Run starts all jobs and returns when their clients know how each has ended, or
// when ctx ends.
func (l *Load) Run(ctx context.Context) error {
	queue := make(chan Job, len(l.jobs))
	var all sync.WaitGroup
	for range starters {
		all.Go(func() {
			for j := range queue {
				if l.start(ctx, j) {
					all.Go(func() { l.watch(ctx, j) })
				}
			}
		})
	}
	err := l.release(ctx, queue)
	close(queue)
	all.Wait()
	return errors.Join(err, context.Cause(ctx))
}

// release puts jobs into the queue at the rate.
func (l *Load) release(ctx context.Context, queue chan<- Job) error {
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	due := 0.0
	for last := time.Now(); ; {
		select {
		case now := <-ticks.C:
			l.mu.Lock()
			due += l.rate * now.Sub(last).Seconds()
			last = now
			n := min(int(due), len(l.jobs)-l.released)
			next := l.jobs[l.released : l.released+n]
			l.released += n
			left := len(l.jobs) - l.released
			l.mu.Unlock()
			due -= float64(n)
			for _, j := range next {
				queue <- j
			}
			if left == 0 {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// any is an orchestrator at random.
func (l *Load) any() *client.Client { return l.clients[rand.IntN(len(l.clients))] }

// start asks one orchestrator after the other, with the same id, until one
// acknowledges.
func (l *Load) start(ctx context.Context, j Job) bool {
	input, err := json.Marshal(j.Order)
	if err != nil {
		l.find("%s: %v", j.Order.ID, err)
		return false
	}
	asked := time.Now()
	for try := 1; ; try++ {
		_, err := l.any().StartRun(ctx, rest.Start{
			Workflow: j.Workflow, ID: j.Order.ID, Input: input, Tags: map[string]string{"country": j.Order.Address.Country},
		})
		switch {
		case err == nil:
			return l.acknowledge(&Ack{Job: j, Asked: asked, Took: time.Since(asked), Tries: try})
		case ctx.Err() != nil:
			return false
		case !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, client.ErrOverloaded):
			l.find("start of %s, attempt %d, was refused: %v", j.Order.ID, try, err)
			return false
		}
		if !pause(ctx, try) {
			return false
		}
	}
}

func (l *Load) acknowledge(a *Ack) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintln(l.log, a.Job.Order.ID); err != nil {
		l.findings = append(l.findings, fmt.Sprintf("the log of acknowledgements: %v", err))
	}
	l.acks[a.Job.Order.ID] = a
	return true
}

// watch waits for the end of a run, at one orchestrator after the other, and
// cancels it on the way if it is to be cancelled.
func (l *Load) watch(ctx context.Context, j Job) {
	if j.Cancel {
		l.cancel(ctx, j)
	}
	for try := 1; ; {
		run, err := l.any().Poll(ctx, j.Order.ID, pollFor)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && client.Ended(run.Status):
			l.end(j.Order.ID, run.Status)
			return
		case err == nil && run.Status != "stalled":
			try = 1
			continue
		case err != nil && !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, client.ErrOverloaded):
			l.find("%s was acknowledged, and waiting for it is refused: %v", j.Order.ID, err)
		}
		if !pause(ctx, try) {
			return
		}
		try++
	}
}

func (l *Load) end(id, status string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended++
	l.statuses[status]++
	l.acks[id].Status = status
}

// cancel asks for a cancel until it is answered; that it comes too late is an
// answer.
func (l *Load) cancel(ctx context.Context, j Job) {
	if !sleep(ctx, j.Delay) {
		return
	}
	for try := 1; ; try++ {
		_, err := l.any().Cancel(ctx, j.Order.ID, rest.Cancel{Reason: "changed my mind", By: "chaos"})
		switch {
		case err == nil, errors.Is(err, client.ErrConflict), ctx.Err() != nil:
			return
		case !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, client.ErrOverloaded):
			l.find("%s was acknowledged, and cancelling it is refused: %v", j.Order.ID, err)
			return
		}
		if !pause(ctx, try) {
			return
		}
	}
}

// pause waits longer each time.
func pause(ctx context.Context, try int) bool {
	d := min(minPause<<min(try-1, 10), maxPause)
	return sleep(ctx, d/2+time.Duration(rand.Int64N(int64(d))))
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
