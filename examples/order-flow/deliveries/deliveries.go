// Package deliveries is the shop's delivery service: it hands parcels to
// carriers. It comes in two forms over the same database: as a worker
// ([Service.Register]) and as a plain HTTP service that knows nothing of
// Ringmaster's protocol ([Service.Handler]) and is joined by cmd/worker.
package deliveries

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/database"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// No unique key guards shipments against a second parcel for the same order:
// the inbox (or, over HTTP, the requests table) alone does, and the audit would
// see it if it did not.
const schema = `
CREATE TABLE IF NOT EXISTS shipments (
	id       INTEGER PRIMARY KEY,
	order_id TEXT NOT NULL,
	name     TEXT NOT NULL,
	country  TEXT NOT NULL,
	carrier  TEXT NOT NULL,
	tracking TEXT NOT NULL,
	pieces   INTEGER NOT NULL,
	recalled INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS shipments_order ON shipments (order_id);
CREATE TABLE IF NOT EXISTS requests ( -- of the HTTP form: what each Idempotency-Key was answered
	key    TEXT PRIMARY KEY,
	status INTEGER NOT NULL,
	body   BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS recalls (order_id TEXT PRIMARY KEY);`

// Service handles the tasks of the service "deliveries".
type Service struct {
	// Latency is how long a carrier takes to answer. Zero is no time.
	Latency time.Duration

	db *sqlx.DB
}

// Open opens the service on the database file at path.
func Open(ctx context.Context, path string) (*Service, error) {
	db, err := database.Open(ctx, path, schema)
	if err != nil {
		return nil, err
	}
	return &Service{db: db}, nil
}

// DB is the service's database.
func (s *Service) DB() *sqlx.DB { return s.db }

// Close closes the database.
func (s *Service) Close() error { return s.db.Close() }

// Register makes w handle the service's task, in one transaction with its row
// in the inbox.
func (s *Service) Register(ctx context.Context, w *worker.Worker) error {
	box, err := inbox.New(ctx, s.db, inbox.SQLite, inbox.Options{})
	if err != nil {
		return err
	}
	inbox.Handle(w, box, flow.Ship, s.Ship)
	return nil
}

// Ship hands the parcel to a carrier.
func (s *Service) Ship(ctx context.Context, tx *sqlx.Tx, p flow.Parcel) (flow.Shipped, error) {
	carrier, ok := carriers[p.Address.Country]
	if !ok {
		return flow.Shipped{}, worker.Final("no_carrier",
			fmt.Errorf("nobody delivers to %s, %s", p.Address.City, p.Address.Country))
	}
	select {
	case <-time.After(s.Latency):
	case <-ctx.Done():
		return flow.Shipped{}, ctx.Err()
	}
	var n int64
	if err := tx.GetContext(ctx, &n, `SELECT coalesce(max(id), 0) + 1 FROM shipments`); err != nil {
		return flow.Shipped{}, err
	}
	out := flow.Shipped{Carrier: carrier.name, Tracking: fmt.Sprintf("%s%09d%s", carrier.prefix, n, p.Address.Country)}
	_, err := tx.ExecContext(ctx, `
		INSERT INTO shipments (order_id, name, country, carrier, tracking, pieces) VALUES (?, ?, ?, ?, ?, ?)`,
		p.Order, p.Name, p.Address.Country, out.Carrier, out.Tracking, p.Pieces)
	return out, err
}

// Shipment returns the parcel of an order that is with a carrier, if there is one.
func (s *Service) Shipment(ctx context.Context, order string) (out flow.Shipped, shipped bool, err error) {
	err = s.db.QueryRowxContext(ctx,
		`SELECT carrier, tracking FROM shipments WHERE order_id = ? AND NOT recalled`, order).Scan(&out.Carrier, &out.Tracking)
	if errors.Is(err, sql.ErrNoRows) {
		return out, false, nil
	}
	return out, err == nil, err
}

type carrier struct{ name, prefix string }

// carriers says who delivers to a country; nobody goes where none is listed.
var carriers = map[string]carrier{
	"AT": {"Österreichische Post", "AP"},
	"CH": {"Die Post", "CP"},
	"CZ": {"Česká pošta", "RR"},
	"DE": {"DHL", "DH"},
	"ES": {"Correos", "CE"},
	"FI": {"Posti", "JJ"},
	"FR": {"Colissimo", "6A"},
	"GB": {"Royal Mail", "RM"},
	"IS": {"Pósturinn", "IS"},
	"IT": {"Poste Italiane", "PI"},
	"JP": {"Yamato", "YM"},
	"KW": {"Aramex", "AX"},
	"PL": {"InPost", "IP"},
	"SE": {"PostNord", "PN"},
	"US": {"UPS", "1Z"},
}
