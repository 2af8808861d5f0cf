package main

import (
	"fmt"
	"io"
	"sync"
)

// statusLine is the last line of a terminal, which is written again and again.
// Other lines written through it go above. It is safe for concurrent use.
type statusLine struct {
	mu   sync.Mutex
	w    io.Writer
	last string
}

const eraseLine = "\r\x1b[K"

func (s *statusLine) show(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = text
	fmt.Fprint(s.w, eraseLine+text)
}

func (s *statusLine) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != "" {
		fmt.Fprint(s.w, eraseLine)
		s.last = ""
	}
}

// Write puts whole lines above the status line.
func (s *statusLine) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == "" {
		return s.w.Write(b)
	}
	fmt.Fprint(s.w, eraseLine)
	n, err := s.w.Write(b)
	fmt.Fprint(s.w, s.last)
	return n, err
}
