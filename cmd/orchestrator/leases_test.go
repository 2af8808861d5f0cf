package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// Wherever the leases are kept, two orchestrators share the shards of a database,
// and one that stops leaves its own to the other.
func TestOrchestratorsShareShardsByTheLeasesOfAnyProvider(t *testing.T) {
	for name, leases := range map[string]string{
		"the database": "",
		"Redis":        testenv.Redis(t),
		"etcd":         testenv.Etcd(t),
		"ZooKeeper":    testenv.ZooKeeper(t),
	} {
		t.Run(name, func(t *testing.T) {
			s := settings{
				DB: testenv.Postgres(t), Leases: leases, LeaseTime: 5 * time.Second, AMQPURL: testenv.RabbitMQ(t).URL, Shards: 4,
				Namespace: "share" + strings.ToLower(strings.ReplaceAll(name, " ", "-")) + fmt.Sprint(time.Now().UnixNano()),
				// The rest as by default, or quicker.
				Listen: defaultListen, LogLevel: "info", LogFormat: "text", HeartbeatInterval: 200 * time.Millisecond, MaxPayloadBytes: 1 << 20, MaxBatchBytes: 1 << 20,
				MaxUnfinished: 1000, MaxStarting: 1000, MaxResidentRuns: 1000, MaxItems: 100, MaxChildDepth: 8, MaxLocks: 8, MaxLockWaiters: 8,
			}
			if err := s.validate(); err != nil {
				t.Fatal(err)
			}
			first, second := startNode(t, s), startNode(t, s)
			owns(t, "one half each", func() bool { return len(first.engine.Shards()) == 2 && len(second.engine.Shards()) == 2 })
			if err := first.engine.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			owns(t, "all for who is left", func() bool { return len(second.engine.Shards()) == 4 })
		})
	}
}

func startNode(t *testing.T, s settings) *node {
	t.Helper()
	n, err := newNode(t.Context(), s, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.engine.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.engine.Stop(context.Background()) }) // perhaps for the second time
	return n
}

func owns(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}
