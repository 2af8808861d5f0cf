package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// servers are those of others: RabbitMQ and PostgreSQL.
type servers struct {
	rabbits  []*testenv.Rabbit
	cluster  *testenv.Cluster // nil: there is one node
	postgres *testenv.PostgresServer
	dirs     []string // of RabbitMQ and of PostgreSQL
}

func startServers(ctx context.Context, r *rig) (*servers, error) {
	s := &servers{dirs: []string{r.path("rabbitmq"), r.store.under("postgres")}}
	r.out.Say("starting RabbitMQ")
	if err := s.startRabbit(ctx, s.dirs[0], r.o.rabbits); err != nil || r.o.store == "sqlite" {
		return s, err
	}
	r.out.Say("starting PostgreSQL")
	var err error
	s.postgres, err = testenv.StartPostgres(ctx, testenv.PostgresConfig{
		Dir:      s.dirs[1],
		Settings: map[string]string{"max_wal_size": "256MB"},
	})
	return s, err
}

// startRabbit starts one node, or the three of a cluster.
func (s *servers) startRabbit(ctx context.Context, dir string, nodes int) (err error) {
	if nodes == 1 {
		node, err := testenv.StartRabbit(ctx, testenv.RabbitConfig{Dir: dir})
		if err == nil {
			s.rabbits = []*testenv.Rabbit{node}
		}
		return err
	}
	if s.cluster, err = testenv.StartCluster(ctx, testenv.ClusterConfig{Dir: dir}); err == nil {
		s.rabbits = s.cluster.Nodes
	}
	return err
}

// saveLogs copies the servers' logs, which go with the servers, into a directory.
func (s *servers) saveLogs(into string) error {
	var errs []error
	for _, dir := range s.dirs {
		errs = append(errs, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".log" {
				return nil //nolint:nilerr // it may be gone already, or be of no interest
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(filepath.Dir(dir), path)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(into, strings.ReplaceAll(name, string(filepath.Separator), "-")), text, 0o644)
		}))
	}
	return errors.Join(errs...)
}

// close ends the servers; their logs are saved in a directory if it is named.
func (s *servers) close(logs string) error {
	if s == nil {
		return nil
	}
	var errs []error
	if logs != "" {
		errs = append(errs, s.saveLogs(logs))
	}
	if s.postgres != nil {
		_ = s.postgres.Resume() // an error says that it does not run
		errs = append(errs, s.postgres.Close())
	}
	if s.cluster != nil {
		return errors.Join(append(errs, s.cluster.Close())...)
	}
	for _, node := range s.rabbits {
		errs = append(errs, node.Close())
	}
	return errors.Join(errs...)
}
