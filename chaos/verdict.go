package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringmaster-dev/ringmaster/chaos/internal/load"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/plan"
	"github.com/ringmaster-dev/ringmaster/chaos/internal/report"
	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/audit"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

const (
	lookups = 16     // side by side
	rush    = 2000.0 // starts per second, of what is left when the plan is over
)

// verdict runs the day and says what is wrong with it.
type verdict struct {
	rig    *rig
	report *report.Report
	jobs   []load.Job

	load *load.Load
	ends time.Time // of the last fault

	mu sync.Mutex
}

func (v *verdict) violate(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Violations = append(v.report.Violations, fmt.Sprintf(format, args...))
}

// day runs the load through the plan until all is over.
func (v *verdict) day(ctx context.Context, p plan.Plan) error {
	log, err := os.Create(v.rig.path("acknowledged.txt"))
	if err != nil {
		return err
	}
	defer log.Close()
	v.load = load.New(v.rig.clients, v.jobs, log)
	n := &nemesis{plan: p, victims: v.rig.victims, eyes: v.rig.eyes, load: v.load, out: v.rig.out}
	operator := load.NewOperator(v.load)

	aside, stop := context.WithCancel(ctx)
	defer stop()
	var others sync.WaitGroup
	others.Go(func() { v.rig.out.Follow(aside, v.progress) })
	others.Go(func() { operator.Run(aside) })

	v.report.Began = time.Now()
	bounded, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	over := make(chan error, 1)
	go func() { over <- v.load.Run(bounded) }()
	err = n.run(bounded)
	v.ends = time.Now()
	v.load.SetRate(rush)
	timer := time.NewTimer(v.rig.o.settle)
	defer timer.Stop()
	late := errors.New("not final in time")
	if err != nil {
		giveUp(err)
	}
	select {
	case <-timer.C:
		giveUp(late)
		if loadErr := <-over; !errors.Is(loadErr, late) {
			err = errors.Join(err, loadErr)
		}
		released, acknowledged, ended := v.load.Counts()
		v.violate("S10: %v after the last fault, %d starts of %d are not acknowledged and %d runs are not final",
			v.rig.o.settle, len(v.jobs)-acknowledged, released, acknowledged-ended)
	case loadErr := <-over:
		err = errors.Join(err, loadErr)
	}
	stop()
	others.Wait()
	v.report.Faults, v.report.Operator = n.faults, operator.Settled()
	return err
}

func (v *verdict) progress() string {
	released, acknowledged, ended := v.load.Counts()
	elapsed := time.Since(v.report.Began)
	return fmt.Sprintf("%6.1fs  %d runs: %d asked for, %d acknowledged, %d ended, %.0f/s",
		elapsed.Seconds(), len(v.jobs), released, acknowledged, ended, float64(ended)/elapsed.Seconds())
}

// examine compares what the clients were told with what the orchestrators say
// now, and that with the books.
func (v *verdict) examine(ctx context.Context) error {
	v.rig.out.Say("everything is over; looking at all runs")
	runs, err := v.list(ctx)
	if err != nil {
		return err
	}
	v.report.Violations = append(v.report.Violations, v.load.Findings()...)
	v.compare(runs)
	if err := v.lookUp(ctx, runs); err != nil {
		return err
	}
	v.measure(runs)
	v.explain(ctx, runs)
	if err := v.rig.stop(); err != nil {
		v.violate("the end: %v", err)
	}
	v.readLogs()
	return v.audit(ctx, runs)
}

func (v *verdict) any() *client.Client { return v.rig.clients[rand.IntN(len(v.rig.clients))] }

// list is every run that the orchestrators know, by id.
func (v *verdict) list(ctx context.Context) (map[string]rest.Run, error) {
	for try := 1; ; try++ {
		runs := map[string]rest.Run{}
		var failed error
		for run, err := range v.any().All(ctx, client.Filter{Limit: 1000}) {
			if failed = err; err != nil {
				break
			}
			runs[run.ID] = run
		}
		if failed == nil {
			return runs, nil
		}
		if try == 5 || ctx.Err() != nil {
			return nil, fmt.Errorf("list all runs: %w", failed)
		}
		wait(ctx, time.Second)
	}
}

