package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

const (
	crowdInterval    = time.Second // between the heartbeats of one worker
	crowdConcurrency = 16
	crowdCredit      = 272
	// perConnection is how many workers share a connection: each has two
	// channels, of which a connection has 2,047.
	perConnection = 250
)

// crowdMain is a process of many workers. Each has a queue for tasks, one for
// announcements, and heartbeats of its own, as a worker of the SDK has, and
// answers at once, and lists what is not known to be durable. Only their connections
// are shared, and no result is sent again.
func crowdMain(ctx context.Context, fs *flag.FlagSet, args []string) error {
	url := fs.String("amqp-url", "", "")
	namespace := fs.String("namespace", "", "")
	n := fs.Int("workers", 0, "")
	pprofListen := fs.String("pprof-listen", "", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	defer serveProfiles(*pprofListen)()
	b, err := rabbit.New(rabbit.Config{URLs: []string{*url}})
	if err != nil {
		return err
	}
	var groups [][]*extra
	for first := 0; first < *n; first += perConnection {
		conn, err := b.Open(ctx, broker.Options{Name: "crowd", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		group, err := join(ctx, conn, *namespace, first, min(first+perConnection, *n))
		if err != nil {
			return err
		}
		groups = append(groups, group)
	}
	fmt.Println(readyLine)
	var beats sync.WaitGroup
	for _, group := range groups {
		beats.Go(func() { beatInTurn(ctx, group) })
	}
	beats.Wait()
	for _, group := range groups {
		for _, w := range group {
			w.beat(context.WithoutCancel(ctx), true)
		}
	}
	return nil
}

// join subscribes the workers from first up to end.
func join(ctx context.Context, conn broker.Conn, namespace string, first, end int) (group []*extra, err error) {
	announcements := broker.Exchange{Name: protocol.AnnouncementsExchange(namespace), Kind: broker.Fanout}
	for i := first; i < end; i++ {
		name := fmt.Sprintf("crowd-%04d", i)
		w := &extra{
			conn: conn, namespace: namespace, name: name, id: fmt.Sprintf("%s-%08x", name, os.Getpid()),
			received: map[string]uint64{}, issued: map[string]uint64{}, durable: map[string]uint64{},
			kept: map[string][]protocol.Held{},
		}
		for _, s := range []broker.Subscription{
			{
				Queue: protocol.WorkerQueue(namespace, w.id) + ".announcements", Kind: broker.Exclusive, NoAck: true,
				Bindings: []broker.Binding{{Exchange: announcements}}, Handler: w.onAnnouncement,
			},
			{
				Queue: protocol.WorkerQueue(namespace, w.id), Kind: broker.Exclusive, NoAck: true,
				OnDeclared: func(queue string) { w.queue = queue }, Handler: w.onMessage,
			},
		} {
			if _, err := conn.Subscribe(ctx, s); err != nil {
				return nil, err
			}
		}
		group = append(group, w)
	}
	return group, nil
}

// beatInTurn sends the heartbeats of a group, spread over the interval. What is
// late, on a machine that is busy, is made up for.
func beatInTurn(ctx context.Context, group []*extra) {
	gap := crowdInterval / time.Duration(len(group))
	due := time.Now()
	for i := 0; ; i = (i + 1) % len(group) {
		due = due.Add(gap)
		select {
		case <-time.After(time.Until(due)):
			group[i].beat(ctx, false)
		case <-ctx.Done():
			return
		}
	}
}

// extra is one worker of a crowd.
type extra struct {
	conn                       broker.Conn
	namespace, name, id, queue string // the queue is known once it is subscribed

	mu                        sync.Mutex
	beats                     uint64
	received, issued, durable map[string]uint64          // by orchestrator
	kept                      map[string][]protocol.Held // results that are not known to be durable, by orchestrator
}

// settle takes in a watermark.
func (w *extra) settle(owner string, durable uint64) {
	if n := durable - w.durable[owner]; durable > w.durable[owner] {
		w.kept[owner] = w.kept[owner][min(n, uint64(len(w.kept[owner]))):]
		w.durable[owner] = durable
	}
}

func (w *extra) beat(ctx context.Context, leaving bool) {
	w.mu.Lock()
	w.beats++
	h := protocol.Heartbeat{
		Worker: w.id, Name: w.name, Queue: w.queue, Service: service, TaskTypes: []string{noop, noop + undo, prepare, commit, abort},
		Capabilities: []string{protocol.CapabilityBatch}, Capacity: crowdConcurrency, Credit: crowdCredit, Weight: 100, Release: "bench",
		IntervalMS: crowdInterval.Milliseconds(), Sequence: w.beats, Received: w.received, Floor: map[string]uint64{}, Leaving: leaving,
	}
	for owner := range w.issued {
		h.Floor[owner] = w.durable[owner] + 1
		h.Finished = append(h.Finished, w.kept[owner]...)
	}
	m := protocol.EncodeHeartbeat(protocol.HeartbeatsExchange(w.namespace), &h)
	w.mu.Unlock()
	w.publish(ctx, m)
}

func (w *extra) publish(ctx context.Context, m broker.Message) {
	if err := w.conn.Publish(ctx, m); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, w.name, err)
	}
}

func (w *extra) onMessage(d broker.Delivery) {
	if d.Type == string(protocol.KindControl) {
		if c, err := protocol.DecodeControl(&d.Message); err == nil {
			w.mu.Lock()
			w.settle(c.Orchestrator, c.Durable)
			w.mu.Unlock()
		}
		return
	}
	tasks, durable, _, err := protocol.DecodeTasks(&d.Message)
	if err != nil || len(tasks) == 0 {
		fmt.Fprintln(os.Stderr, w.name, "a message that is not a task:", err)
		return
	}
	results := make([]*protocol.Result, len(tasks))
	owner := tasks[0].Owner
	w.mu.Lock()
	w.settle(owner, durable)
	for i := range tasks {
		t := &tasks[i]
		w.received[owner] = max(w.received[owner], t.Seq)
		w.issued[owner]++
		w.kept[owner] = append(w.kept[owner], protocol.Held{TaskID: t.TaskID, Shard: t.Shard})
		results[i] = &protocol.Result{
			TaskID: t.TaskID, RunID: t.RunID, StepName: t.StepName, Shard: t.Shard, Worker: w.id, Owner: owner,
			Seq: w.issued[owner], Outcome: protocol.OutcomeSucceeded, Resent: t.Resent, Trace: t.Trace, Payload: output,
		}
	}
	w.mu.Unlock()
	w.publish(context.Background(), protocol.EncodeResults(protocol.Version, protocol.ResultsExchange(w.namespace), results))
}

func (w *extra) onAnnouncement(d broker.Delivery) {
	a, err := protocol.DecodeAnnouncement(&d.Message)
	if err != nil {
		return
	}
	w.mu.Lock()
	w.settle(a.Orchestrator, a.Durable[w.id])
	w.mu.Unlock()
	if a.Hello {
		w.beat(context.Background(), false)
	}
}
