package locktest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/lock"
)

// The variables that make a test binary a holder.
const (
	envURL      = "LOCKTEST_URL"
	envName     = "LOCKTEST_NAME"
	envResource = "LOCKTEST_RESOURCE"
)

// Main runs the tests of a package, or, when the suite has started the binary
// for that, a holder of leases.
func Main(m *testing.M, open OpenFunc) {
	if os.Getenv(envURL) == "" {
		os.Exit(m.Run())
	}
	if err := hold(context.Background(), open); err != nil {
		fmt.Fprintln(os.Stderr, "holder:", err)
		os.Exit(1)
	}
}

// hold takes the lease again and again, and tells the resource under its token
// what it does. When the resource is gone, so is the holder.
func hold(ctx context.Context, open OpenFunc) error {
	conn, err := net.Dial("tcp", os.Getenv(envResource))
	if err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	say := func(verb string, token uint64) (string, error) {
		if _, err := fmt.Fprintf(conn, "%s %d\n", verb, token); err != nil {
			return "", err
		}
		return r.ReadString('\n')
	}
	p, err := open(ctx, os.Getenv(envURL))
	if err != nil {
		return err
	}
	for {
		s, err := p.Open(ctx, lock.SessionConfig{Owner: fmt.Sprintf("holder %d", os.Getpid()), TTL: shortTTL})
		if err != nil {
			return err
		}
		err = holdUntilLost(ctx, s, say)
		_ = s.Close(ctx)
		if !errors.Is(err, lock.ErrLost) {
			return err
		}
	}
}

// holdUntilLost returns lock.ErrLost when another session is wanted.
func holdUntilLost(ctx context.Context, s lock.Session, say func(string, uint64) (string, error)) error {
	for {
		l, err := s.Lock(ctx, os.Getenv(envName))
		if err != nil {
			return err
		}
		// A stretch of work in small effects. The holder is careless: it looks
		// only now and then whether it still holds the lease.
		for i := range 20 {
			answer, err := say("effect", l.Token())
			if err != nil {
				return err
			}
			if answer != "done\n" {
				break
			}
			if i%10 != 9 {
				continue
			}
			select {
			case <-l.Lost():
				return lock.ErrLost
			default:
			}
		}
		if err := l.Release(ctx); errors.Is(err, lock.ErrNotHolder) {
			if _, err := say("noticed", l.Token()); err != nil {
				return err
			}
			return lock.ErrLost
		} else if err != nil {
			return err
		}
	}
}

// resource is what the lease protects. It refuses a token that is lower than one
// it has seen, and writes down all that it is asked.
type resource struct {
	listener net.Listener

	mu      sync.Mutex
	highest uint64
	holder  map[uint64]string // who has used a token
	effects map[string]int    // how many of each holder were accepted
	refused int
	faults  []string
	changed chan struct{} // closed, and made anew, at every effect
}

func newResource(t *testing.T) *resource {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &resource{listener: l, holder: map[uint64]string{}, effects: map[string]int{}, changed: make(chan struct{})}
	var wg sync.WaitGroup
	var conns sync.Map
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, nil)
			wg.Go(func() {
				r.serve(c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	return r
}

func (r *resource) serve(c net.Conn) {
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		var token uint64
		if _, err := fmt.Sscan(rest, &token); err != nil {
			return
		}
		answer := "refused"
		if verb == "effect" && r.effect(c.RemoteAddr().String(), token) {
			answer = "done"
		}
		if _, err := fmt.Fprintln(c, answer); err != nil {
			return
		}
	}
}

func (r *resource) effect(who string, token uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if token < r.highest {
		r.refused++
		return false
	}
	if first, ok := r.holder[token]; ok && first != who {
		r.faults = append(r.faults, fmt.Sprintf("token %d was given to %s and to %s", token, first, who))
	}
	r.holder[token] = who
	r.highest = token
	r.effects[who]++
	close(r.changed)
	r.changed = make(chan struct{})
	return true
}

// progress waits until so many tokens more have been used than now.
func (r *resource) progress(t *testing.T, more int) {
	t.Helper()
	r.mu.Lock()
	want := len(r.holder) + more
	r.mu.Unlock()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		have, changed := len(r.holder), r.changed
		r.mu.Unlock()
		if have >= want {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("the lease goes round no longer: %d of %d", have, want)
		}
	}
}

// holder is a process that holds leases.
type holder struct{ cmd *exec.Cmd }

func startHolder(t *testing.T, c Config, name string, r *resource) *holder {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envURL+"="+c.URL, envName+"="+name, envResource+"="+r.listener.Addr().String())
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &holder{cmd}
	t.Cleanup(h.kill)
	return h
}

func (h *holder) signal(s os.Signal) { _ = h.cmd.Process.Signal(s) }

func (h *holder) kill() {
	h.signal(syscall.SIGKILL)
	_ = h.cmd.Wait() // an error says that it was killed, or twice
}
