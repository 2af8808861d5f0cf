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
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
	"github.com/ringmaster-dev/ringmaster/store/spread"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// dbFlag describes the setting that says where state is.
const dbFlag = "where all state is: a SQLite file, made if absent, or postgres://user:password@host/database"

var databaseURL = regexp.MustCompile(`^postgres(ql)?://`)

// betweenDatabases is where one URL of several ends; hosts of one URL have commas, too.
var betweenDatabases = regexp.MustCompile(`,\s*postgres(ql)?://`)

// databases are the URLs of all databases on servers, the home first.
func (s settings) databases() []string { return databasesOf(s.DB) }

func databasesOf(text string) (urls []string) {
	for {
		cut := betweenDatabases.FindStringIndex(text)
		if cut == nil {
			return append(urls, strings.TrimSpace(text))
		}
		urls = append(urls, strings.TrimSpace(text[:cut[0]]))
		text = text[cut[0]+1:]
	}
}

// onServer tells whether state is in PostgreSQL.
func (s settings) onServer() bool { return databaseURL.MatchString(s.DB) }

// checkDB refuses what is neither a file nor a PostgreSQL database.
func (s settings) checkDB() error {
	if s.onServer() {
		for _, db := range s.databases() {
			if _, err := url.Parse(db); err != nil {
				return usage("%s %q: expected postgres://user:password@host:5432/database (several with commas between)", s.origin("db"), maskedDB(s.DB))
			}
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

// maskedDB hides passwords in the addresses of databases.
func maskedDB(text string) string {
	urls := databasesOf(text)
	for i, u := range urls {
		urls[i] = maskedURL(u)
	}
	return strings.Join(urls, ",")
}

func maskedURL(text string) string {
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

// postgresConfig is a database on a server. The namespace, which sets deployments
// apart on the broker, does so there: it is the schema.
func (s settings) postgresConfig(url string, log *slog.Logger, reg prometheus.Registerer) postgres.Config {
	return postgres.Config{URL: url, Schema: s.Namespace, Shards: uint32(s.Shards), Logger: log, Registerer: reg}
}

// openStore opens the database that a setting names.
func openStore(ctx context.Context, s settings, log *slog.Logger, reg prometheus.Registerer) (st store.Store, err error) {
	if s.onServer() {
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		st, err = openServers(ctx, s, log, reg)
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

// openServers opens the database on a server, or all databases as one store.
func openServers(ctx context.Context, s settings, log *slog.Logger, reg prometheus.Registerer) (store.Store, error) {
	urls := s.databases()
	if len(urls) == 1 {
		return asStore(postgres.Open(ctx, s.postgresConfig(urls[0], log, reg)))
	}
	return asStore(openSpread(ctx, s, urls, log, reg))
}

func openSpread(ctx context.Context, s settings, urls []string, log *slog.Logger, reg prometheus.Registerer) (*spread.Store, error) {
	var stores []store.Store
	for i, u := range urls {
		of := reg
		if reg != nil {
			of = prometheus.WrapRegistererWith(prometheus.Labels{"database": strconv.Itoa(i + 1)}, reg)
		}
		one, err := postgres.Open(ctx, s.postgresConfig(u, log, of))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("database %d: %w", i+1, err), closeAll(stores))
		}
		stores = append(stores, one)
	}
	st, err := spread.New(ctx, spread.Config{Stores: stores, Logger: log})
	if err != nil {
		return nil, errors.Join(err, closeAll(stores))
	}
	return st, nil
}

func closeAll(stores []store.Store) error {
	var errs []error
	for _, st := range stores {
		errs = append(errs, st.Close())
	}
	return errors.Join(errs...)
}

// asStore is an opened store, or none at all.
func asStore[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}
