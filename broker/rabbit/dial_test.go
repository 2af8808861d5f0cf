package rabbit

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// openAt is open with the nodes in the order given.
func openAt(t *testing.T, cfg Config, o broker.Options) *conn {
	t.Helper()
	cfg = cfg.withDefaults()
	o.Name, o.Logger = "ordered", slog.New(slog.DiscardHandler)
	m, err := newMetrics(nil, o.Name)
	if err != nil {
		t.Fatal(err)
	}
	c := newConn(cfg, o, m)
	for i, u := range cfg.URLs {
		c.nodes[i].url = u
	}
	go c.supervise()
	t.Cleanup(func() {
		if err := c.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		<-c.done
	})
	await(t, c.first, "the first connection")
	return c
}

// frozen accepts connections and answers nothing.
func frozen(t *testing.T) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return "amqp://guest:guest@" + l.Addr().String() + "/"
}

func TestANodeThatDoesNotAnswerIsPassedOver(t *testing.T) {
	for name, url := range map[string]string{"refuses": closedPort(t), "is frozen": frozen(t)} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{URLs: []string{url, testenv.RabbitMQ(t).URL}, DialTimeout: time.Hour, MinBackoff: time.Hour, MaxBackoff: time.Hour}
			c := openAt(t, cfg, broker.Options{})
			if s := c.State(); s != broker.StateConnected {
				t.Errorf("the state is %d", s)
			}
			if left := time.Until(c.nodes[0].due); left < 20*time.Minute {
				t.Errorf("the node that does not answer is due again in %v", left)
			}
		})
	}
}

func TestALostNodeIsLeftForTheNextAtOnce(t *testing.T) {
	node := testenv.RabbitMQ(t)
	first := startProxy(t, closedPort(t), node.URL)
	states := make(chan broker.State, 100)
	c := openAt(t, Config{URLs: []string{first.url, node.URL}, MinBackoff: time.Hour, MaxBackoff: time.Hour},
		broker.Options{OnState: func(s broker.State) { states <- s }})
	await(t, states, "the first connection")
	if at := c.live.Load().node; at != first.addr {
		t.Fatalf("connected to %s, want %s", at, first.addr)
	}
	first.stop()
	if s := await(t, states, "the loss"); s != broker.StateDisconnected {
		t.Errorf("the state became %d", s)
	}
	if s := await(t, states, "the next connection"); s != broker.StateConnected {
		t.Errorf("the state became %d", s)
	}
	if at := c.live.Load().node; at == first.addr {
		t.Errorf("connected to %s again", at)
	}
}

func TestAConnGoesHomeWhenItsNodeIsBack(t *testing.T) {
	node := testenv.RabbitMQ(t)
	home := closedPort(t)
	queues, got := make(chan string, 10), make(chan broker.Delivery, 10)
	c := openAt(t, Config{URLs: []string{home, node.URL}, ReturnAfter: 20 * time.Millisecond}, broker.Options{})
	_, err := c.Subscribe(t.Context(), broker.Subscription{
		Queue: "q", Kind: broker.Exclusive,
		OnDeclared: func(q string) { queues <- q },
		Handler:    func(d broker.Delivery) { got <- d },
	})
	if err != nil {
		t.Fatal(err)
	}
	await(t, queues, "the first queue")
	p := startProxy(t, home, node.URL)
	m := broker.Message{Key: await(t, queues, "the queue at home"), Mandatory: true}
	for {
		err := c.PublishConfirmed(t.Context(), m)
		if err == nil {
			break
		}
		if !errors.Is(err, broker.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	await(t, got, "a delivery at home").Settle(true)
	if at := c.live.Load().node; at != p.addr {
		t.Errorf("connected to %s, want %s", at, p.addr)
	}
}

// A channel whose confirmations do not come is given up with all that waits on
// it; the next one works.
func TestAChannelThatConfirmsNothingIsReplaced(t *testing.T) {
	node := testenv.RabbitMQ(t)
	p := startProxy(t, closedPort(t), node.URL)
	c := openAt(t, Config{URLs: []string{p.url}, ConfirmTimeout: time.Second}, broker.Options{})
	m := broker.Message{Key: "nowhere"}
	if err := c.PublishConfirmed(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	p.mute.Store(true)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := c.PublishConfirmed(t.Context(), m); !errors.Is(err, broker.ErrUnconfirmed) {
				t.Errorf("without an answer: %v", err)
			}
		})
	}
	wg.Wait()
	p.mute.Store(false)
	if err := c.PublishConfirmed(t.Context(), m); err != nil {
		t.Errorf("on the next channel: %v", err)
	}
	if s := c.State(); s != broker.StateConnected {
		t.Errorf("the state is %d", s)
	}
}

func TestConnsSpreadOverTheNodes(t *testing.T) {
	cfg := Config{URLs: []string{"a", "b", "c"}}.withDefaults()
	homes := map[string]int{}
	for range 300 {
		homes[newAddresses(cfg)[0].url]++
	}
	for _, u := range cfg.URLs {
		if homes[u] < 30 {
			t.Errorf("%d of 300 begin at %s", homes[u], u)
		}
	}
}

// proxy passes connections on until it is stopped.
type proxy struct {
	url, addr string
	l         net.Listener
	conns     chan net.Conn
	mute      atomic.Bool // confirmations are lost
}

// answers passes on what the server sends.
func (p *proxy) answers(to io.Writer, from io.Reader) {
	for {
		frame := make([]byte, 7) // type, channel, size
		if _, err := io.ReadFull(from, frame); err != nil {
			return
		}
		size := int(binary.BigEndian.Uint32(frame[3:])) + 1
		frame = append(frame, make([]byte, size)...)
		if _, err := io.ReadFull(from, frame[7:]); err != nil {
			return
		}
		const basicAck = 60<<16 | 80
		if p.mute.Load() && frame[0] == 1 && binary.BigEndian.Uint32(frame[7:]) == basicAck {
			continue
		}
		if _, err := to.Write(frame); err != nil {
			return
		}
	}
}

func startProxy(t *testing.T, url, target string) *proxy {
	t.Helper()
	from, to := hostPort(t, url), hostPort(t, target)
	uri, err := amqp.ParseURI(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: from, conns: make(chan net.Conn, 1000)}
	if p.l, err = net.Listen("tcp4", from); err != nil {
		t.Fatal(err)
	}
	addr := p.l.Addr().(*net.TCPAddr)
	uri.Host, uri.Port = "127.0.0.1", addr.Port
	p.url = uri.String()
	t.Cleanup(p.stop)
	go func() {
		for {
			in, err := p.l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp4", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			p.conns <- in
			p.conns <- out
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { p.answers(in, out); _ = in.Close() }()
		}
	}()
	return p
}

func hostPort(t *testing.T, url string) string {
	t.Helper()
	uri, err := amqp.ParseURI(url)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))
}

// stop closes it and what goes through it.
func (p *proxy) stop() {
	_ = p.l.Close()
	for {
		select {
		case c := <-p.conns:
			_ = c.Close()
		default:
			return
		}
	}
}
