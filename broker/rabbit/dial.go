package rabbit

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// nextAfter is how long a node may take to answer before the next one is asked
// besides: a node that is frozen or cut off does not refuse.
const nextAfter = 500 * time.Millisecond

// errSlow is why a node that was overtaken by the next is asked later.
var errSlow = errors.New("another node answered first")

// permanent reports an answer that another attempt is not likely to change.
func permanent(err error) bool {
	var ce *tls.CertificateVerificationError
	if errors.As(err, &ce) {
		return true
	}
	var ae *amqp.Error
	return errors.As(err, &ae) && (ae.Code == amqp.AccessRefused || ae.Code == amqp.NotAllowed)
}

// answer is the outcome of dialing one node.
type answer struct {
	node    *address
	session *session
	err     error
}

// race dials nodes in order, each as soon as the one before has failed or has
// kept silent for nextAfter, and returns the first session. It returns nil
// when all have failed.
func (c *conn) race(nodes addresses) (*session, *address) {
	ctx, cancel := context.WithCancel(c.ctx)
	answers := make(chan answer, len(nodes))
	var asked addresses // and not answered yet, in order
	ask := func() {
		a := nodes[0]
		nodes, asked = nodes[1:], append(asked, a)
		go func() {
			s, err := c.dial(ctx, a.url)
			answers <- answer{a, s, err}
		}()
	}
	ask()
	patience := time.NewTicker(nextAfter)
	defer patience.Stop()
	for len(asked) > 0 {
		select {
		case r := <-answers:
			i := slices.Index(asked, r.node)
			if r.err == nil {
				for _, slow := range asked[:i] {
					slow.failed(time.Now(), errSlow)
				}
				cancel()
				c.dismiss(answers, len(asked)-1)
				return r.session, r.node
			}
			asked = slices.Delete(asked, i, i+1)
			r.node.failed(time.Now(), r.err)
			patience.Reset(nextAfter)
		case <-patience.C:
		}
		if len(nodes) > 0 && c.ctx.Err() == nil {
			ask()
		}
	}
	cancel()
	return nil, nil
}

// dismiss ends the sessions of nodes that answer too late.
func (c *conn) dismiss(answers <-chan answer, n int) {
	c.late.Go(func() {
		for range n {
			if r := <-answers; r.session != nil {
				r.session.close()
			}
		}
	})
}

// homecoming dials the node that this Conn prefers, after a while in which
// another has served it. Stop ends that, whatever has come of it.
type homecoming struct {
	conn    *conn
	timer   *time.Timer
	cancel  context.CancelFunc
	answers chan answer // capacity 1
	asked   bool
}

// comeHome is for a session that is not at home; it is inert for one that is,
// and where Conns do not come home.
func (c *conn) comeHome(at *address) *homecoming {
	h := &homecoming{conn: c, cancel: func() {}, answers: make(chan answer, 1)}
	after := c.cfg.ReturnAfter
	if at == c.nodes[0] || after < 0 {
		h.timer = time.NewTimer(0)
		h.timer.Stop()
		return h
	}
	// Not all at once.
	h.timer = time.NewTimer(after/2 + rand.N(after))
	return h
}

// ask dials.
func (h *homecoming) ask() {
	ctx, cancel := context.WithCancel(h.conn.ctx)
	h.cancel, h.asked = cancel, true
	home := h.conn.nodes[0]
	go func() {
		s, err := h.conn.dial(ctx, home.url)
		h.answers <- answer{home, s, err}
	}()
}

// answered takes note of what ask led to. Without a session it is tried again.
func (h *homecoming) answered(r answer) *session {
	h.cancel()
	h.asked = false
	if r.err != nil {
		r.node.failed(time.Now(), r.err)
		h.timer.Reset(h.conn.cfg.ReturnAfter/2 + rand.N(h.conn.cfg.ReturnAfter))
	}
	return r.session
}

func (h *homecoming) stop() {
	h.timer.Stop()
	h.cancel()
	if h.asked {
		h.conn.dismiss(h.answers, 1)
	}
}
