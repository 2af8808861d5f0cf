package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// PostgresServer is a PostgreSQL server that was started here.
type PostgresServer struct {
	// URL is the address of its database "postgres", as superuser.
	URL string

	node   serverNode
	reaper *reaper
	server *process
}

// PostgresConfig says how to start a server. The zero value works.
type PostgresConfig struct {
	// Dir is where the server keeps everything. Empty is a new temporary
	// directory, which Close removes.
	Dir string
	// Settings are added as "-c name=value".
	Settings map[string]string
	// Detached leaves the server running when this process ends.
	Detached bool
}

// StartPostgres makes a database cluster of its own, with commits as durable
// as PostgreSQL's defaults, and waits until it answers. A root process runs it
// as the user postgres, since PostgreSQL refuses to run as root.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*PostgresServer, error) {
	bin, err := ensure(ctx, "initdb", "postgresql", "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin",
		"/usr/local/opt/postgresql*/bin", "/opt/homebrew/opt/postgresql*/bin")
	if err != nil {
		return nil, err
	}
	dir, err := serviceDir(cfg.Dir, "ringmaster-postgres-")
	if err != nil {
		return nil, err
	}
	s := &PostgresServer{node: serverNode{Dir: dir}}
	if !cfg.Detached {
		if s.reaper, err = newReaper(dir); err != nil {
			return nil, err
		}
	}
	if err := s.start(ctx, bin, cfg.Settings); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *PostgresServer) start(ctx context.Context, bin string, settings map[string]string) error {
	dir := s.node.Dir
	data, logfile := filepath.Join(dir, "data"), filepath.Join(dir, "server.log")
	cred, err := prepareDir(dir, data)
	if err != nil {
		return err
	}
	prepare := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TZ=UTC"}
		if cred != nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		}
		return cmd
	}
	initdb := prepare(exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data,
		"-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"))
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, tail(string(out), 20))
	}
	for attempt := 1; ; attempt++ {
		ports, err := freePorts(1)
		if err != nil {
			return err
		}
		s.node.Port = ports[0]
		s.URL = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.node.Port)
		args := []string{"-D", data, "-p", strconv.Itoa(s.node.Port),
			"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
			"-c", "max_connections=200", "-c", "max_prepared_transactions=100"}
		for k, v := range settings {
			args = append(args, "-c", k+"="+v)
		}
		p, err := start(prepare(exec.Command(filepath.Join(bin, "postgres"), args...)), logfile, s.reaper)
		if err != nil {
			return err
		}
		s.server, s.node.ServerPID = p, p.pid()
		err = poll(ctx, p.exited, func() error { return pgExec(ctx, s.URL, "SELECT 1") })
		if err == nil {
			return nil
		}
		// The port may have been taken since it was found free: try again.
		if attempt == 3 || ctx.Err() != nil {
			return fmt.Errorf("starting PostgreSQL: %w\n%s", err, tailFile(logfile))
		}
	}
}

// prepareDir makes the directories and says as whom to run (nil: as ourselves).
func prepareDir(dir, data string) (*syscall.Credential, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{dir, data} {
		if err := os.Chown(d, int(uid), int(gid)); err != nil {
			return nil, err
		}
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// Kill ends the server as a crash would: at once, without a checkpoint.
func (s *PostgresServer) Kill() {
	if s.server != nil {
		s.server.signal(syscall.SIGQUIT)
		<-s.server.exited
		s.server = nil
	}
}

// Close ends the server and removes its directory.
func (s *PostgresServer) Close() error {
	s.Kill()
	s.reaper.done()
	return os.RemoveAll(s.node.Dir)
}

// pgExec runs one statement on a connection of its own.
func pgExec(ctx context.Context, url, sql string) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, sql)
	return errors.Join(err, c.Close(ctx))
}
