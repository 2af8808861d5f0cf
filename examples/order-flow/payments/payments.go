// Package payments is the shop's payment service: it moves money between the
// customers' cards and the shop.
package payments

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

// No unique key guards entries against a second charge of the same order: the
// inbox alone does, and the audit would see it if it did not.
//
// The last two columns of accounts play the card's issuer: decline is the
// reason for which it refuses every charge, and outages is how many calls in a
// row it leaves unanswered before it answers one.
const schema = `
CREATE TABLE IF NOT EXISTS accounts (
	card     TEXT NOT NULL,
	currency TEXT NOT NULL,
	opening  INTEGER NOT NULL CHECK (opening >= 0), -- minor units
	balance  INTEGER NOT NULL CHECK (balance >= 0),
	decline  TEXT NOT NULL DEFAULT '',
	outages  INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (card, currency)
);
CREATE TABLE IF NOT EXISTS entries (
	id       INTEGER PRIMARY KEY,
	order_id TEXT NOT NULL,
	kind     TEXT NOT NULL CHECK (kind IN ('charge', 'refund')),
	card     TEXT NOT NULL,
	currency TEXT NOT NULL,
	amount   INTEGER NOT NULL CHECK (amount > 0), -- minor units
	FOREIGN KEY (card, currency) REFERENCES accounts
);
CREATE INDEX IF NOT EXISTS entries_order ON entries (order_id);`

// Shop is the account that orders are paid to, in each currency.
const Shop = "shop"

// Account is a card, or the shop's own account, with the money it starts with.
type Account struct {
	Card     string `json:"card" db:"card"`
	Currency string `json:"currency" db:"currency"`
	Opening  int64  `json:"opening" db:"opening"`           // minor units
	Decline  string `json:"decline,omitempty" db:"decline"` // why its issuer refuses every charge
	Outages  int64  `json:"outages,omitempty" db:"outages"` // calls its issuer leaves unanswered at first
}

// Service handles the tasks of the service "payments".
type Service struct {
	// Latency is how long an issuer takes to answer. Zero is no time.
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

// Fund opens accounts, once: an account that is known is left alone.
func (s *Service) Fund(ctx context.Context, accounts []Account) error {
	_, err := s.db.NamedExecContext(ctx, `
		INSERT INTO accounts (card, currency, opening, balance, decline, outages)
		VALUES (:card, :currency, :opening, :opening, :decline, :outages)
		ON CONFLICT DO NOTHING`, accounts)
	return err
}

// Register makes w handle the service's tasks, each in one transaction with
// its row in the inbox.
func (s *Service) Register(ctx context.Context, w *worker.Worker) error {
	box, err := inbox.New(ctx, s.db, inbox.SQLite, inbox.Options{})
	if err != nil {
		return err
	}
	inbox.Handle(w, box, flow.Charge, s.Charge)
	inbox.Handle(w, box, flow.Refund, s.Refund)
	return nil
}

// Charge moves the amount from the card to the shop.
func (s *Service) Charge(ctx context.Context, tx *sqlx.Tx, p flow.Payment) (flow.Charged, error) {
	card, err := s.issuer(ctx, tx, p)
	switch {
	case err != nil:
		return flow.Charged{}, err
	case card.Decline != "":
		return flow.Charged{}, worker.Final("card_declined", fmt.Errorf("card %s was declined: %s", p.Card, card.Decline))
	case card.Balance < p.Amount:
		return flow.Charged{}, worker.Final("insufficient_funds",
			fmt.Errorf("card %s has less than %d %s", p.Card, p.Amount, p.Currency))
	}
	id, err := move(ctx, tx, "charge", p, -p.Amount)
	return flow.Charged{Authorization: fmt.Sprintf("A%08d", id)}, err
}

// Refund undoes Charge.
func (s *Service) Refund(ctx context.Context, tx *sqlx.Tx, p flow.Payment) (flow.Done, error) {
	if _, err := s.issuer(ctx, tx, p); err != nil {
		return flow.Done{}, err
	}
	_, err := move(ctx, tx, "refund", p, p.Amount)
	return flow.Done{}, err
}

type card struct {
	Balance int64  `db:"balance"`
	Decline string `db:"decline"`
	Outages uint32 `db:"outages"`
}

// issuer asks the card's issuer, which may not answer at first.
func (s *Service) issuer(ctx context.Context, tx *sqlx.Tx, p flow.Payment) (card, error) {
	var c card
	err := tx.GetContext(ctx, &c,
		`SELECT balance, decline, outages FROM accounts WHERE card = ? AND currency = ?`, p.Card, p.Currency)
	if errors.Is(err, sql.ErrNoRows) {
		return c, worker.Final("unknown_card", fmt.Errorf("there is no card %s in %s", p.Card, p.Currency))
	}
	if err != nil {
		return c, err
	}
	select {
	case <-time.After(s.Latency):
	case <-ctx.Done():
		return c, ctx.Err()
	}
	if attempt := worker.TaskFrom(ctx).Attempt; attempt <= c.Outages && attempt > 0 {
		return c, worker.Retryable("issuer_unavailable", fmt.Errorf("the issuer of card %s does not answer", p.Card))
	}
	return c, nil
}

// move adds delta to the card, takes it from the shop, and writes it down.
func move(ctx context.Context, tx *sqlx.Tx, kind string, p flow.Payment, delta int64) (entry int64, err error) {
	const add = `UPDATE accounts SET balance = balance + ? WHERE card = ? AND currency = ?`
	if _, err := tx.ExecContext(ctx, add, delta, p.Card, p.Currency); err != nil {
		return 0, err
	}
	if _, err := tx.ExecContext(ctx, add, -delta, Shop, p.Currency); err != nil {
		return 0, err
	}
	res, err := tx.ExecContext(ctx,
		`INSERT INTO entries (order_id, kind, card, currency, amount) VALUES (?, ?, ?, ?, ?)`,
		p.Order, kind, p.Card, p.Currency, p.Amount)
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}
