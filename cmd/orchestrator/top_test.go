package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func TestRatesAreWhatHappenedBetweenTwoLooks(t *testing.T) {
	at := time.Now()
	look := func(after time.Duration, running, done int64) *snapshot {
		return &snapshot{At: at.Add(after), Stats: rest.Stats{Runs: map[string]map[string]int64{"sale": {"running": running, "succeeded": done}}}}
	}
	if got := ratesOf(look(0, 10, 100), look(2*time.Second, 4, 120)); got.Started != 7 || got.Ended != 10 {
		t.Errorf("%+v", got)
	}
	if got := ratesOf(look(0, 10, 100), look(time.Second, 0, 0)); got.Started != 0 || got.Ended != 0 {
		t.Errorf("runs that were removed: %+v", got)
	}
	if got := ratesOf(look(0, 1, 1), look(0, 1, 1)); got != nil {
		t.Errorf("no time between: %+v", got)
	}
}

// pictures cancels a context once so many pictures have been drawn into it.
type pictures struct {
	strings.Builder
	mu   sync.Mutex
	want int
	stop context.CancelFunc
}

func (p *pictures) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.Builder.Write(b)
	if strings.Count(p.Builder.String(), toTheTop) >= p.want {
		p.stop()
	}
	return n, err
}

// On a terminal the picture is drawn again and again in place, also while
// nobody answers, and the terminal is left as it was.
func TestTopDrawsInPlaceUntilItIsStopped(t *testing.T) {
	d := startDaemon(t, "dev", "--ephemeral", "--listen", "127.0.0.1:0")
	ctx, stop := context.WithCancel(t.Context())
	out := &pictures{want: 3, stop: stop}
	c := &cli{out: out, err: out, outTerm: true, now: time.Now, style: render.Style{Color: true}}
	root := newRoot(c)
	root.SetArgs([]string{"top", "--interval", "50ms", "--api", d.url})
	if err := root.ExecuteContext(ctx); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	last, ok := strings.CutPrefix(text[max(strings.LastIndex(text, leaveScreen), 0):], leaveScreen)
	if !strings.HasPrefix(text, enterScreen) || !ok || !strings.Contains(last, "No workflow is registered yet.") {
		t.Errorf("%q", text)
	}
	d.end(t)

	s := &snapshot{At: time.Now(), Health: rest.Health{Status: "degraded", Checks: map[string]string{"broker": "not connected"}}}
	c.paint(s, context.DeadlineExceeded)
	if text := out.String(); !strings.Contains(text, "broker: not connected") || !strings.Contains(text, "no answer since ") {
		t.Errorf("%q", text)
	}
}
