package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// The ceiling is that of one task or result a message, with bodies of this
	// size, so many on their way, and an acknowledgement for so many.
	bodySize = 256
	window   = 500
	ackEvery = 50
	// tripsPerSaga is how many tasks a saga of three steps has.
	tripsPerSaga = 3
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

// trips sends tasks to an echo process of its own for a while, or so many if
// count is not 0, with a number of them on their way.
func trips(ctx context.Context, b *bench, size int, merge bool, limit time.Duration, count int) (perS float64, each latencies, err error) {
	r, err := b.broker(ctx)
	if err != nil {
		return 0, nil, err
	}
	every := min(ackEvery, size)
	file := b.dir + "/echo.queue"
	echo, err := spawn(ctx, "echo", b.dir, b.self, true, "echo", "--amqp-url", r.URL, "--queue-file", file,
		fmt.Sprintf("--ack-every=%d", every), fmt.Sprintf("--merge=%v", merge))
	if err != nil {
		return 0, nil, err
	}
	defer echo.kill()
	queue, err := os.ReadFile(file)
	if err != nil {
		return 0, nil, err
	}
	p, err := openPeer(r.URL, merge)
	if err != nil {
		return 0, nil, err
	}
	defer p.close()
	task := amqp.Publishing{CorrelationId: "0123456789abcdef", ReplyTo: p.queue, Body: make([]byte, bodySize)}
	send := func() error { return p.out.PublishWithContext(ctx, "", string(queue), false, false, task) }

	const rampUp = 300 * time.Millisecond
	began := time.Now()
	for range size {
		if err := send(); err != nil {
			return 0, nil, err
		}
	}
	var counted int64
	var start, last time.Time // start is that of the counting
	last = began
	for {
		select {
		case <-ctx.Done():
			return 0, nil, context.Cause(ctx)
		case <-echo.exited:
			return 0, nil, echo.ended()
		case d, ok := <-p.deliveries:
			if !ok {
				return 0, nil, errors.New("the broker ended the subscription")
			}
			now := time.Now()
			switch {
			case start.IsZero() && now.Sub(began) >= rampUp:
				start = now
			case !start.IsZero():
				counted++
				if size == 1 {
					each = append(each, now.Sub(last))
				}
				if count == 0 && now.Sub(start) >= limit || count != 0 && counted >= int64(count) {
					return perSecond(counted, now.Sub(start)), each, nil
				}
			}
			if err := p.ack(d, every); err != nil {
				return 0, nil, err
			}
			last = time.Now()
			if err := send(); err != nil {
				return 0, nil, err
			}
		}
	}
}

// best is the highest of several measurements of round trips per second.
func best(ctx context.Context, b *bench) (float64, error) {
	highest := 0.0
	for i := range b.d.echoRuns {
		perS, _, err := trips(ctx, b, window, true, b.d.echo, 0)
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
	_, each, err := trips(ctx, b, 1, false, 0, b.d.latencies)
	if err != nil {
		return err
	}
	r := b.report
	r.set("broker.roundtrips_per_s", perS, "1/s")
	r.set("broker.roundtrip.p50_ms", each.quantile(0.5), "ms")
	r.set("broker.roundtrip.p99_ms", each.quantile(0.99), "ms")
	r.set("saga.ceiling_per_s", perS/tripsPerSaga, "1/s")
	b.say("  window 1: p50 %.3f ms, p99 %.3f ms", each.quantile(0.5), each.quantile(0.99))
	return nil
}

// measureBrokerAgain shows how far the machine is the one that the ceiling was
// measured on.
func measureBrokerAgain(ctx context.Context, b *bench) error {
	perS, err := best(ctx, b)
	if err != nil {
		return err
	}
	b.report.set("broker.roundtrips_again_per_s", perS, "1/s")
	if before, ok := b.report.get("broker.roundtrips_per_s"); ok && (perS < 0.8*before || perS > 1.25*before) {
		b.say("  %.0f round trips/s before, %.0f now: the machine was not the same all the time, so take ratios with care", before, perS)
	}
	return nil
}
