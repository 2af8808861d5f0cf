package main

import (
	"bufio"
	"net"
	"sync"
)

// mergedConn is a connection that merges writes: Write appends to a buffer and
// one goroutine writes whatever has gathered since its last write. Under load
// many messages share one system call. The buffer has no bound of its own; the
// window of the measurement bounds it.
type mergedConn struct {
	net.Conn
	in *bufio.Reader

	mu   sync.Mutex
	buf  []byte
	err  error
	wake chan struct{} // there is something in buf; of capacity 1
	end  chan struct{}
	once sync.Once
}

func newMergedConn(c net.Conn) *mergedConn {
	m := &mergedConn{
		Conn: c, in: bufio.NewReaderSize(c, 64<<10),
		wake: make(chan struct{}, 1), end: make(chan struct{}),
	}
	go m.run()
	return m
}

// Read implements net.Conn.
func (m *mergedConn) Read(p []byte) (int, error) { return m.in.Read(p) }

// Write implements net.Conn.
func (m *mergedConn) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	m.buf = append(m.buf, p...)
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (m *mergedConn) run() {
	var out []byte
	for {
		select {
		case <-m.wake:
		case <-m.end:
			return
		}
		m.mu.Lock()
		out, m.buf = m.buf, out[:0]
		m.mu.Unlock()
		if _, err := m.Conn.Write(out); err != nil {
			m.mu.Lock()
			m.err = err
			m.mu.Unlock()
			return
		}
	}
}

// Close implements net.Conn.
func (m *mergedConn) Close() error {
	m.once.Do(func() { close(m.end) })
	return m.Conn.Close()
}
