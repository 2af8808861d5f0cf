package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Row is a request that waits in the table.
type Row struct {
	// ID is the row's number; it orders the rows of a key.
	ID int64
	// Key is the id of the run that the request is about.
	Key string
	// Kind is the type of the request, such as "run.start".
	Kind string
	// Body is the request's JSON.
	Body []byte
	// Created is when the row was written, in milliseconds since 1970 by the
	// database's clock.
	Created int64
	// Reason says why the row was set aside.
	Reason string
}

// message is the row's request as it is published. It is decoded again, as an
// orchestrator would, so that its errors are those that would come too late.
func (b *Outbox) message(r *Row) (broker.Message, error) {
	m := protocol.EncodeRequest(protocol.RequestsQueue(b.opts.Namespace),
		&protocol.Request{Type: protocol.RequestType(r.Kind), RunID: r.Key, Body: r.Body})
	_, err := protocol.DecodeRequest(&m)
	return m, err
}

// Pending returns how many rows wait to be sent, and how long the oldest of
// them has waited. It is meant for metrics and alarms.
func (b *Outbox) Pending(ctx context.Context) (rows int64, oldest time.Duration, err error) {
	var p struct{ Count, Age int64 }
	if err := b.db.GetContext(ctx, &p, b.sql.pending); err != nil {
		return 0, 0, fmt.Errorf("outbox: counting rows: %w", err)
	}
	return p.Count, max(0, time.Duration(p.Age)*time.Millisecond), nil
}

// SetAside returns rows that can never be sent as they are, each with its
// reason: up to limit (0: 100) of those with an id above after, in the order of
// their ids.
func (b *Outbox) SetAside(ctx context.Context, after int64, limit int) ([]Row, error) {
	if limit <= 0 {
		limit = 100
	}
	var rows []Row
	if err := b.db.SelectContext(ctx, &rows, b.sql.aside, after, limit); err != nil {
		return nil, fmt.Errorf("outbox: listing rows that were set aside: %w", err)
	}
	return rows, nil
}

// Retry puts a row that was set aside back among those to be sent.
func (b *Outbox) Retry(ctx context.Context, id int64) error {
	err := b.settle(ctx, b.sql.retry, id)
	if err == nil {
		b.Notify()
	}
	return err
}

// Discard deletes a row that was set aside.
func (b *Outbox) Discard(ctx context.Context, id int64) error {
	return b.settle(ctx, b.sql.discard, id)
}

func (b *Outbox) settle(ctx context.Context, query string, id int64) error {
	res, err := b.db.ExecContext(ctx, query, id)
	if err != nil {
		return fmt.Errorf("outbox: row %d: %w", id, err)
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 {
		return fmt.Errorf("outbox: row %d: %w", id, ErrNotFound)
	}
	return nil
}
