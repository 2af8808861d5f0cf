package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// The ceiling is that of one task or result a message, with bodies of this
	// size, so many on their way, and an acknowledgement for so many.
	bodySize = 256
	window   = 500
	ackEvery = 50
	// So many tasks have a saga of three steps, and a TCC or a two-phase commit of
	// two participants.
	tripsPerSaga        = 3
	tripsPerTransaction = 4
)

// peer is a side of the measurement: one connection to send and one to
// receive, on an exclusive, transient queue.
type peer struct {
	send, recv *amqp.Connection
	out, in    *amqp.Channel
	queue      string
	deliveries <-chan amqp.Delivery
	unacked    int
}

func openPeer(url string, merge bool) (*peer, error) {
	p := &peer{}
	cfg := amqp.Config{Heartbeat: 10 * time.Second, Dial: func(network, addr string) (net.Conn, error) {
		c, err := net.DialTimeout(network, addr, 10*time.Second)
		if err != nil || !merge {
			return c, err
		}
		return newMergedConn(c), nil
	}}
	err := p.open(url, cfg)
	if err != nil {
		p.close()
		return nil, fmt.Errorf("open a side of the measurement: %w", err)
	}
	return p, nil
}

func (p *peer) open(url string, cfg amqp.Config) (err error) {
	for _, side := range []struct {
		c  **amqp.Connection
		ch **amqp.Channel
	}{{&p.send, &p.out}, {&p.recv, &p.in}} {
		if *side.c, err = amqp.DialConfig(url, cfg); err != nil {
			return err
		}
		if *side.ch, err = (*side.c).Channel(); err != nil {
			return err
		}
	}
	if err := p.in.Qos(2*window, 0, false); err != nil {
		return err
	}
	q, err := p.in.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return err
	}
	p.queue = q.Name
	p.deliveries, err = p.in.Consume(q.Name, "", false, true, false, false, nil)
	return err
}

// close closes both connections; an error would say that they are gone.
func (p *peer) close() {
	for _, c := range []*amqp.Connection{p.send, p.recv} {
		if c != nil {
			_ = c.Close()
		}
	}
}

// ack acknowledges the delivery and those before it, every so often; at once
// where more than one is never on its way.
func (p *peer) ack(d amqp.Delivery, every int) error {
	if p.unacked++; p.unacked < every {
		return nil
	}
	p.unacked = 0
	return d.Ack(true)
}

// echoMain answers every message of a queue with its body.
func echoMain(ctx context.Context, fs *flag.FlagSet, args []string) error {
	url := fs.String("amqp-url", "", "")
	queueFile := fs.String("queue-file", "", "")
	every := fs.Int("ack-every", ackEvery, "")
	merge := fs.Bool("merge", true, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	p, err := openPeer(*url, *merge)
	if err != nil {
		return err
	}
	defer p.close()
	if err := os.WriteFile(*queueFile, []byte(p.queue), 0o644); err != nil {
		return err
	}
	fmt.Println(readyLine)
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-p.deliveries:
			if !ok {
				return errors.New("the broker ended the subscription")
			}
			answer := amqp.Publishing{CorrelationId: d.CorrelationId, Body: d.Body}
			if err := p.out.PublishWithContext(ctx, "", d.ReplyTo, false, false, answer); err != nil {
				return err
			}
			if err := p.ack(d, *every); err != nil {
				return err
			}
		}
	}
}

// pair is a side of the measurement with an echo process on the other.
type pair struct {
	*peer
	echo  *child
	every int // acknowledgements
	task  amqp.Publishing
	tasks string // queue of the echo process
}

// openPair starts an echo process for a number of tasks on their way.
func openPair(ctx context.Context, b *bench, size int, merge bool) (*pair, error) {
	r, err := b.broker(ctx)
	if err != nil {
		return nil, err
	}
	p := &pair{every: min(ackEvery, size)}
	file := filepath.Join(b.dir, "echo.queue")
	p.echo, err = spawn(ctx, "echo", b.dir, b.self, true, "echo", "--amqp-url", r.URL, "--queue-file", file,
		fmt.Sprintf("--ack-every=%d", p.every), fmt.Sprintf("--merge=%v", merge))
	if err != nil {
		return nil, err
	}
	queue, err := os.ReadFile(file)
	if err == nil {
		p.tasks = string(queue)
		p.peer, err = openPeer(r.URL, merge)
	}
	if err != nil {
		p.echo.kill()
		return nil, err
	}
	p.task = amqp.Publishing{CorrelationId: "0123456789abcdef", ReplyTo: p.queue, Body: make([]byte, bodySize)}
	return p, nil
}

