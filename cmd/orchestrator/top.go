package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// snapshot is the running system at one moment; top -o json prints it.
type snapshot struct {
	At      time.Time     `json:"at"`
	Health  rest.Health   `json:"health"`
	Stats   rest.Stats    `json:"stats"`
	Rates   *rates        `json:"rates,omitempty"`
	Workers []rest.Worker `json:"workers"`
	Stalled []rest.Run    `json:"stalled"` // the newest of them
}

// rates are what happened between two snapshots.
type rates struct {
	Seconds float64 `json:"seconds"` // between the two
	Started float64 `json:"started_per_second"`
	Ended   float64 `json:"ended_per_second"`
}

// maxStalledShown bounds the list of stalled runs.
const maxStalledShown = 10

// minTopInterval keeps the view from becoming a load.
const minTopInterval = 50 * time.Millisecond

func newTop(c *cli) *cobra.Command {
	var (
		once     bool
		interval time.Duration
	)
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the running system: runs, rates, services, workers, stalled runs",
		Long: `Shows the running system, and on a terminal goes on showing it until Ctrl-C: runs
by status, how many start and end in a second, every service with its workers and
how busy they are, tasks that wait, and the runs that need you.

With --once, with -o json, or where the output is not a terminal, it shows what it
sees once, after one interval, over which the rates are.`,
		Example: "  orchestrator top\n  orchestrator top --interval 5s\n  orchestrator top -o json | jq .rates",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < minTopInterval {
				return usage("--interval %s: expected at least %s", interval, minTopInterval)
			}
			cl, err := c.connect()
			if err != nil {
				return err
			}
			if once || !c.outTerm || c.format == "json" {
				return c.topOnce(cmd.Context(), cl, interval)
			}
			return c.topLive(cmd.Context(), cl, interval)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "show it once")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "how often to look, and over which time rates are")
	c.utcFlag(cmd)
	c.outputFlag(cmd)
	return cmd
}

// look takes a snapshot, with rates since the one before if there was one.
func (c *cli) look(ctx context.Context, cl *client.Client, before *snapshot) (*snapshot, error) {
	s := &snapshot{}
	var err error
	if s.Health, err = cl.Health(ctx); err != nil {
		return nil, err
	}
	if s.Stats, err = cl.Stats(ctx); err != nil {
		return nil, err
	}
	s.At = c.now()
	if s.Workers, err = cl.Workers(ctx); err != nil {
		return nil, err
	}
	page, err := cl.List(ctx, client.Filter{Statuses: []string{"stalled"}, Limit: maxStalledShown})
	if err != nil {
		return nil, err
	}
	s.Stalled = page.Runs
	if before != nil {
		s.Rates = ratesOf(before, s)
	}
	return s, nil
}

func ratesOf(a, b *snapshot) *rates {
	seconds := b.At.Sub(a.At).Seconds()
	if seconds <= 0 {
		return nil
	}
	startedA, endedA := runTotals(a.Stats)
	startedB, endedB := runTotals(b.Stats)
	per := func(from, to int64) float64 { return max(0, float64(to-from)) / seconds }
	return &rates{Seconds: seconds, Started: per(startedA, startedB), Ended: per(endedA, endedB)}
}

// runTotals are how many runs there are, and how many of them have ended.
func runTotals(s rest.Stats) (all, ended int64) {
	for _, counts := range s.Runs {
		for status, n := range counts {
			all += n
			if client.Ended(status) {
				ended += n
			}
		}
	}
	return all, ended
}

func (c *cli) topOnce(ctx context.Context, cl *client.Client, interval time.Duration) error {
	first, err := c.look(ctx, cl, nil)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(interval):
	}
	s, err := c.look(ctx, cl, first)
	if err != nil {
		return err
	}
	return c.print(s, func() error { c.drawTop(c.out, s); return nil })
}

// What a terminal is told: another screen without a cursor and without folding
// of long lines, and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	toTheTop    = "\x1b[H"
	eraseToEnd  = "\x1b[K"
	eraseBelow  = "\x1b[J"
)

// topLive draws until ctx ends, and leaves the last picture behind.
func (c *cli) topLive(ctx context.Context, cl *client.Client, interval time.Duration) error {
	last, err := c.look(ctx, cl, nil)
	if err != nil {
		return err
	}
	fmt.Fprint(c.out, enterScreen)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for err = nil; ctx.Err() == nil; {
		c.paint(last, err)
		select {
		case <-ctx.Done():
		case <-tick.C:
			var s *snapshot
			if s, err = c.look(ctx, cl, last); err == nil {
				last = s
			}
		}
	}
	fmt.Fprint(c.out, leaveScreen)
	c.drawTop(c.out, last)
	return nil
}

// paint draws a picture over the one before, and what is wrong below it.
func (c *cli) paint(s *snapshot, err error) {
	var b strings.Builder
	c.drawTop(&b, s)
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	last := c.style.Faint("Ctrl-C ends this")
	if err != nil {
		last = c.style.Bad("no answer since "+c.clock(s.At, "15:04:05")+": ") + render.Clean(err.Error())
	}
	if height := c.height(); height > 2 && len(lines) > height-2 {
		lines = lines[:height-2]
	}
	lines = append(lines, "", last)
	fmt.Fprint(c.out, toTheTop+strings.Join(lines, eraseToEnd+"\r\n")+eraseToEnd+eraseBelow)
}

// height is that of the terminal; 0 if it is not known.
func (c *cli) height() int {
	if f, ok := c.out.(*os.File); ok {
		if _, height, err := term.GetSize(int(f.Fd())); err == nil {
			return height
		}
	}
	return 0
}

