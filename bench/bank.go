package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"

	_ "github.com/go-sql-driver/mysql" // the driver of MariaDB
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of PostgreSQL
	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
	"github.com/ringmaster-dev/ringmaster/worker/xa"
)

// The two participants on real databases, each a service of its own.
const (
	onPostgres = "postgres"
	onMariaDB  = "mariadb"
)

var participants = []string{onPostgres, onMariaDB}

// bankConcurrency is how many handlers a bank's worker has side by side, and how many
// transactions are side by side where the databases are measured by themselves.
const bankConcurrency = 32

// What the participants do, in as few words as there are: one row is written by a
// prepare, and of a TCC changed by a confirm. No two runs meet at a row.
const (
	bankTable   = `CREATE TABLE IF NOT EXISTS entries (id VARCHAR(64) PRIMARY KEY, amount BIGINT NOT NULL, state INT NOT NULL)`
	bankInsert  = `INSERT INTO entries (id, amount, state) VALUES (?, 100, 0)`
	bankConfirm = `UPDATE entries SET state = 1 WHERE id = ?`
	bankCancel  = `DELETE FROM entries WHERE id = ?`
)

// parts are the three tasks of a participant.
type parts = xa.Tasks[map[string]any, struct{}]

func reserves(service string) parts { return xa.NewTasks[map[string]any, struct{}](service, "reserve") }
func branches(service string) parts { return xa.NewTasks[map[string]any, struct{}](service, "branch") }

// onDatabases adds a participant on each database to a TCC or a two-phase commit.
func onDatabases(b *definitions.TransactionBuilder, of func(service string) parts) *definitions.Workflow {
	for _, service := range participants {
		t := of(service)
		b.Participant(service).PrepareTask(t.Prepare).CommitTask(t.Commit).AbortTask(t.Abort)
	}
	return b.MustBuild()
}

// banks are the databases.
type banks struct {
	postgres *testenv.PostgresServer
	mariadb  *testenv.MySQLServer
}

// startBanks starts private servers, whose commits are as durable as they are by
// default, which is wholly.
func startBanks(ctx context.Context) (*banks, error) {
	s := &banks{}
	var err error
	if s.postgres, err = testenv.StartPostgres(ctx, testenv.PostgresConfig{}); err == nil {
		s.mariadb, err = testenv.StartMySQL(ctx, testenv.MySQLConfig{})
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	for service, make := range map[string]string{onPostgres: "CREATE DATABASE bench", onMariaDB: "CREATE DATABASE bench"} {
		if err := s.execute(ctx, service, "", make); err != nil {
			return nil, errors.Join(err, s.close())
		}
		if err := s.execute(ctx, service, "bench", bankTable); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

func (s *banks) close() error {
	var errs []error
	if s.postgres != nil {
		errs = append(errs, s.postgres.Close())
	}
	if s.mariadb != nil {
		errs = append(errs, s.mariadb.Close())
	}
	return errors.Join(errs...)
}

// address is where a database of a participant is, as its driver takes it.
func (s *banks) address(service, database string) string {
	if service == onMariaDB {
		return s.mariadb.DSN(database)
	}
	if database == "" {
		return s.postgres.URL
	}
	return strings.Replace(s.postgres.URL, "/postgres?", "/"+database+"?", 1)
}

// execute runs a statement at a participant.
func (s *banks) execute(ctx context.Context, service, database, query string) error {
	db, err := openBank(service, s.address(service, database))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, query); err != nil {
		return fmt.Errorf("%s: %w", service, err)
	}
	return nil
}

func openBank(service, address string) (*sqlx.DB, error) {
	driver := "pgx"
	if service == onMariaDB {
		driver = "mysql"
	}
	db, err := sqlx.Open(driver, address)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", service, err)
	}
	db.SetMaxIdleConns(2 * bankConcurrency)
	return db, nil
}

// startBankWorkers starts a worker for each participant.
func (s *system) startBankWorkers(ctx context.Context, at *banks) error {
	for _, service := range participants {
		w, err := spawn(ctx, service, s.dir, s.b.self, false, "bank", "--amqp-url", s.amqpURL, "--namespace", s.namespace(),
			"--service", service, "--database", at.address(service, "bench"))
		if err != nil {
			return err
		}
		s.workers = append(s.workers, w)
	}
	return s.awaitWorkers(ctx, len(participants))
}

// bankMain is the worker of a participant.
func bankMain(ctx context.Context, fs *flag.FlagSet, args []string) error {
	url := fs.String("amqp-url", "", "")
	namespace := fs.String("namespace", "", "")
	service := fs.String("service", "", "")
	database := fs.String("database", "", "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	broker, err := rabbit.New(rabbit.Config{URLs: []string{*url}})
	if err != nil {
		return err
	}
	db, err := openBank(*service, *database)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	w, err := worker.New(worker.Config{
		Broker: broker, Namespace: *namespace, Name: *service, Service: *service, Concurrency: bankConcurrency,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	if err := handleBank(ctx, w, db, *service); err != nil {
		return err
	}
	return w.Run(ctx)
}

// handleBank registers a participant's handlers: of two-phase commits through
// worker/xa, of TCCs through worker/inbox.
func handleBank(ctx context.Context, w *worker.Worker, db *sqlx.DB, service string) error {
	at, key := xa.Postgres, inbox.Postgres
	if service == onMariaDB {
		at, key = xa.MySQL, inbox.MySQL
	}
	p, err := xa.New(ctx, db, at, xa.Options{})
	if err != nil {
		return err
	}
	box, err := inbox.New(ctx, db, key, inbox.Options{})
	if err != nil {
		return err
	}
	xa.Handle(w, p, branches(service), func(ctx context.Context, tx *xa.Tx, _ map[string]any) (out struct{}, err error) {
		_, err = tx.ExecContext(ctx, tx.Rebind(bankInsert), worker.TaskFrom(ctx).RunID)
		return out, err
	})
	once := func(task definitions.Task[map[string]any, struct{}], query string) {
		inbox.Handle(w, box, task, func(ctx context.Context, tx *sqlx.Tx, _ map[string]any) (out struct{}, err error) {
			_, err = tx.ExecContext(ctx, tx.Rebind(query), worker.TaskFrom(ctx).RunID)
			return out, err
		})
	}
	tasks := reserves(service)
	once(tasks.Prepare, bankInsert)
	once(tasks.Commit, bankConfirm)
	once(tasks.Abort, bankCancel)
	return nil
}
