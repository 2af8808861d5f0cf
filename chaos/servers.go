package main

import (
	"context"
	"errors"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// servers are those of others: RabbitMQ and PostgreSQL.
type servers struct {
	rabbits  []*testenv.Rabbit
	amqp     []string // of each node
	postgres *testenv.PostgresServer
}

func startServers(ctx context.Context, r *rig) (*servers, error) {
	s := &servers{}
	r.out.Say("starting %d RabbitMQ nodes", r.o.rabbits)
	node, err := testenv.StartRabbit(ctx, testenv.RabbitConfig{})
	if err != nil {
		return s, err
	}
	s.rabbits, s.amqp = append(s.rabbits, node), append(s.amqp, node.URL)
	if r.o.store == "sqlite" {
		return s, nil
	}
	r.out.Say("starting PostgreSQL")
	s.postgres, err = testenv.StartPostgres(ctx, testenv.PostgresConfig{
		Dir:      r.store.under("postgres"),
		Settings: map[string]string{"max_wal_size": "256MB"},
	})
	return s, err
}

func (s *servers) close() error {
	if s == nil {
		return nil
	}
	var errs []error
	if s.postgres != nil {
		_ = s.postgres.Resume() // an error says that it does not run
		errs = append(errs, s.postgres.Close())
	}
	for _, node := range s.rabbits {
		errs = append(errs, node.Close())
	}
	return errors.Join(errs...)
}
