// Package link puts a stretch of TCP between two processes that can be cut.
//
// What is cut differs from what is closed: while a [Link] is cut, connections
// stay, new ones are accepted, and no byte gets through in either direction, not
// even the news that the other side is gone. What was sent meanwhile arrives when
// it is mended, as TCP's own repetition has it after a partition.
package link

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const dialTimeout = 5 * time.Second

// state is what a link does with bytes.
type state int

const (
	whole state = iota
	cut
	dropped
)

// Link listens at an address and carries connections on to another. It is safe
// for concurrent use.
type Link struct {
	target   string
	listener net.Listener
	routines sync.WaitGroup

	mu     sync.Mutex
	change *sync.Cond
	state  state
	closed bool
	conns  map[net.Conn]struct{} // both ends of each connection
	pairs  int
}

// Listen makes a link to target at a loopback address of its own.
func Listen(target string) (*Link, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for a link to %s: %w", target, err)
	}
	l := &Link{target: target, listener: listener, conns: map[net.Conn]struct{}{}}
	l.change = sync.NewCond(&l.mu)
	l.routines.Go(l.accept)
	return l, nil
}

// Address is where the link listens.
func (l *Link) Address() string { return l.listener.Addr().String() }

// Connections is how many there are now, whether or not anything gets through.
func (l *Link) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pairs
}

// Cut lets nothing through until Mend.
func (l *Link) Cut() { l.become(cut) }

// Drop resets all connections, and each new one until Mend.
func (l *Link) Drop() {
	l.become(dropped)
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		reset(c)
	}
}

// Mend lets everything through.
func (l *Link) Mend() { l.become(whole) }

func (l *Link) become(s state) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	l.change.Broadcast()
}

// Close ends the link with all its connections.
func (l *Link) Close() {
	_ = l.listener.Close()
	l.mu.Lock()
	l.closed = true
	for c := range l.conns {
		reset(c)
	}
	l.change.Broadcast()
	l.mu.Unlock()
	l.routines.Wait()
}

// reset closes a connection so that the other side sees an error, not an end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// passable waits while the link is cut; false says to give up.
func (l *Link) passable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.state == cut && !l.closed {
		l.change.Wait()
	}
	return l.state == whole && !l.closed
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		l.routines.Go(func() { l.carry(near) })
	}
}

// carry joins a connection to one to the target until either ends.
func (l *Link) carry(near net.Conn) {
	if !l.add(near) {
		return
	}
	defer l.remove(near)
	if !l.passable() {
		return
	}
	far, err := net.DialTimeout("tcp4", l.target, dialTimeout)
	if err != nil || !l.add(far) {
		return
	}
	defer l.remove(far)
	l.count(1)
	defer l.count(-1)
	var back sync.WaitGroup
	back.Go(func() { l.copy(near, far) })
	l.copy(far, near)
	back.Wait()
}

func (l *Link) count(delta int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pairs += delta
}

func (l *Link) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		reset(c)
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Link) remove(c net.Conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	reset(c)
}

// copy carries bytes one way while the link is whole, and passes their end on.
func (l *Link) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !l.passable() {
			reset(to)
			reset(from)
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				reset(to)
				reset(from)
				return
			}
		}
		if err != nil {
			_ = to.Close() // with everything that was written
			_ = from.Close()
			return
		}
	}
}
