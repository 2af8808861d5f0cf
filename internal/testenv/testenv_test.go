package testenv_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// childDir tells the test binary to be the child of TestServicesEndWithTheProcess.
const childDir = "TESTENV_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child starts a server, says where, and waits to be killed.
func child(dir string) {
	s, err := testenv.StartPostgres(context.Background(), testenv.PostgresConfig{Dir: dir})
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString(s.URL + "\n")
	select {}
}

func ping(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return c.Close(ctx)
}

func TestEveryTestGetsADatabaseOfItsOwn(t *testing.T) {
	a, b := testenv.Postgres(t), testenv.Postgres(t)
	if a == b {
		t.Fatalf("two calls gave the same database %s", a)
	}
	for _, url := range []string{a, b} {
		if err := ping(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestASharedNodeIsNotStopped(t *testing.T) {
	r := testenv.RabbitMQ(t)
	if err := r.Stop(t.Context()); err == nil {
		t.Fatal("a shared node was stopped")
	}
	c, err := amqp.Dial(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAServiceEndsWithTheProcessThatStartedIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pg")
	// The server's user must be able to reach its directory.
	for d := filepath.Dir(dir); strings.Contains(d, t.Name()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 200)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	url := strings.TrimSpace(string(line[:n]))
	if err := ping(url); err != nil {
		t.Fatalf("the child's server: %v", err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, err := os.Stat(dir)
		if os.IsNotExist(err) && ping(url) != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the server outlived the process that started it")
		}
	}
}

func TestDetachedServicesAreFoundAgainAndStopped(t *testing.T) {
	t.Setenv(testenv.EnvPostgres, "")
	t.Setenv(testenv.EnvAMQP, "")
	t.Setenv(testenv.EnvMySQL, "")
	t.Setenv(testenv.EnvRedis, "")
	t.Setenv(testenv.EnvEtcd, "")
	t.Setenv(testenv.EnvZooKeeper, "")
	dir, err := os.MkdirTemp("", "ringmaster-session-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := testenv.StartSession(t.Context(), testenv.Services{RabbitMQ: true, Postgres: true, MySQL: true, Redis: true, Etcd: true, ZooKeeper: true}, dir)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for _, e := range s.Env {
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	if err := ping(env[testenv.EnvPostgres]); err != nil {
		t.Errorf("PostgreSQL: %v", err)
	}
	c, err := amqp.Dial(env[testenv.EnvAMQP])
	if err != nil {
		t.Errorf("RabbitMQ: %v", err)
	} else {
		_ = c.Close()
	}
	others := []string{env[testenv.EnvMySQL], env[testenv.EnvRedis], env[testenv.EnvEtcd], env[testenv.EnvZooKeeper]}
	for _, address := range others {
		if !listens(address) {
			t.Errorf("nothing listens at %q", address)
		}
	}
	if err := testenv.StopSession(dir); err != nil {
		t.Fatal(err)
	}
	for _, address := range others {
		if listens(address) {
			t.Errorf("%s still answers", address)
		}
	}
	if ping(env[testenv.EnvPostgres]) == nil {
		t.Error("PostgreSQL still answers")
	}
	if c, err := amqp.Dial(env[testenv.EnvAMQP]); err == nil {
		_ = c.Close()
		t.Error("RabbitMQ still answers")
	}
	if err := testenv.StopSession(dir); err != nil {
		t.Errorf("stopping again: %v", err)
	}
}

// listens tells whether somebody accepts connections at the host of an address.
func listens(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	c, err := net.Dial("tcp4", u.Host)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// database is a server that can be killed and started again.
type database interface {
	Kill()
	Start(ctx context.Context) error
	Close() error
}

func TestWhatADatabaseCommittedSurvivesAKill(t *testing.T) {
	for name, open := range map[string]func(*testing.T) (database, *sql.DB, error){
		"MariaDB": func(t *testing.T) (database, *sql.DB, error) {
			s, err := testenv.StartMySQL(t.Context(), testenv.MySQLConfig{})
			if err != nil {
				return nil, nil, err
			}
			db, err := sql.Open("mysql", s.DSN("mysql"))
			return s, db, err
		},
		"PostgreSQL": func(t *testing.T) (database, *sql.DB, error) {
			s, err := testenv.StartPostgres(t.Context(), testenv.PostgresConfig{})
			if err != nil {
				return nil, nil, err
			}
			db, err := sql.Open("pgx", s.URL)
			return s, db, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, db, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := errors.Join(db.Close(), s.Close()); err != nil {
					t.Error(err)
				}
			}()
			db.SetMaxIdleConns(0) // none is left to be broken
			for _, query := range []string{`CREATE TABLE survivor (n INT)`, `INSERT INTO survivor VALUES (42)`} {
				if _, err := db.Exec(query); err != nil {
					t.Fatal(err)
				}
			}
			s.Kill()
			if err := db.Ping(); err == nil {
				t.Error("it answers after it was killed")
			}
			if err := s.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			var n int
			if err := db.QueryRow(`SELECT n FROM survivor`).Scan(&n); err != nil || n != 42 {
				t.Fatalf("%d, %v", n, err)
			}
		})
	}
}