// compare holds the list against what clients were told.
func (v *verdict) compare(runs map[string]rest.Run) {
	v.report.Statuses = map[string]int{}
	acks := v.load.Acks()
	v.report.Acknowledged = len(acks)
	for _, id := range slices.Sorted(maps.Keys(acks)) {
		a := acks[id]
		v.report.SlowestStart = max(v.report.SlowestStart, a.Took)
		v.report.MostTries = max(v.report.MostTries, a.Tries)
		run, ok := runs[id]
		switch {
		case !ok:
			v.violate("S10: %s was acknowledged and is not in the list", id)
		case !client.Ended(run.Status):
			v.violate("S10: %s is %s (step %s: %s)", id, run.Status, run.FailedStep, run.Error)
		case a.Status != "" && a.Status != run.Status:
			v.violate("S1: a client was told that %s is %s, and now it is %s", id, a.Status, run.Status)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(runs)) {
		run := runs[id]
		v.report.Statuses[run.Status]++
		if acks[id] != nil {
			continue
		}
		if run.Parent == "" || acks[run.Parent] == nil {
			v.violate("%s is in the list, and nobody's start was acknowledged", id)
		} else if !client.Ended(run.Status) {
			v.violate("S10: child run %s is %s", id, run.Status)
		}
	}
}

// lookUp asks for each acknowledged run at an orchestrator at random.
func (v *verdict) lookUp(ctx context.Context, runs map[string]rest.Run) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(lookups)
	for id := range v.load.Acks() {
		group.Go(func() error {
			c := v.any()
			var err error
			for range 5 {
				var run rest.RunDetail
				if run, err = c.Get(ctx, id); err == nil {
					if want := runs[id].Status; run.Status != want && client.Ended(want) {
						v.violate("S1: %s is %s in the list and %s at %s", id, want, run.Status, c.URL())
					}
					return nil
				}
				if errors.Is(err, client.ErrNotFound) {
					break
				}
				wait(ctx, 200*time.Millisecond)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			v.violate("S10: %s was acknowledged, and %s answers: %v", id, c.URL(), err)
			return nil
		})
	}
	return group.Wait()
}

func (v *verdict) measure(runs map[string]rest.Run) {
	var times []report.Run
	last := v.report.Began
	for _, run := range runs {
		t := report.Run{Began: run.Created}
		if run.Ended != nil {
			t.Ended = *run.Ended
			if run.Ended.After(last) {
				last = *run.Ended
			}
		}
		times = append(times, t)
	}
	v.report.Load = last.Sub(v.report.Began)
	v.report.Settled = max(0, last.Sub(v.ends))
	v.report.Measure(report.NewTimeline(times), last)
	for _, m := range slices.Concat(v.rig.orchestrators, v.rig.workers) {
		v.report.Exits = append(v.report.Exits, m.Exits()...)
	}
}

// explained is how many runs are told in full, of those that did not end and of
// the slowest.
const explained = 10

// explain writes the histories of runs that did not end, and of those that took
// longest, into files.
func (v *verdict) explain(ctx context.Context, runs map[string]rest.Run) {
	var open, slow []rest.Run
	for _, id := range slices.Sorted(maps.Keys(runs)) {
		if run := runs[id]; run.Ended == nil {
			open = append(open, run)
		} else {
			slow = append(slow, run)
		}
	}
	slices.SortStableFunc(slow, func(a, b rest.Run) int { return cmp.Compare(b.Ended.Sub(b.Created), a.Ended.Sub(a.Created)) })
	if len(slow) > 0 {
		v.report.SlowestRun = slow[0].Ended.Sub(slow[0].Created)
	}
	for word, some := range map[string][]rest.Run{"unfinished": open, "slow": slow} {
		for _, run := range some[:min(explained, len(some))] {
			name := v.rig.path(word + "-" + strings.ReplaceAll(run.ID, ":", "_") + ".txt")
			_ = os.WriteFile(name, []byte(v.history(ctx, run.ID)), 0o644) // it helps, and no more
		}
	}
}

// history is all about a run, for people.
func (v *verdict) history(ctx context.Context, id string) string {
	var b strings.Builder
	if run, err := v.any().Get(ctx, id); err == nil {
		fmt.Fprintf(&b, "%s of %s: %s, shard %d, waits for %v\n", id, run.Workflow, run.Status, run.Shard, run.Waiting)
	}
	events, err := v.any().History(ctx, id)
	for _, e := range events {
		fmt.Fprintf(&b, "%s %s\n", e.At.Format("15:04:05.000"), e.Text)
	}
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	return b.String()
}

// readLogs looks for what no process may say.
func (v *verdict) readLogs() {
	for _, m := range slices.Concat(v.rig.orchestrators, v.rig.workers) {
		text, err := os.ReadFile(m.Log())
		if err != nil {
			v.violate("%v", err)
			continue
		}
		for line := range strings.Lines(string(text)) {
			for _, word := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE"} {
				if strings.HasPrefix(line, word) {
					v.violate("%s: %s", m.Name, strings.TrimSpace(line))
				}
			}
		}
	}
}

// audit holds the books against the statuses (S2, S5, S15).
func (v *verdict) audit(ctx context.Context, runs map[string]rest.Run) error {
	var acknowledged []flow.Order
	statuses := map[string]string{}
	for id, a := range v.load.Acks() {
		acknowledged = append(acknowledged, a.Job.Order)
		statuses[id] = runs[id].Status
	}
	rep, err := audit.Run(ctx, v.rig.auditBooks(), acknowledged, statuses)
	if rep != nil {
		if _, err := rep.WriteTo(v.rig.out); err != nil {
			return err
		}
	}
	var failed *audit.Failed
	if errors.As(err, &failed) {
		for _, violation := range failed.Violations {
			v.violate("S2, S5, S15: %v", violation)
		}
		return nil
	}
	return err
}
