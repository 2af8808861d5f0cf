package link

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo is a server that sends back every line.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

type caller struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, l *Link) *caller {
	t.Helper()
	c, err := net.Dial("tcp4", l.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &caller{c, bufio.NewReader(c)}
}

func (c *caller) say(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

func (c *caller) hear(t *testing.T, want string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if got, err := c.lines.ReadString('\n'); err != nil || got != want+"\n" {
		t.Fatalf("heard %q, %v; want %q", got, err, want)
	}
}

// silent fails if anything comes in the next moment, or the end.
func (c *caller) silent(t *testing.T) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	got, err := c.lines.ReadString('\n')
	if got != "" || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("heard %q, %v through a link that is cut", got, err)
	}
}

// ends fails unless the connection ends, with an error or without.
func ends(t *testing.T, c *caller) {
	t.Helper()
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := c.lines.ReadString('\n'); err == nil {
		t.Error("a line came through")
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stayed")
	}
}

func newLink(t *testing.T, target string) *Link {
	t.Helper()
	l, err := Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestWhatIsSentWhileCutArrivesWhenMended(t *testing.T) {
	l := newLink(t, echo(t))
	c := dial(t, l)
	c.say(t, "one")
	c.hear(t, "one")
	if n := l.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	l.Cut()
	c.say(t, "two")
	c.silent(t)
	late := dial(t, l)
	late.say(t, "three")
	late.silent(t)
	l.Mend()
	c.hear(t, "two")
	late.hear(t, "three")
}

func TestADroppedLinkResetsOldConnectionsAndNewOnes(t *testing.T) {
	l := newLink(t, echo(t))
	c := dial(t, l)
	c.say(t, "one")
	c.hear(t, "one")
	l.Drop()
	ends(t, c)
	if late, err := net.Dial("tcp4", l.Address()); err == nil {
		ends(t, &caller{late, bufio.NewReader(late)})
	}
	l.Mend()
	again := dial(t, l)
	again.say(t, "two")
	again.hear(t, "two")
}

func TestAnAbsentTargetEndsTheConnection(t *testing.T) {
	gone, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	if c, err := net.Dial("tcp4", newLink(t, gone.Addr().String()).Address()); err == nil {
		ends(t, &caller{c, bufio.NewReader(c)})
	}
}

func TestCloseEndsALinkThatIsCut(t *testing.T) {
	l, err := Listen(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, l)
	c.say(t, "one")
	c.hear(t, "one")
	l.Cut()
	c.say(t, "two")
	l.Close() // waits for everything that it has started
}
