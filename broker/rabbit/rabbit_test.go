package rabbit_test

import (
	"context"
	"testing"

	"github.com/ringmaster-dev/ringmaster/broker/brokertest"
	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

func TestConformance(t *testing.T) {
	node := testenv.PrivateRabbitMQ(t)
	b, err := rabbit.New(rabbit.Config{URLs: []string{node.URL}})
	if err != nil {
		t.Fatal(err)
	}
	brokertest.Run(t, brokertest.Harness{
		Broker:  b,
		Restart: node.Restart,
		KillConnections: func(ctx context.Context, name string) error {
			_, err := node.KillConnections(ctx, name)
			return err
		},
		SetBlocked: node.SetAlarm,
		DeleteQueue: func(ctx context.Context, queue string) error {
			_, err := node.Control(ctx, "delete_queue", queue)
			return err
		},
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	br, err := rabbit.New(rabbit.Config{URLs: []string{testenv.RabbitMQ(b).URL}})
	if err != nil {
		b.Fatal(err)
	}
	brokertest.BenchmarkRoundTrip(b, br)
}
