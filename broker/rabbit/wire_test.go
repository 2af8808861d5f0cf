package rabbit

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// slowConn is a net.Conn whose writes wait for leave.
type slowConn struct {
	net.Conn
	leave  chan struct{}
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	writes [][]byte
	fail   error
}

func newSlowConn() *slowConn {
	return &slowConn{leave: make(chan struct{}), closed: make(chan struct{})}
}

func (c *slowConn) Write(p []byte) (int, error) {
	select {
	case <-c.leave:
	case <-c.closed:
		return 0, net.ErrClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return 0, c.fail
	}
	c.writes = append(c.writes, slices.Clone(p))
	return len(p), nil
}

func (c *slowConn) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }
func (c *slowConn) SetWriteDeadline(time.Time) error { return nil }

func (c *slowConn) written() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.writes)
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatalf("writing %q: %v", s, err)
	}
}

func TestWritesThatGatherGoOutTogetherAndInOrder(t *testing.T) {
	c := newSlowConn()
	w := newWire(c)
	write(t, w, "first")
	// The writer now waits in the socket's Write, or will find more than one.
	var want bytes.Buffer
	want.WriteString("first")
	for i := range 1000 {
		s := string(rune('a' + i%26))
		want.WriteString(s)
		write(t, w, s)
	}
	close(c.leave)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got := c.written()
	if !bytes.Equal(bytes.Join(got, nil), want.Bytes()) {
		t.Error("the bytes changed on the way")
	}
	if len(got) > 2 {
		t.Errorf("1,001 writes took %d system calls", len(got))
	}
}

func TestAFullBufferHoldsTheWriterUp(t *testing.T) {
	c := newSlowConn()
	w := newWire(c)
	big := string(make([]byte, writeBuffer))
	write(t, w, big)
	done := make(chan struct{})
	go func() {
		defer close(done)
		write(t, w, big)
		write(t, w, "the end")
		write(t, w, big)
	}()
	c.leave <- struct{}{}
	c.leave <- struct{}{}
	close(c.leave)
	<-done
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range c.written() {
		n += len(p)
		if len(p) > 2*writeBuffer {
			t.Errorf("%d bytes had gathered", len(p))
		}
	}
	if want := 3*writeBuffer + len("the end"); n != want {
		t.Errorf("%d bytes went out, want %d", n, want)
	}
}

func TestAFailedWriteEndsTheConnection(t *testing.T) {
	boom := errors.New("boom")
	c := newSlowConn()
	c.fail = boom
	w := newWire(c)
	write(t, w, "lost")
	close(c.leave)
	<-c.closed
	if _, err := w.Write([]byte("more")); !errors.Is(err, boom) {
		t.Errorf("writing after a failed write: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAbortDoesNotWait(t *testing.T) {
	c := newSlowConn()
	w := newWire(c)
	write(t, w, "never goes out")
	w.abort()
	<-w.done
	if len(c.written()) != 0 {
		t.Error("the aborted connection wrote")
	}
}
