package testenv

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// The variables that name services to use instead of starting any.
const (
	EnvAMQP       = "RINGMASTER_TEST_AMQP_URL"
	EnvManagement = "RINGMASTER_TEST_MANAGEMENT_URL"
	EnvPostgres   = "RINGMASTER_TEST_POSTGRES_URL"
	EnvMySQL      = "RINGMASTER_TEST_MYSQL_URL" // MariaDB or MySQL: mysql://user:password@host:port/
	EnvRedis      = "RINGMASTER_TEST_REDIS_URL"
	EnvEtcd       = "RINGMASTER_TEST_ETCD_URL"      // etcd://host:port
	EnvZooKeeper  = "RINGMASTER_TEST_ZOOKEEPER_URL" // zookeeper://host:port
	EnvCluster    = "RINGMASTER_TEST_AMQP_CLUSTER"  // addresses, with commas
)

// TB is what is needed of a testing.TB.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// The services that the tests of a process share. They are started by the
// first test that asks and ended, by their reaper, with the process.
var (
	sharedRabbit   = sync.OnceValues(findOrStartRabbit)
	sharedPostgres = sync.OnceValues(findOrStartPostgres)
	sharedMySQL    = sync.OnceValues(findOrStartMySQL)
	sharedRedis    = sync.OnceValues(findOrStartRedis)
	sharedEtcd     = sync.OnceValues(findOrStartEtcd)
	sharedZoo      = sync.OnceValues(findOrStartZooKeeper)
)

func findOrStartRabbit() (*Rabbit, error) {
	if u := os.Getenv(EnvAMQP); u != "" {
		return &Rabbit{URL: u, ManagementURL: strings.TrimSuffix(os.Getenv(EnvManagement), "/")}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	return StartRabbit(ctx, RabbitConfig{})
}

func findOrStartPostgres() (string, error) {
	if u := os.Getenv(EnvPostgres); u != "" {
		return u, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s, err := StartPostgres(ctx, PostgresConfig{})
	if err != nil {
		return "", err
	}
	return s.URL, nil
}

func findOrStartMySQL() (string, error) {
	if u := os.Getenv(EnvMySQL); u != "" {
		return u, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s, err := StartMySQL(ctx, MySQLConfig{})
	if err != nil {
		return "", err
	}
	return s.URL, nil
}

func findOrStartRedis() (string, error) {
	if u := os.Getenv(EnvRedis); u != "" {
		return u, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s, err := StartRedis(ctx, RedisConfig{})
	if err != nil {
		return "", err
	}
	return s.URL, nil
}

func findOrStartEtcd() (string, error) {
	if u := os.Getenv(EnvEtcd); u != "" {
		return u, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s, err := StartEtcd(ctx, EtcdConfig{})
	if err != nil {
		return "", err
	}
	return s.URL, nil
}

func findOrStartZooKeeper() (string, error) {
	if u := os.Getenv(EnvZooKeeper); u != "" {
		return u, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s, err := StartZooKeeper(ctx, ZooKeeperConfig{})
	if err != nil {
		return "", err
	}
	return s.URL, nil
}

// RabbitMQ returns a node that the tests of this process share, with a virtual
// host of the test's own (unless the environment gave a node without a
// management address; then tests keep apart by the names they use). Methods
// that stop or reconfigure the node fail on it: see [PrivateRabbitMQ].
func RabbitMQ(t TB) *Rabbit {
	t.Helper()
	shared, err := sharedRabbit()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	r := &Rabbit{URL: shared.URL, ManagementURL: shared.ManagementURL}
	if r.ManagementURL == "" {
		return r
	}
	name := "test-" + strings.ToLower(rand.Text()[:12])
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if r.URL, err = shared.VirtualHost(ctx, name); err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		if err := shared.DropVirtualHost(ctx, name); err != nil {
			t.Errorf("testenv: dropping the virtual host: %v", err)
		}
	})
	return r
}

// PrivateRabbitMQ starts a node for this test alone, which may stop, kill and
// starve it. It takes some seconds.
func PrivateRabbitMQ(t TB) *Rabbit {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	r, err := StartRabbit(ctx, RabbitConfig{})
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("testenv: %v", err)
		}
	})
	return r
}

// RabbitMQCluster starts a cluster of three nodes for this test alone, which
// may kill, pause and cut off each of them. It takes a quarter of a minute.
func RabbitMQCluster(t TB) *Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	c, err := StartCluster(ctx, ClusterConfig{})
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("testenv: %v", err)
		}
	})
	return c
}

// Postgres returns the address of a new, empty database on a server that the
// tests of this process share. The database is dropped when the test ends.
func Postgres(t TB) string {
	t.Helper()
	server, err := sharedPostgres()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("testenv: %s: %v", EnvPostgres, err)
	}
	name := "test_" + strings.ToLower(rand.Text()[:12])
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := pgExec(ctx, server, "CREATE DATABASE "+name); err != nil {
		t.Fatalf("testenv: making a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		if err := pgExec(ctx, server, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("testenv: dropping the database: %v", err)
		}
	})
	u.Path = "/" + name
	return u.String()
}

// MySQL returns the address, as the driver "mysql" takes it, of a new, empty
// database on a MariaDB server that the tests of this process share. The
// database is dropped when the test ends.
func MySQL(t TB) string {
	t.Helper()
	server, err := sharedMySQL()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	name := "test_" + strings.ToLower(rand.Text()[:12])
	dsn, err := mysqlDSN(server, name)
	if err != nil {
		t.Fatalf("testenv: %s: %v", EnvMySQL, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := mysqlExec(ctx, server, "CREATE DATABASE "+name+" CHARACTER SET utf8mb4"); err != nil {
		t.Fatalf("testenv: making a database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		defer cancel()
		if err := mysqlExec(ctx, server, "DROP DATABASE IF EXISTS "+name); err != nil {
			t.Errorf("testenv: dropping the database: %v", err)
		}
	})
	return dsn
}

// Redis returns the address of a Redis server that the tests of this process
// share. They keep apart by the names of their keys.
func Redis(t TB) string {
	t.Helper()
	server, err := sharedRedis()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return server
}

// Etcd returns the address of an etcd server that the tests of this process
// share. They keep apart by the names of their keys.
func Etcd(t TB) string {
	t.Helper()
	server, err := sharedEtcd()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return server
}

// ZooKeeper returns the address of a ZooKeeper server that the tests of this
// process share. They keep apart by the paths of their nodes.
func ZooKeeper(t TB) string {
	t.Helper()
	server, err := sharedZoo()
	if err != nil {
		t.Fatalf("testenv: %v", err)
	}
	return server
}
