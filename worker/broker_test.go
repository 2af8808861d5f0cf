package worker_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/memory"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

func newBroker(t testing.TB) broker.Broker {
	t.Helper()
	b, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// frail is a broker with one connection that can be cut, as an outage does it:
// exclusive queues vanish with what is in them, and come back under new names.
type frail struct {
	broker.Broker
	conn *frailConn
}

func (f *frail) Open(ctx context.Context, o broker.Options) (broker.Conn, error) {
	c, err := f.Broker.Open(ctx, o)
	f.conn = &frailConn{Conn: c, onState: o.OnState}
	return f.conn, err
}

type frailConn struct {
	broker.Conn
	onState func(broker.State)

	mu        sync.Mutex
	subs      []broker.Subscription
	consumers []broker.Consumer
	down      bool // publishes fail
	void      bool // publishes seem to succeed
}

func (c *frailConn) Subscribe(ctx context.Context, s broker.Subscription) (broker.Consumer, error) {
	consumer, err := c.Conn.Subscribe(ctx, s)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs, c.consumers = append(c.subs, s), append(c.consumers, consumer)
	return consumer, err
}

func (c *frailConn) Publish(ctx context.Context, msgs ...broker.Message) error {
	c.mu.Lock()
	down, void := c.down, c.void
	c.mu.Unlock()
	switch {
	case down:
		return broker.ErrUnavailable
	case void:
		return nil
	}
	return c.Conn.Publish(ctx, msgs...)
}

// cut ends the connection; with a warning only for who looks at errors.
func (c *frailConn) cut(t *testing.T, silently bool) {
	c.mu.Lock()
	c.down, c.void = !silently, silently
	consumers := slices.Clone(c.consumers)
	c.consumers = nil
	c.mu.Unlock()
	for _, consumer := range consumers {
		if err := consumer.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !silently {
		c.onState(broker.StateDisconnected)
	}
}

func (c *frailConn) heal(t *testing.T) {
	c.mu.Lock()
	c.down, c.void = false, false
	subs := c.subs
	c.subs = nil
	c.mu.Unlock()
	for _, s := range subs {
		if _, err := c.Subscribe(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	c.onState(broker.StateConnected)
}

func TestAReconnectedWorkerKeepsItsIdentityAndItsResults(t *testing.T) {
	for name, silently := range map[string]bool{"noticed": false, "unnoticed": true} {
		t.Run(name, func(t *testing.T) {
			b := &frail{Broker: newBroker(t)}
			o := newOrchestrator(t, b.Broker, "o1")
			o.own(1, 0)
			entered, proceed := make(chan struct{}), make(chan struct{})
			w := start(t, b, worker.Config{HeartbeatInterval: time.Minute}, func(w *worker.Worker) {
				withEcho(w)
				w.HandleFunc("wait", func(context.Context, []byte) ([]byte, error) {
					close(entered)
					<-proceed
					return []byte("2"), nil
				})
			})
			h := o.ready()
			o.send(h, 0, o.task(1, "echo", `1`), o.task(2, "wait", ``))
			<-entered
			o.result(0)

			b.conn.cut(t, silently)
			close(proceed) // its result gets nowhere
			o.send(h, 0, o.task(3, "echo", `3`))
			o.await("the task's return", func() bool { return len(o.returned) == 1 })
			b.conn.heal(t)

			o.await("both results", func() bool {
				return slices.ContainsFunc(o.results[1:], func(r protocol.Result) bool { return r.Seq == 1 }) &&
					slices.ContainsFunc(o.results[1:], func(r protocol.Result) bool { return r.Seq == 2 })
			})
			again := o.beat("the new queue", func(next protocol.Heartbeat) bool { return next.Queue != h.Queue })
			if again.Worker != h.Worker || again.Worker != w.ID() || again.Received["o1"] != 2 || len(again.Queued) != 0 {
				t.Errorf("got %+v", again)
			}
			o.send(again, 0, o.task(3, "echo", `3`))
			o.await("the third result", func() bool { return last(o.results).Ref == 3 })
		})
	}
}

// Throughput of tasks that do nothing, an orchestrator with little to do, and
// the broker in memory: what the SDK itself costs.
func BenchmarkTasks(b *testing.B) {
	for _, size := range []int{1, 16, 128} {
		b.Run(map[int]string{1: "single", 16: "by16", 128: "by128"}[size], func(b *testing.B) {
			br := newBroker(b)
			o := newOrchestrator(b, br, "o1")
			o.own(1, 0)
			w := start(b, br, worker.Config{HeartbeatInterval: time.Second, MaxHeldResults: 50_000}, withEcho)
			h := o.ready()
			b.ReportAllocs()
			b.ResetTimer()
			done, durable := 0, 0
			for done < b.N {
				// As much as is credit, in messages of size tasks.
				for sent := 0; sent < 256; sent += size {
					var batch []protocol.Task
					for range size {
						done++
						batch = append(batch, o.task(done, "echo", `{"amount":12}`))
					}
					o.send(h, uint64(durable), batch...)
				}
				o.await("the results", func() bool { durable = len(o.results); return durable >= done })
			}
			b.StopTimer()
			o.settle(w.Worker)
		})
	}
}
