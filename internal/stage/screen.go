package stage

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// Screen prints lines, and below them, on a terminal, one that is redrawn. It is
// safe for concurrent use.
type Screen struct {
	w        *os.File
	terminal bool

	mu   sync.Mutex
	live string // what stands on the last line now; only on a terminal
}

// NewScreen returns a screen on w.
func NewScreen(w *os.File) *Screen {
	return &Screen{w: w, terminal: term.IsTerminal(int(w.Fd()))}
}

// Say prints a line above the live one.
func (s *Screen) Say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.w, format+"\n", args...)
	fmt.Fprint(s.w, s.live)
}

// Write prints whole lines above the live one.
func (s *Screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	n, err := s.w.Write(b)
	fmt.Fprint(s.w, s.live)
	return n, err
}

func (s *Screen) clear() {
	if s.live != "" {
		fmt.Fprint(s.w, "\r\x1b[K")
	}
}

// Follow shows what line returns until ctx ends: redrawn on a terminal, else a
// line every second; and once more at the end.
func (s *Screen) Follow(ctx context.Context, line func() string) {
	interval := time.Second
	if s.terminal {
		interval = 100 * time.Millisecond
	}
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			s.mu.Lock()
			s.clear()
			s.live = ""
			s.mu.Unlock()
			s.Say("%s", line())
			return
		}
		if !s.terminal {
			s.Say("%s", line())
			continue
		}
		s.mu.Lock()
		s.clear()
		s.live = s.fit(line())
		fmt.Fprint(s.w, s.live)
		s.mu.Unlock()
	}
}

// fit cuts a line to the terminal's width: one that wraps cannot be redrawn.
func (s *Screen) fit(line string) string {
	width, _, err := term.GetSize(int(s.w.Fd()))
	if err != nil || width < 2 || len(line) < width {
		return line
	}
	return line[:width-1] // it is ASCII
}
