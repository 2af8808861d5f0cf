package rabbit

import (
	"bufio"
	"net"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

const (
	// writeBuffer is how much may wait to be written before Write blocks.
	writeBuffer = 1 << 20
	// keepBuffer is the largest buffer that is kept for reuse.
	keepBuffer = 256 << 10
	// readBuffer is read from the socket at once; the library asks for 4 KiB.
	readBuffer = 64 << 10
	// lingerTime bounds how long Close waits for what is still to be written.
	lingerTime = time.Second
)

// wire is a net.Conn that merges writes. Write only appends to a buffer; one
// goroutine writes whatever has gathered since its last write, so that many
// small messages cost one system call under load and none of them waits for
// another when there is none. Every write to the socket has a deadline: a
// broker that stops reading counts as lost after it.
type wire struct {
	net.Conn
	in *bufio.Reader // reads come from one goroutine

	mu      sync.Mutex
	work    sync.Cond // there is something to write, or the end
	room    sync.Cond // the buffer was taken, or the end
	buf     []byte
	idle    bool // the writer waits for work
	closing bool
	err     error // why nothing is written any more

	done chan struct{} // closed when the writer has ended
}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c, in: bufio.NewReaderSize(c, readBuffer), done: make(chan struct{})}
	w.work.L, w.room.L = &w.mu, &w.mu
	go w.run()
	return w
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) { return w.in.Read(p) }

// Write implements net.Conn. It blocks only while more than writeBuffer waits.
// An error is that of an earlier write.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.buf) >= writeBuffer && w.err == nil && !w.closing {
		w.room.Wait()
	}
	if w.err != nil {
		return 0, w.err
	}
	if w.closing {
		return 0, net.ErrClosed
	}
	w.buf = append(w.buf, p...)
	if w.idle {
		w.work.Signal()
	}
	return len(p), nil
}

func (w *wire) run() {
	defer close(w.done)
	var out []byte
	for {
		w.mu.Lock()
		for len(w.buf) == 0 && !w.closing {
			w.idle = true
			w.work.Wait()
		}
		w.idle = false
		if len(w.buf) == 0 {
			w.mu.Unlock()
			return
		}
		limit := broker.WriteDeadline
		if w.closing {
			limit = lingerTime
		}
		out, w.buf = w.buf, out[:0]
		w.room.Broadcast()
		w.mu.Unlock()

		err := w.Conn.SetWriteDeadline(time.Now().Add(limit))
		if err == nil {
			_, err = w.Conn.Write(out)
		}
		if err != nil {
			w.fail(err)
			return
		}
		if cap(out) > keepBuffer {
			out = nil
		}
	}
}

// fail ends the connection after a failed write: the reader notices, and with
// it the library.
func (w *wire) fail(err error) {
	w.mu.Lock()
	w.err = err
	w.closing = true
	w.buf = nil
	w.work.Signal()
	w.room.Broadcast()
	w.mu.Unlock()
	_ = w.Conn.Close()
}

// SetDeadline implements net.Conn. The deadline of writes is the writer's own.
func (w *wire) SetDeadline(t time.Time) error { return w.Conn.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn; see SetDeadline.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// Close writes what is left, for at most lingerTime, and closes the socket.
func (w *wire) Close() error {
	w.mu.Lock()
	first := !w.closing
	w.closing = true
	w.work.Signal()
	w.room.Broadcast()
	w.mu.Unlock()
	if first {
		// A write that hangs already has the longer limit.
		_ = w.Conn.SetWriteDeadline(time.Now().Add(lingerTime))
	}
	<-w.done
	return w.Conn.Close()
}

// abort closes the socket at once.
func (w *wire) abort() { w.fail(net.ErrClosed) }
