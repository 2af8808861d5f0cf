package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ringmaster-dev/ringmaster/lock"
)

// listener hears the notes of the database on a connection of its own. It only
// makes things faster: what it misses is noticed by renewals and by waiters that
// ask again.
type listener struct {
	p      *Provider
	cancel context.CancelFunc
	done   chan struct{}
}

const (
	reconnectFirst = 50 * time.Millisecond
	reconnectMost  = 5 * time.Second
)

func listen(p *Provider) *listener {
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{p: p, cancel: cancel, done: make(chan struct{})}
	go l.run(ctx)
	return l
}

func (l *listener) close() {
	l.cancel()
	<-l.done
}

func (l *listener) run(ctx context.Context) {
	defer close(l.done)
	wait := reconnectFirst
	for ctx.Err() == nil {
		heard, err := l.hear(ctx)
		if ctx.Err() != nil {
			return
		}
		if heard {
			wait = reconnectFirst
		}
		l.p.log.Warn("notes about leases do not arrive, waiting longer where one would have helped", "error", err, "retry_in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, reconnectMost)
	}
}

// hear listens until the connection breaks.
func (l *listener) hear(ctx context.Context) (listened bool, err error) {
	c, err := l.connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	if _, err := c.Exec(ctx, "LISTEN "+pgx.Identifier{l.p.channel()}.Sanitize()); err != nil {
		return false, err
	}
	l.p.wakeAll()
	for {
		n, err := c.WaitForNotification(ctx)
		if err != nil {
			return true, err
		}
		l.note(n.Payload)
	}
}

// connect opens a connection like those of the pool.
func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	pooled, err := l.p.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pooled.Close() }() // gives it back
	var config *pgx.ConnConfig
	if err := pooled.Raw(func(driver any) error {
		c, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("%w: the driver of the pool is %T, not pgx", lock.ErrInvalid, driver)
		}
		config = c.Conn().Config()
		config.OnNotification = nil // it would go to the connection of the pool
		return nil
	}); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, config)
}

// note acts on what the database says: "wake SESSION NAME", "lost SESSION NAME
// TOKEN" or "ended SESSION".
func (l *listener) note(text string) {
	f := strings.Fields(text)
	if len(f) < 2 {
		return
	}
	b := l.p.find(f[1])
	if b == nil {
		return // another provider's, or closed
	}
	switch {
	case f[0] == "ended":
		b.session.Lose(fmt.Errorf("%w: the database ended it", lock.ErrLost))
	case f[0] == "wake" && len(f) == 3:
		b.wake(f[2])
	case f[0] == "lost" && len(f) == 4:
		if token, err := strconv.ParseUint(f[3], 10, 64); err == nil {
			b.session.LoseLease(f[2], token)
		}
	}
}
