package rabbit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

const patience = 90 * time.Second

func open(t *testing.T, cfg Config, o broker.Options) *conn {
	t.Helper()
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := b.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return c.(*conn)
}

// await receives, or fails the test.
func await[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}

func TestConfigurationIsChecked(t *testing.T) {
	for want, cfg := range map[string]Config{
		"URLs is empty": {},
		"URLs[1]":       {URLs: []string{"amqp://localhost", "http://localhost"}},
		"Heartbeat":     {URLs: []string{"amqp://localhost"}, Heartbeat: time.Millisecond},
		"MinBackoff":    {URLs: []string{"amqp://localhost"}, MinBackoff: time.Minute},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error about %s, got %v", want, err)
		}
	}
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "amqp://guest:guest@" + l.Addr().String() + "/"
}

func TestOpenGivesUpWithItsContext(t *testing.T) {
	b, err := New(Config{URLs: []string{closedPort(t)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = b.Open(ctx, broker.Options{})
	if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("opening without a broker: %v", err)
	}
}

func TestOpenFailsWhenTheCredentialsAreRefused(t *testing.T) {
	url := strings.Replace(testenv.RabbitMQ(t).URL, "guest:guest", "guest:wrong", 1)
	b, err := New(Config{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err = b.Open(ctx, broker.Options{}); !errors.Is(err, amqp.ErrCredentials) || ctx.Err() != nil {
		t.Errorf("opening with a wrong password: %v", err)
	}
}

// tlsProxy serves TLS in front of an AMQP address. It returns its own address
// and the pool that trusts it.
func tlsProxy(t *testing.T, target string) (string, *x509.CertPool) {
	uri, err := amqp.ParseURI(target)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(nil) // for its certificate
	server.Close()
	l, err := tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{Certificates: server.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	addr := net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp4", addr)
			if err != nil {
				_ = in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		}
	}()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	uri.Scheme, uri.Host, uri.Port = "amqps", "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	return uri.String(), pool
}

func TestTLS(t *testing.T) {
	url, pool := tlsProxy(t, testenv.RabbitMQ(t).URL)
	c := open(t, Config{URLs: []string{url}, TLS: &tls.Config{RootCAs: pool}}, broker.Options{})
	if err := c.Declare(t.Context(), nil, []string{"q"}); err != nil {
		t.Fatal(err)
	}
	m := broker.Message{Key: "q", Mandatory: true, Body: make([]byte, 300_000)}
	if err := c.PublishConfirmed(t.Context(), m); err != nil {
		t.Error(err)
	}
	b, err := New(Config{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := b.Open(ctx, broker.Options{}); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("opening without trust: %v", err)
	}
}

func TestAQueueWithOtherPropertiesIsExplained(t *testing.T) {
	url := testenv.RabbitMQ(t).URL
	ac, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ac.Close() }()
	ch, err := ac.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("classic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	c := open(t, Config{URLs: []string{url}}, broker.Options{})
	err = c.Declare(t.Context(), nil, []string{"classic"})
	if err == nil || !strings.Contains(err.Error(), "queue classic") || !strings.Contains(err.Error(), "delete it there") {
		t.Errorf("declaring: %v", err)
	}
}

// The server closes the channel of a consumer that misbehaves; the
// subscription goes on with another.
func TestASubscriptionOutlivesItsChannel(t *testing.T) {
	c := open(t, Config{URLs: []string{testenv.RabbitMQ(t).URL}}, broker.Options{})
	queues, got := make(chan string, 10), make(chan broker.Delivery, 10)
	consumer, err := c.Subscribe(t.Context(), broker.Subscription{
		Queue: "q", Kind: broker.Exclusive,
		OnDeclared: func(q string) { queues <- q },
		Handler:    func(d broker.Delivery) { got <- d },
	})
	if err != nil {
		t.Fatal(err)
	}
	first := await(t, queues, "the first queue")
	if err := c.Publish(t.Context(), broker.Message{Key: first}); err != nil {
		t.Fatal(err)
	}
	d := await(t, got, "a delivery")
	// An acknowledgement of what was never delivered closes the channel.
	consumer.(*subscription).serving.Load().acks.ch.Ack(4711, false)
	second := await(t, queues, "the second queue")
	d.Settle(true) // of the lost channel
	if err := c.Publish(t.Context(), broker.Message{Key: second}); err != nil {
		t.Fatal(err)
	}
	await(t, got, "a delivery on the new channel").Settle(true)
	if s := c.State(); s != broker.StateConnected {
		t.Errorf("the state is %d", s)
	}
}

func TestConnsShareARegisterer(t *testing.T) {
	reg := prometheus.NewRegistry()
	url := testenv.RabbitMQ(t).URL
	a := open(t, Config{URLs: []string{url}}, broker.Options{Name: "a", Registerer: reg})
	open(t, Config{URLs: []string{url}}, broker.Options{Name: "b", Registerer: reg})
	lost := broker.Message{Key: "nowhere", Mandatory: true}
	if err := a.PublishConfirmed(t.Context(), lost); !errors.Is(err, broker.ErrUnroutable) {
		t.Fatal(err)
	}
	want := `
		# HELP ringmaster_broker_published_total Messages handed to the broker's socket.
		# TYPE ringmaster_broker_published_total counter
		ringmaster_broker_published_total{conn="a"} 1
		ringmaster_broker_published_total{conn="b"} 0
		# HELP ringmaster_broker_returned_total Mandatory messages that came back unrouted.
		# TYPE ringmaster_broker_returned_total counter
		ringmaster_broker_returned_total{conn="a"} 1
		ringmaster_broker_returned_total{conn="b"} 0
		# HELP ringmaster_broker_state Condition of the connection: 1 connected, 2 disconnected, 3 blocked by the broker.
		# TYPE ringmaster_broker_state gauge
		ringmaster_broker_state{conn="a"} 1
		ringmaster_broker_state{conn="b"} 1
	`
	err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		"ringmaster_broker_published_total", "ringmaster_broker_returned_total", "ringmaster_broker_state")
	if err != nil {
		t.Error(err)
	}
}

// A node that is frozen accepts connections and bytes and answers nothing.
func TestAFrozenNodeCountsAsLost(t *testing.T) {
	node := testenv.PrivateRabbitMQ(t)
	states := make(chan broker.State, 100)
	c := open(t, Config{URLs: []string{node.URL}, Heartbeat: time.Second, DialTimeout: time.Second},
		broker.Options{OnState: func(s broker.State) { states <- s }})
	await(t, states, "the first connection")
	if err := node.Pause(); err != nil {
		t.Fatal(err)
	}
	unknown := make(chan error, 1)
	go func() {
		unknown <- c.PublishConfirmed(context.Background(), broker.Message{Key: "x", Persistent: true})
	}()
	if s := await(t, states, "the loss"); s != broker.StateDisconnected {
		t.Errorf("the state became %d", s)
	}
	if err := await(t, unknown, "the answer"); !errors.Is(err, broker.ErrUnconfirmed) && !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("a publish to a frozen node: %v", err)
	}
	if err := c.Publish(t.Context(), broker.Message{Key: "x"}); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("a publish without a connection: %v", err)
	}
	if err := node.Resume(); err != nil {
		t.Fatal(err)
	}
	if s := await(t, states, "the next connection"); s != broker.StateConnected {
		t.Errorf("the state became %d", s)
	}
}
