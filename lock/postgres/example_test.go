package postgres_test

import (
	"context"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/postgres"
)

// Work is done while a lease is held, whose token tells it from that of earlier holders.
func Example() {
	ctx := context.Background()
	server, err := testenv.StartPostgres(ctx, testenv.PostgresConfig{}) // a server of its own for this example
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close() }()

	provider, err := postgres.New(ctx, postgres.Config{URL: server.URL, Schema: "billing"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = provider.Close() }()
	session, err := provider.Open(ctx, lock.SessionConfig{Owner: "billing on host-7", TTL: 10 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = session.Close(ctx) }()

	var last uint64
	for range 2 {
		err := lock.Hold(ctx, session, "invoices/2026-01", func(ctx context.Context, token uint64) error {
			// Work while ctx lives, and give the token to what can refuse a lower one.
			fmt.Println("the token is higher than the last:", token > last)
			last = token
			return ctx.Err()
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// the token is higher than the last: true
	// the token is higher than the last: true
}
