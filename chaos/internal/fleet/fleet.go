// Package fleet keeps processes running as a supervisor does: one that ends by
// itself is started again, and that it did is written down. One that was killed
// on purpose stays down until it is started.
package fleet

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

// The pause before a process that ended by itself is started again; it doubles
// while it keeps ending within steady.
const (
	minPause = 200 * time.Millisecond
	maxPause = 2 * time.Second
	steady   = 10 * time.Second
)

// ErrNotRunning says that a process has ended by itself and is about to be started
// again.
var ErrNotRunning = errors.New("it does not run just now")

// Exit is a process that ended by itself.
type Exit struct {
	Name   string    `json:"name"`
	At     time.Time `json:"at"`
	Status string    `json:"status"`
}

// Member is a process that is kept running. It is safe for concurrent use.
type Member struct {
	Name string
	// Grace is how long it may take to end in the regular way.
	Grace time.Duration

	mu     sync.Mutex
	proc   *stage.Process
	wanted bool
	start  int // number of the start, to tell a supervisor that it is late
	exits  []Exit
	pause  time.Duration
	began  time.Time
}

// New returns a member that does not run yet.
func New(p *stage.Process, grace time.Duration) *Member {
	return &Member{Name: p.Name, Grace: grace, proc: p, pause: minPause}
}

// Start starts the process, unless it runs.
func (m *Member) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wanted && m.running() {
		return nil
	}
	m.wanted = true
	return m.launch()
}

func (m *Member) running() bool {
	if !m.proc.Started() {
		return false
	}
	select {
	case <-m.proc.Exited():
		return false
	default:
		return true
	}
}

func (m *Member) launch() error {
	m.start++
	if err := m.proc.Start(); err != nil {
		return err
	}
	m.began = time.Now()
	go m.supervise(m.start, m.proc.Exited())
	return nil
}

// supervise starts the process again if it ends while it is wanted.
func (m *Member) supervise(start int, exited <-chan struct{}) {
	<-exited
	m.mu.Lock()
	if !m.wanted || m.start != start {
		m.mu.Unlock()
		return
	}
	status := "status 0"
	if err := m.proc.Err(); err != nil {
		status = err.Error()
	}
	m.exits = append(m.exits, Exit{Name: m.Name, At: time.Now(), Status: status})
	if time.Since(m.began) > steady {
		m.pause = minPause
	}
	pause := m.pause
	m.pause = min(2*m.pause, maxPause)
	m.mu.Unlock()
	time.Sleep(pause)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wanted && m.start == start {
		_ = m.launch() // its program has gone; what waits for it will tell
	}
}

// Kill ends the process as a crash does; it stays down until Start.
func (m *Member) Kill() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = false
	if !m.running() {
		return nil
	}
	return m.proc.Kill()
}

// Pause freezes the process until Resume.
func (m *Member) Pause() error { return m.signal(syscall.SIGSTOP) }

// Resume wakes the process.
func (m *Member) Resume() error { return m.signal(syscall.SIGCONT) }

func (m *Member) signal(s os.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.running() {
		return fmt.Errorf("%s: %w", m.Name, ErrNotRunning)
	}
	return m.proc.Signal(s)
}

// Restart ends the process in the regular way and starts it again. How it ended
// is told in words where it did not end well.
func (m *Member) Restart() (how string, err error) {
	if err := m.Stop(); err != nil {
		how = err.Error()
	}
	return how, m.Start()
}

// Stop ends the process in the regular way; it stays down until Start.
func (m *Member) Stop() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = false
	if !m.running() {
		return nil
	}
	return m.proc.Stop(m.Grace)
}

// Exits are those of the process that nobody asked for.
func (m *Member) Exits() []Exit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.exits)
}

// Log is the file that the process writes to.
func (m *Member) Log() string { return m.proc.Log }

// KillAll leaves nothing running, paused or not.
func KillAll(members []*Member) error {
	var errs []error
	for _, m := range members {
		errs = append(errs, m.Kill())
	}
	return errors.Join(errs...)
}
