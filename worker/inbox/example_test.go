package inbox_test

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/redis/go-redis/v9"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

type Withdrawal struct {
	Account string `json:"account"`
	Cents   int64  `json:"cents"`
}

var Withdraw = definitions.NewTask[Withdrawal, int64]("bank", "bank.withdraw")

// A handler whose accounts are in Redis. The script looks before it writes.
func ExampleHandleRedis() {
	register := func(w *worker.Worker, client *redis.Client) error {
		box, err := inbox.NewRedis(func(ctx context.Context, args ...any) (any, error) {
			return client.Do(ctx, args...).Result()
		}, inbox.RedisOptions{})
		if err != nil {
			return err
		}
		inbox.HandleRedis(w, box, Withdraw, func(_ context.Context, in Withdrawal) (inbox.Effect, error) {
			return inbox.Effect{
				Script: `
					local balance = tonumber(redis.call('GET', KEYS[1]) or '0')
					if balance < tonumber(ARGV[1]) then
						return reject('no_cover', 'the balance is ' .. balance)
					end
					return redis.call('DECRBY', KEYS[1], ARGV[1])`,
				Keys: []string{"account:" + in.Account},
				Args: []any{in.Cents},
			}, nil
		})
		return nil
	}
	_ = register
}

type Booking struct {
	Seat string `json:"seat"`
}

type Ticket struct {
	Number int64 `json:"number"`
}

var Book = definitions.NewTask[Booking, Ticket]("seats", "seats.book")

// A handler that books a seat in its own database. However often the task is
// delivered, the seat is booked once, and every delivery gets the same ticket.
func ExampleHandle() {
	register := func(ctx context.Context, w *worker.Worker, db *sqlx.DB) error {
		box, err := inbox.New(ctx, db, inbox.SQLite, inbox.Options{})
		if err != nil {
			return err
		}
		inbox.Handle(w, box, Book, func(ctx context.Context, tx *sqlx.Tx, in Booking) (Ticket, error) {
			res, err := tx.ExecContext(ctx, `INSERT INTO seats (name) VALUES (?)`, in.Seat)
			if err != nil {
				return Ticket{}, err
			}
			n, err := res.LastInsertId()
			return Ticket{Number: n}, err
		})
		return nil
	}
	_ = register
}

// Do is what Handle does, for handlers that are not typed.
func ExampleInbox_Do() {
	ctx := context.Background()
	db := sqlx.MustOpen("sqlite3", ":memory:")
	defer db.Close()
	db.SetMaxOpenConns(1)
	box, err := inbox.New(ctx, db, inbox.SQLite, inbox.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	calls := 0
	for attempt := uint32(1); attempt <= 3; attempt++ {
		ctx := worker.WithTask(ctx, worker.TaskInfo{
			RunID: "order-1", Step: "book", Phase: protocol.PhaseAction, Generation: 1, Attempt: attempt,
		})
		out, err := box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
			calls++
			return fmt.Appendf(nil, `{"number":%d}`, calls), nil
		})
		fmt.Println(string(out), err)
	}
	// Output:
	// {"number":1} <nil>
	// {"number":1} <nil>
	// {"number":1} <nil>
}

// A worker that was paused and given up wakes up after the lock has passed on:
// its token is lower than the one that has been here since.
func ExampleInbox_Do_fencing() {
	ctx := context.Background()
	db := sqlx.MustOpen("sqlite3", ":memory:")
	defer db.Close()
	db.SetMaxOpenConns(1)
	box, err := inbox.New(ctx, db, inbox.SQLite, inbox.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, task := range []struct {
		run, step string
		token     uint64
	}{{"transfer-1", "debit", 41}, {"transfer-2", "debit", 42}, {"transfer-1", "credit", 41}} {
		ctx := worker.WithTask(ctx, worker.TaskInfo{
			RunID: task.run, Step: task.step, Phase: protocol.PhaseAction, Generation: 1, Attempt: 1,
			Tokens: []protocol.Token{{Name: "account/7", Token: task.token}},
		})
		_, err := box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
			// What is not in this database can compare the token itself.
			fmt.Println(task.run, task.step, "with token", worker.TaskFrom(ctx).Token("account/7"))
			return nil, nil
		})
		if err != nil {
			fmt.Println(task.run, task.step, "refused:", err)
		}
	}
	// Output:
	// transfer-1 debit with token 41
	// transfer-2 debit with token 42
	// transfer-1 credit refused: token 41 of account/7 is below 42, which has been here: another has taken its place
}
