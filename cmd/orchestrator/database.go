package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// dbFlag describes the setting that says where state is.
const dbFlag = "where all state is: a SQLite file, made if absent, or postgres://user:password@host/database"

var databaseURL = regexp.MustCompile(`^postgres(ql)?://`)

// onServer tells whether state is in PostgreSQL.
func (s settings) onServer() bool { return databaseURL.MatchString(s.DB) }

// checkDB refuses what is neither a file nor a PostgreSQL database.
func (s settings) checkDB() error {
	if s.onServer() {
		if _, err := url.Parse(s.DB); err != nil {
			return usage("%s %q: expected postgres://user:password@host:5432/database", s.origin("db"), maskedDB(s.DB))
		}
		return nil
	}
	if scheme, _, ok := strings.Cut(s.DB, "://"); ok && scheme != "file" {
		return usage("%s %q: expected the path of a SQLite file, or postgres://user:password@host:5432/database", s.origin("db"), maskedDB(s.DB))
	}
	return nil
}

// file is the path of the SQLite file.
func (s settings) file() string { return strings.TrimPrefix(s.DB, "file://") }

// maskedDB hides passwords in the address of a database.
func maskedDB(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	u, err := url.Parse(text)
	if err != nil {
		scheme, _, _ := strings.Cut(text, "://")
		return scheme + "://***" // who knows where the password is
	}
	q := u.Query()
	for name := range q {
		if strings.Contains(name, "password") {
			q.Set(name, "***")
		}
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "%2A%2A%2A", "***")
	return strings.Replace(u.Redacted(), ":xxxxx@", ":***@", 1)
}

// postgresConfig is the database on a server. The namespace, which sets deployments
// apart on the broker, does so there: it is the schema.
func (s settings) postgresConfig(log *slog.Logger, reg prometheus.Registerer) postgres.Config {
	return postgres.Config{URL: s.DB, Schema: s.Namespace, Shards: uint32(s.Shards), Logger: log, Registerer: reg}
}

// openStore opens the database that a setting names.
func openStore(ctx context.Context, s settings, log *slog.Logger, reg prometheus.Registerer) (st store.Store, err error) {
	if s.onServer() {
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		st, err = asStore(postgres.Open(ctx, s.postgresConfig(log, reg)))
	} else {
		path := s.file()
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return nil, fmt.Errorf("make the folder of the database: %w", err)
		}
		st, err = asStore(sqlite.Open(ctx, sqlite.Config{Path: path, Shards: uint32(s.Shards), Logger: log, Registerer: reg}))
	}
	switch {
	case errors.Is(err, store.ErrLocked):
		return nil, fmt.Errorf("%w\nAnother orchestrator has this database open; stop it, or give another file with --db", err)
	case errors.Is(err, store.ErrNewerSchema):
		return nil, fmt.Errorf("%w\nA newer version of this program wrote the database; use that one", err)
	case errors.Is(err, store.ErrShardCount):
		return nil, fmt.Errorf("%w\nThe number is fixed when the database is made; leave --shards out", err)
	}
	return st, err
}

// asStore is an opened store, or none at all.
func asStore[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}
