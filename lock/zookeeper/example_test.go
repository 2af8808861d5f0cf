package zookeeper_test

import (
	"context"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/zookeeper"
)

// A standby waits until the leader has gone.
func Example() {
	ctx := context.Background()
	server, err := testenv.StartZooKeeper(ctx, testenv.ZooKeeperConfig{}) // a server of its own for this example
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close() }()

	provider, err := zookeeper.New(zookeeper.Config{Servers: servers(server.URL), Path: "/billing/locks"})
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

	first, err := session.Lock(ctx, "leader")
	if err != nil {
		fmt.Println(err)
		return
	}
	standby, err := provider.Open(ctx, lock.SessionConfig{Owner: "standby"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = standby.Close(ctx) }()
	leads := make(chan lock.Lease)
	go func() {
		l, err := standby.Lock(ctx, "leader") // waits for its turn
		if err != nil {
			fmt.Println(err)
		}
		leads <- l
	}()
	_ = session.Close(ctx) // ends whatever it holds
	<-first.Lost()
	second := <-leads
	fmt.Println("the standby leads, under a higher token:", second.Token() > first.Token())
	// Output: the standby leads, under a higher token: true
}