func (p *pair) close() {
	p.peer.close()
	p.echo.kill()
}

func (p *pair) request(ctx context.Context) error {
	return p.out.PublishWithContext(ctx, "", p.tasks, false, false, p.task)
}

// answer waits for the next result.
func (p *pair) answer(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.echo.exited:
		return p.echo.ended()
	case d, ok := <-p.deliveries:
		if !ok {
			return errors.New("the broker ended the subscription")
		}
		return p.ack(d, p.every)
	}
}

// throughput is how many round trips per second there are with a full window.
func throughput(ctx context.Context, b *bench, length time.Duration) (float64, error) {
	const rampUp = 300 * time.Millisecond
	p, err := openPair(ctx, b, window, true)
	if err != nil {
		return 0, err
	}
	defer p.close()
	for range window {
		if err := p.request(ctx); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	var start time.Time // of the counting
	for counted := int64(0); ; {
		if err := p.answer(ctx); err != nil {
			return 0, err
		}
		if err := p.request(ctx); err != nil {
			return 0, err
		}
		switch now := time.Now(); {
		case start.IsZero():
			if now.Sub(began) >= rampUp {
				start = now
			}
		default:
			if counted++; now.Sub(start) >= length {
				return perSecond(counted, now.Sub(start)), nil
			}
		}
	}
}

// repeat times an action that is done once at a time. The first tenth does not
// count.
func repeat(n int, action func() error) (latencies, error) {
	each := make(latencies, 0, n)
	for i := range n + n/10 {
		began := time.Now()
		if err := action(); err != nil {
			return nil, err
		}
		if i >= n/10 {
			each = append(each, time.Since(began))
		}
	}
	return each, nil
}

// best is the highest of several measurements of round trips per second.
func best(ctx context.Context, b *bench) (float64, error) {
	highest := 0.0
	for i := range b.d.echoRuns {
		perS, err := throughput(ctx, b, b.d.echo)
		if err != nil {
			return 0, err
		}
		b.say("  window %d, run %d: %.0f round trips/s", window, i+1, perS)
		highest = max(highest, perS)
	}
	return highest, nil
}

func measureBroker(ctx context.Context, b *bench) error {
	perS, err := best(ctx, b)
	if err != nil {
		return err
	}
	p, err := openPair(ctx, b, 1, false)
	if err != nil {
		return err
	}
	defer p.close()
	each, err := repeat(b.d.latencies, func() error { return errors.Join(p.request(ctx), p.answer(ctx)) })
	if err != nil {
		return err
	}
	r := b.report
	r.set("broker.roundtrips_per_s", perS, "1/s")
	r.set("broker.roundtrip.p50_ms", each.quantile(0.5), "ms")
	r.set("broker.roundtrip.p99_ms", each.quantile(0.99), "ms")
	r.setCeilings(perS)
	b.say("  window 1: p50 %.3f ms, p99 %.3f ms", each.quantile(0.5), each.quantile(0.99))
	return nil
}

// measureFloor does one at a time what a saga of three steps cannot do without:
// commit its start, and then three times send a task, get the result and
// commit that.
func measureFloor(ctx context.Context, b *bench) (err error) {
	t, remove, err := newTable(b, "floor")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	p, err := openPair(ctx, b, 1, false)
	if err != nil {
		return err
	}
	defer p.close()
	each, err := repeat(b.d.light, func() error {
		err := t.transaction(1)
		for i := 0; i < tripsPerSaga && err == nil; i++ {
			err = errors.Join(p.request(ctx), p.answer(ctx), t.transaction(1))
		}
		return err
	})
	if err != nil {
		return err
	}
	b.report.set("saga.floor.p50_ms", each.quantile(0.5), "ms")
	b.report.set("saga.floor.p99_ms", each.quantile(0.99), "ms")
	b.say("  p50 %.2f ms, p99 %.2f ms", each.quantile(0.5), each.quantile(0.99))
	return nil
}

// measureBrokerAgain shows how far the machine is the one that the ceiling was
// measured on. The better of the two is the ceiling.
func measureBrokerAgain(ctx context.Context, b *bench) error {
	perS, err := best(ctx, b)
	if err != nil {
		return err
	}
	r := b.report
	r.set("broker.roundtrips_again_per_s", perS, "1/s")
	before, ok := r.get("broker.roundtrips_per_s")
	if !ok {
		return nil
	}
	if perS < 0.8*before || perS > 1.25*before {
		b.say("  %.0f round trips/s before, %.0f now: the machine was not the same all the time, so take ratios with care", before, perS)
	}
	r.setCeilings(max(perS, before))
	return nil
}
