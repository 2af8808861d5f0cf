package redis_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/redis"
)

// Who finds a lease held does something else.
func Example() {
	ctx := context.Background()
	server, err := testenv.StartRedis(ctx, testenv.RedisConfig{}) // a server of its own for this example
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close() }()

	provider, err := redis.New(redis.Config{URLs: []string{server.URL}}) // or those of three independent nodes
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

	lease, err := session.TryLock(ctx, "nightly-report")
	if err != nil {
		fmt.Println(err)
		return
	}
	other, err := provider.Open(ctx, lock.SessionConfig{Owner: "billing on host-8"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = other.Close(ctx) }()
	_, err = other.TryLock(ctx, "nightly-report")
	fmt.Println(errors.Is(err, lock.ErrHeld))
	fmt.Println(lease.Release(ctx))
	// Output:
	// true
	// <nil>
}