// drawTop writes a snapshot for people.
func (c *cli) drawTop(w io.Writer, s *snapshot) {
	health := c.style.State(s.Health.Status, s.Health.Status)
	if s.Health.Status != "ok" {
		health = c.style.Bad(s.Health.Status)
	}
	fmt.Fprintf(w, "%s at %s  %s  %s\n", c.style.Bold("Ringmaster"), c.api(), health, c.clock(s.At, "2006-01-02 15:04:05 MST"))
	for _, part := range slices.Sorted(maps.Keys(s.Health.Checks)) {
		if state := s.Health.Checks[part]; state != "ok" {
			fmt.Fprintf(w, "%s\n", c.style.Bad(part+": "+render.Clean(state)))
		}
	}
	c.drawTotals(w, s)
	c.drawWorkflows(w, s.Stats)
	c.drawServices(w, s)
	c.drawStalled(w, s)
}

// runStatuses are the statuses in the order in which they are shown.
var runStatuses = []string{"running", "compensating", "stalled", "succeeded", "compensated", "committed", "aborted"}

func (c *cli) drawTotals(w io.Writer, s *snapshot) {
	var words []string
	for _, status := range runStatuses {
		var n int64
		for _, counts := range s.Stats.Runs {
			n += counts[status]
		}
		if text := fmt.Sprintf("%d %s", n, status); n > 0 {
			words = append(words, c.style.State(status, text))
		} else if !client.Ended(status) {
			words = append(words, c.style.Faint(text))
		}
	}
	waiting := 0
	for _, q := range s.Stats.Waiting {
		waiting += q.Waiting
	}
	pairs := []string{
		"runs", strings.Join(words, "  "),
		"tasks", fmt.Sprintf("%d in flight  %d waiting  %s in memory", s.Stats.InFlight, waiting, render.Count(s.Stats.Resident, "run", "runs")),
	}
	if s.Rates != nil {
		pairs = append(pairs, "rates", fmt.Sprintf("%.1f started/s  %.1f ended/s", s.Rates.Started, s.Rates.Ended))
	}
	c.pairs(w, pairs...)
}

func (c *cli) drawWorkflows(w io.Writer, s rest.Stats) {
	if len(s.Runs) == 0 {
		fmt.Fprint(w, "\nNo workflow is registered yet.\n")
		return
	}
	header := []any{"workflow"}
	for _, status := range runStatuses {
		header = append(header, status)
	}
	t := c.tableTo(w, header...)
	for _, name := range slices.Sorted(maps.Keys(s.Runs)) {
		row := table.Row{render.Clean(name)}
		for _, status := range runStatuses {
			cell := ""
			if n := s.Runs[name][status]; n > 0 {
				cell = c.style.State(status, fmt.Sprint(n))
			}
			row = append(row, cell)
		}
		t.AppendRow(row)
	}
	fmt.Fprintln(w)
	t.Render()
}

// serviceLoad is a service with its workers taken together.
type serviceLoad struct {
	workers, ready, running, queued, capacity, waiting int
}

func servicesOf(s *snapshot) map[string]*serviceLoad {
	services := map[string]*serviceLoad{}
	of := func(name string) *serviceLoad {
		if services[name] == nil {
			services[name] = &serviceLoad{}
		}
		return services[name]
	}
	for _, worker := range s.Workers {
		l := of(worker.Service)
		l.workers++
		if worker.State == "ready" {
			l.ready++
			l.capacity += worker.Capacity
		}
		l.running += worker.Running
		l.queued += worker.Queued
	}
	for _, q := range s.Stats.Waiting {
		if q.Waiting > 0 {
			of(q.Service).waiting += q.Waiting
		}
	}
	return services
}

func (c *cli) drawServices(w io.Writer, s *snapshot) {
	services := servicesOf(s)
	if len(services) == 0 {
		fmt.Fprint(w, "\nNo worker is known, and no task waits for one.\n")
		return
	}
	t := c.tableTo(w, "service", "workers", "ready", "running", "queued", "capacity", "load", "waiting")
	for _, name := range slices.Sorted(maps.Keys(services)) {
		l := services[name]
		ready, waiting := fmt.Sprint(l.ready), fmt.Sprint(l.waiting)
		if l.ready < l.workers {
			ready = c.style.Warn(ready)
		}
		if l.ready == 0 && l.waiting > 0 {
			waiting = c.style.Bad(waiting + ": no worker is ready")
		}
		t.AppendRow(table.Row{render.Clean(name), l.workers, ready, l.running, l.queued, l.capacity, loadBar(l), waiting})
	}
	fmt.Fprintln(w)
	t.Render()
}

// loadBar draws how busy the workers of a service are.
func loadBar(l *serviceLoad) string {
	if l.capacity == 0 {
		return ""
	}
	const width = 10
	share := min(1, float64(l.running)/float64(l.capacity))
	full := int(share*width + 0.5)
	return strings.Repeat("█", full) + strings.Repeat("░", width-full) + fmt.Sprintf(" %3.0f%%", share*100)
}

func (c *cli) drawStalled(w io.Writer, s *snapshot) {
	if len(s.Stalled) == 0 {
		return
	}
	t := c.tableTo(w, "stalled run", "workflow", "step", "error", "started")
	for _, r := range s.Stalled {
		t.AppendRow(table.Row{
			c.style.Bad(render.Clean(r.ID)), render.Clean(r.Workflow), render.Clean(r.FailedStep),
			render.Shorten(render.Clean(r.Error), 60), render.Since(r.Created, s.At),
		})
	}
	fmt.Fprintln(w)
	t.Render()
	fmt.Fprintln(w, c.style.Faint(`They need you: "orchestrator run why ID" says what can be done.`))
}
