// Package orders is the shop's order service: it keeps the orders and the
// stock, and writes to customers.
package orders

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/database"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// No unique key guards stock_moves and notices against a second row for the
// same order: the inbox alone does, and the audit would see it if it did not.
const schema = `
CREATE TABLE IF NOT EXISTS items (
	sku     TEXT PRIMARY KEY,
	name    TEXT NOT NULL,
	opening INTEGER NOT NULL CHECK (opening >= 0),
	on_hand INTEGER NOT NULL CHECK (on_hand >= 0)
);
CREATE TABLE IF NOT EXISTS orders (
	id          TEXT PRIMARY KEY,
	customer_id TEXT NOT NULL,
	customer    TEXT NOT NULL,
	currency    TEXT NOT NULL,
	total       INTEGER NOT NULL,
	status      TEXT NOT NULL CHECK (status IN ('placed', 'cancelled', 'delivered')),
	tracking    TEXT NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS stock_moves (
	id       INTEGER PRIMARY KEY,
	order_id TEXT NOT NULL REFERENCES orders,
	sku      TEXT NOT NULL REFERENCES items,
	quantity INTEGER NOT NULL -- negative: taken out of stock
);
CREATE INDEX IF NOT EXISTS stock_moves_order ON stock_moves (order_id);
CREATE TABLE IF NOT EXISTS notices (
	id       INTEGER PRIMARY KEY,
	order_id TEXT NOT NULL REFERENCES orders,
	email    TEXT NOT NULL,
	text     TEXT NOT NULL
);`

// Item is something the shop sells, with the stock it starts with.
type Item struct {
	SKU     string `json:"sku" db:"sku"`
	Name    string `json:"name" db:"name"`
	Opening int64  `json:"opening" db:"opening"`
}

// Service handles the tasks of the service "orders".
type Service struct{ db *sqlx.DB }

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

// Stock puts items on the shelves, once: an item that is known is left alone.
func (s *Service) Stock(ctx context.Context, items []Item) error {
	_, err := s.db.NamedExecContext(ctx, `
		INSERT INTO items (sku, name, opening, on_hand) VALUES (:sku, :name, :opening, :opening)
		ON CONFLICT DO NOTHING`, items)
	return err
}

// Register makes w handle the service's tasks, each in one transaction with
// its row in the inbox.
func (s *Service) Register(ctx context.Context, w *worker.Worker) error {
	box, err := inbox.New(ctx, s.db, inbox.SQLite, inbox.Options{})
	if err != nil {
		return err
	}
	inbox.Handle(w, box, flow.CreateOrder, s.Create)
	inbox.Handle(w, box, flow.CancelOrder, s.Cancel)
	inbox.Handle(w, box, flow.Notify, s.Notify)
	return nil
}

// Create writes the order and takes its goods out of stock.
func (s *Service) Create(ctx context.Context, tx *sqlx.Tx, o flow.Order) (flow.Placed, error) {
	placed := flow.Placed{Total: o.Total(), Pieces: o.Pieces()}
	if placed.Pieces == 0 {
		return flow.Placed{}, worker.Final("empty_order", fmt.Errorf("order %s has no lines", o.ID))
	}
	_, err := tx.ExecContext(ctx, `
		INSERT INTO orders (id, customer_id, customer, currency, total, status) VALUES (?, ?, ?, ?, ?, 'placed')`,
		o.ID, o.Customer.ID, o.Customer.Name, o.Currency, placed.Total)
	if err != nil {
		return flow.Placed{}, err
	}
	for _, l := range o.Lines {
		if l.Quantity < 1 || l.UnitPrice < 0 {
			return flow.Placed{}, worker.Final("bad_line", fmt.Errorf("order %s: %d of %s at %d", o.ID, l.Quantity, l.SKU, l.UnitPrice))
		}
		if err := take(ctx, tx, o.ID, l); err != nil {
			return flow.Placed{}, err
		}
	}
	return placed, nil
}

func take(ctx context.Context, tx *sqlx.Tx, order string, l flow.Line) error {
	res, err := tx.ExecContext(ctx,
		`UPDATE items SET on_hand = on_hand - ? WHERE sku = ? AND on_hand >= ?`, l.Quantity, l.SKU, l.Quantity)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return worker.Final("out_of_stock", fmt.Errorf("%d of %s are not in stock", l.Quantity, l.SKU))
	}
	_, err = tx.ExecContext(ctx,
		`INSERT INTO stock_moves (order_id, sku, quantity) VALUES (?, ?, ?)`, order, l.SKU, -l.Quantity)
	return err
}

// Cancel undoes Create: the goods go back on the shelf.
func (s *Service) Cancel(ctx context.Context, tx *sqlx.Tx, o flow.Order) (flow.Done, error) {
	for _, l := range o.Lines {
		if _, err := tx.ExecContext(ctx,
			`UPDATE items SET on_hand = on_hand + ? WHERE sku = ?`, l.Quantity, l.SKU); err != nil {
			return flow.Done{}, err
		}
		if _, err := tx.ExecContext(ctx,
			`INSERT INTO stock_moves (order_id, sku, quantity) VALUES (?, ?, ?)`, o.ID, l.SKU, l.Quantity); err != nil {
			return flow.Done{}, err
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE orders SET status = 'cancelled' WHERE id = ?`, o.ID)
	return flow.Done{}, err
}

// Notify tells the customer that the parcel is on its way.
func (s *Service) Notify(ctx context.Context, tx *sqlx.Tx, n flow.Notice) (flow.Done, error) {
	if _, err := tx.ExecContext(ctx,
		`UPDATE orders SET status = 'delivered', tracking = ? WHERE id = ?`, n.Tracking, n.Order); err != nil {
		return flow.Done{}, err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO notices (order_id, email, text) VALUES (?, ?, ?)`,
		n.Order, n.Email, fmt.Sprintf("Your order %s is on its way: %s", n.Order, n.Tracking))
	return flow.Done{}, err
}
