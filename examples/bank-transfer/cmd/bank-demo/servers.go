package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/ledger"
	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// module is the path that the programs are built from.
const module = "github.com/ringmaster-dev/ringmaster"

// programs finds or builds the orchestrator and the banks' worker.
func programs(ctx context.Context, o *options, out *stage.Screen) (err error) {
	if o.bin != "" {
		o.bin, err = filepath.Abs(o.bin)
		return err
	}
	o.bin = filepath.Join(o.dir, "bin")
	if err := os.Mkdir(o.bin, 0o755); err != nil {
		return err
	}
	out.Say("building the programs")
	return stage.Build(ctx, o.bin, module+"/cmd/orchestrator", module+"/examples/bank-transfer/cmd/bank")
}

// servers are those that are not ours, but ours to kill.
type servers struct {
	rabbit   *testenv.Rabbit
	postgres *testenv.PostgresServer
	mariadb  *testenv.MySQLServer
}

func startServers(ctx context.Context, out *stage.Screen) (*servers, error) {
	out.Say("starting private servers: RabbitMQ, PostgreSQL, MariaDB")
	s := &servers{}
	errs := make([]error, 3)
	var all sync.WaitGroup
	all.Go(func() { s.rabbit, errs[0] = testenv.StartRabbit(ctx, testenv.RabbitConfig{}) })
	all.Go(func() { s.postgres, errs[1] = testenv.StartPostgres(ctx, testenv.PostgresConfig{}) })
	all.Go(func() { s.mariadb, errs[2] = testenv.StartMySQL(ctx, testenv.MySQLConfig{}) })
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *servers) close() error {
	var errs []error
	if s.rabbit != nil {
		errs = append(errs, s.rabbit.Close())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Close())
	}
	if s.mariadb != nil {
		errs = append(errs, s.mariadb.Close())
	}
	return errors.Join(errs...)
}

// database is the address of a bank's database of that name.
func (s *servers) database(bank, name string) (string, error) {
	server := s.postgres.URL
	if bank == transfer.West {
		server = s.mariadb.URL
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	u.Path = "/" + name
	return u.String(), nil
}

// createDatabase makes a bank's database of that name, and returns its address.
func (s *servers) createDatabase(ctx context.Context, bank, name string) (string, error) {
	first := "postgres"
	if bank == transfer.West {
		first = "mysql"
	}
	address, err := s.database(bank, first)
	if err != nil {
		return "", err
	}
	l, err := ledger.Open(address)
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	if _, err := l.DB().ExecContext(ctx, "CREATE DATABASE "+name); err != nil {
		return "", fmt.Errorf("create the database of %s: %w", bank, err)
	}
	return s.database(bank, name)
}
