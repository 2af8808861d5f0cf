package testenv

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"
)

// MySQLServer is a MariaDB server that was started here.
type MySQLServer struct {
	// URL is its address, mysql://user@host:port/, as a user who may do
	// everything.
	URL string

	node   serverNode
	bin    string
	extra  []string
	reaper *reaper
	server *process
}

// MySQLConfig says how to start a server. The zero value works.
type MySQLConfig struct {
	// Dir is where the server keeps everything. Empty is a new temporary
	// directory, which Close removes.
	Dir string
	// Options are added to the server's command line, as "--name=value".
	Options []string
	// Detached leaves the server running when this process ends.
	Detached bool
}

// mysqlUser is whom tests connect as, without a password, from the loopback
// interface.
const mysqlUser = "ringmaster"

// StartMySQL makes a MariaDB server of its own, with commits as durable as its
// defaults, and waits until it answers.
func StartMySQL(ctx context.Context, cfg MySQLConfig) (*MySQLServer, error) {
	bin, err := ensure(ctx, "mariadbd", "mariadb-server", "/usr/sbin", "/usr/local/opt/mariadb*/bin", "/opt/homebrew/opt/mariadb*/bin")
	if err != nil {
		return nil, err
	}
	dir, err := serviceDir(cfg.Dir, "ringmaster-mariadb-")
	if err != nil {
		return nil, err
	}
	s := &MySQLServer{node: serverNode{Dir: dir}, bin: bin, extra: cfg.Options}
	if !cfg.Detached {
		if s.reaper, err = newReaper(dir); err != nil {
			return nil, err
		}
	}
	if err := s.install(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	// The port may have been taken since it was found free: try again.
	for attempt := 1; ; attempt++ {
		ports, err := freePorts(1)
		if err == nil {
			s.node.Port = ports[0]
			s.URL = fmt.Sprintf("mysql://%s@127.0.0.1:%d/", mysqlUser, s.node.Port)
			err = s.Start(ctx)
		}
		if err == nil {
			return s, nil
		}
		if attempt == 3 || ctx.Err() != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
}

// install makes the system tables.
func (s *MySQLServer) install(ctx context.Context) error {
	const program = "mariadb-install-db"
	dir, ok := findProgram(program, s.bin, "/usr/bin")
	if !ok {
		return fmt.Errorf("%s is missing beside mariadbd", program)
	}
	if err := os.WriteFile(s.initFile(), []byte("CREATE USER IF NOT EXISTS '"+mysqlUser+"'@'127.0.0.1';\n"+
		"GRANT ALL ON *.* TO '"+mysqlUser+"'@'127.0.0.1' WITH GRANT OPTION;\n"), 0o644); err != nil {
		return err
	}
	args := append([]string{"--no-defaults"}, s.options()...)
	args = append(args, "--auth-root-authentication-method=normal", "--skip-test-db")
	cmd := exec.CommandContext(ctx, filepath.Join(dir, program), args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, tail(string(out), 20))
	}
	return nil
}

func (s *MySQLServer) initFile() string { return filepath.Join(s.node.Dir, "init.sql") }

// options are those of the installation and of the server.
func (s *MySQLServer) options() []string {
	o := []string{"--datadir=" + filepath.Join(s.node.Dir, "data"), "--tmpdir=" + s.node.Dir,
		"--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M"}
	if os.Geteuid() == 0 {
		o = append(o, "--user=root") // it refuses to be root unless told so
	}
	return o
}

// Start starts the server again after Kill, on the same port and with the same
// data, and waits until it answers.
func (s *MySQLServer) Start(ctx context.Context) error {
	logfile := filepath.Join(s.node.Dir, "server.log")
	// A relative socket lies in the data directory: its path is never too long.
	args := append([]string{"--no-defaults"}, s.options()...)
	args = append(args, "--port="+strconv.Itoa(s.node.Port), "--bind-address=127.0.0.1", "--socket=socket",
		"--skip-name-resolve", "--max-connections=300", "--performance-schema=OFF", "--init-file="+s.initFile())
	args = append(args, s.extra...)
	cmd := exec.Command(filepath.Join(s.bin, "mariadbd"), args...)
	cmd.Dir = s.node.Dir
	p, err := start(cmd, logfile, s.reaper)
	if err != nil {
		return err
	}
	s.server, s.node.ServerPID = p, p.pid()
	if err := poll(ctx, p.exited, func() error { return mysqlExec(ctx, s.URL, "DO 1") }); err != nil {
		s.Kill()
		return fmt.Errorf("starting MariaDB: %w\n%s", err, tailFile(logfile))
	}
	return nil
}

// Kill ends the server as a crash would (SIGKILL).
func (s *MySQLServer) Kill() {
	if s.server != nil {
		s.server.signal(syscall.SIGKILL)
		<-s.server.exited
		s.server = nil
	}
}

// Close ends the server and removes its directory.
func (s *MySQLServer) Close() error {
	s.Kill()
	s.reaper.done()
	return os.RemoveAll(s.node.Dir)
}

// DSN is the address of a database of the server in the form that the driver
// "mysql" takes.
func (s *MySQLServer) DSN(database string) string {
	dsn, err := mysqlDSN(s.URL, database)
	if err != nil {
		panic(err) // it is our own address
	}
	return dsn
}

// mysqlDSN turns an address into what the driver takes.
func mysqlDSN(address, database string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "mysql" {
		return "", fmt.Errorf("%q is not an address like mysql://user:password@host:port/: %w", address, err)
	}
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.DBName = "tcp", u.Host, database
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	if !strings.Contains(cfg.Addr, ":") {
		cfg.Addr += ":3306"
	}
	return cfg.FormatDSN(), nil
}

// mysqlExec runs one statement on a connection of its own.
func mysqlExec(ctx context.Context, address, query string) error {
	dsn, err := mysqlDSN(address, "")
	if err != nil {
		return err
	}
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return err
	}
	cfg.Logger = &mysql.NopLogger{} // a server that is not up yet is no news
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(c)
	_, err = db.ExecContext(ctx, query)
	return errors.Join(err, db.Close())
}
