package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// Tx is a transaction that a handler works in: that of the inbox, or a branch of
// a two-phase commit.
type Tx interface {
	sqlx.ExtContext
	Rebind(query string) string
}

// Each change of an account is one statement that checks and writes, so that it
// needs no lock of its own before it.
const (
	takeSQL = `UPDATE accounts SET balance = balance - ? WHERE id = ? AND balance - held >= ?`
	addSQL  = `UPDATE accounts SET balance = balance + ? WHERE id = ? AND NOT closed`
	backSQL = `UPDATE accounts SET balance = balance + ? WHERE id = ?`

	holdSQL    = `UPDATE accounts SET held = held + ? WHERE id = ? AND balance - held >= ?`
	paySQL     = `UPDATE accounts SET held = held - ?, balance = balance - ? WHERE id = ?`
	releaseSQL = `UPDATE accounts SET held = held - ? WHERE id = ?`

	announceSQL = `UPDATE accounts SET announced = announced + ? WHERE id = ? AND NOT closed`
	receiveSQL  = `UPDATE accounts SET announced = announced - ?, balance = balance + ? WHERE id = ?`
	withdrawSQL = `UPDATE accounts SET announced = announced - ? WHERE id = ?`
)

// Take takes the amount from the account, if it has that much.
func Take(ctx context.Context, tx Tx, c transfer.Change) (done transfer.Done, err error) {
	if err := update(ctx, tx, takeSQL, c, c.Amount, c.Account, c.Amount); err != nil {
		return done, err
	}
	return done, enter(ctx, tx, c, -c.Amount)
}

// Add adds the amount to the account, unless that is closed.
func Add(ctx context.Context, tx Tx, c transfer.Change) (done transfer.Done, err error) {
	if err := update(ctx, tx, addSQL, c, c.Amount, c.Account); err != nil {
		return done, err
	}
	return done, enter(ctx, tx, c, c.Amount)
}

// GiveBack undoes Take.
func GiveBack(ctx context.Context, tx Tx, c transfer.Change) (done transfer.Done, err error) {
	if err := update(ctx, tx, backSQL, c, c.Amount, c.Account); err != nil {
		return done, err
	}
	return done, enter(ctx, tx, c, c.Amount)
}

// Hold keeps the amount for a payment: it stays in the balance, but nobody else
// can have it.
func Hold(ctx context.Context, tx Tx, c transfer.Change) (done transfer.Done, err error) {
	return done, update(ctx, tx, holdSQL, c, c.Amount, c.Account, c.Amount)
}

// Pay takes what was held.
func Pay(ctx context.Context, tx Tx, c transfer.Change) (done transfer.Done, err error) {
	if err := update(ctx, tx, paySQL, c, c.Amount, c.Amount, c.Account); err != nil {
		return done, err
	}
	return done, enter(ctx, tx, c, -c.Amount)
}

// Release gives up what was held.
func Release(ctx context.Context, tx Tx, c transfer.Change) (done transfer.Done, err error) {
	return done, update(ctx, tx, releaseSQL, c, c.Amount, c.Account)
}

// Announce promises that the amount can be received.
func Announce(ctx context.Context, tx Tx, c transfer.Change) (done transfer.Done, err error) {
	return done, update(ctx, tx, announceSQL, c, c.Amount, c.Account)
}

// Receive adds what was announced, also if the account was closed since.
func Receive(ctx context.Context, tx Tx, c transfer.Change) (done transfer.Done, err error) {
	if err := update(ctx, tx, receiveSQL, c, c.Amount, c.Amount, c.Account); err != nil {
		return done, err
	}
	return done, enter(ctx, tx, c, c.Amount)
}

// Withdraw gives up what was announced.
func Withdraw(ctx context.Context, tx Tx, c transfer.Change) (done transfer.Done, err error) {
	return done, update(ctx, tx, withdrawSQL, c, c.Amount, c.Account)
}

// update changes the account, or says why it did not.
func update(ctx context.Context, tx Tx, statement string, c transfer.Change, args ...any) error {
	res, err := tx.ExecContext(ctx, tx.Rebind(statement), args...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err != nil || n == 1 {
		return err
	}
	return refusal(ctx, tx, c)
}

func refusal(ctx context.Context, tx Tx, c transfer.Change) error {
	var closed bool
	err := sqlx.GetContext(ctx, tx, &closed, tx.Rebind(`SELECT closed FROM accounts WHERE id = ?`), c.Account)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return worker.Final(transfer.CodeUnknown, fmt.Errorf("there is no account %s", c.Account))
	case err != nil:
		return err
	case closed:
		return worker.Final(transfer.CodeClosed, fmt.Errorf("account %s is closed", c.Account))
	}
	return worker.Final(transfer.CodeNoCover, fmt.Errorf("account %s has less than %d", c.Account, c.Amount))
}

// enter writes the change down, under the run that it belongs to.
func enter(ctx context.Context, tx Tx, c transfer.Change, amount int64) error {
	_, err := tx.ExecContext(ctx, tx.Rebind(`INSERT INTO entries (transfer, account, amount) VALUES (?, ?, ?)`),
		worker.TaskFrom(ctx).RunID, c.Account, amount)
	return err
}
