package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// PostgresServer is a PostgreSQL server that was started here.
type PostgresServer struct {
	// URL is the address of its database "postgres", as superuser.
	URL string

	node     serverNode
	bin      string
	settings map[string]string
	cred     *syscall.Credential // of whom it runs as; nil: as ourselves
	reaper   *reaper
	server   *process
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
	s := &PostgresServer{node: serverNode{Dir: dir}, bin: bin, settings: cfg.Settings}
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
			s.URL = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", s.node.Port)
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

func (s *PostgresServer) data() string { return filepath.Join(s.node.Dir, "data") }

// prepare makes a command one that runs as it should.
func (s *PostgresServer) prepare(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = s.node.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TZ=UTC"}
	if s.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	}
	return cmd
}

// install makes the database cluster.
func (s *PostgresServer) install(ctx context.Context) (err error) {
	if s.cred, err = prepareDir(s.node.Dir, s.data()); err != nil {
		return err
	}
	initdb := s.prepare(exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "-D", s.data(),
		"-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"))
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, tail(string(out), 20))
	}
	return nil
}

// Start starts the server again after Kill, on the same port and with the same
// data, and waits until it answers.
func (s *PostgresServer) Start(ctx context.Context) error {
	logfile := filepath.Join(s.node.Dir, "server.log")
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.node.Port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "max_connections=200", "-c", "max_prepared_transactions=100"}
	for k, v := range s.settings {
		args = append(args, "-c", k+"="+v)
	}
	p, err := start(s.prepare(exec.Command(filepath.Join(s.bin, "postgres"), args...)), logfile, s.reaper)
	if err != nil {
		return err
	}
	s.server, s.node.ServerPID = p, p.pid()
	if err := poll(ctx, p.exited, func() error { return pgExec(ctx, s.URL, "SELECT 1") }); err != nil {
		s.quit()
		return fmt.Errorf("starting PostgreSQL: %w\n%s", err, tailFile(logfile))
	}
	return nil
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

// Kill ends the server as a crash would (SIGKILL), with its children, which are in
// sessions of their own: the server does not start again while one is left.
func (s *PostgresServer) Kill() {
	if s.server == nil {
		return
	}
	family := children(s.server.pid())
	s.server.signal(syscall.SIGKILL)
	<-s.server.exited
	s.server = nil
	for _, pid := range family {
		_ = syscall.Kill(pid, syscall.SIGKILL) // an error says that it has ended
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for _, pid := range family {
		_ = poll(ctx, nil, func() error {
			if exists(pid) {
				return errors.New("it is on its way out")
			}
			return nil
		})
	}
}

// Stop ends the server in the regular way, without waiting for its clients to
// leave; its data stay.
func (s *PostgresServer) Stop(ctx context.Context) error {
	if s.server == nil {
		return nil
	}
	s.server.signal(syscall.SIGINT)
	select {
	case <-s.server.exited:
		s.server = nil
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stopping PostgreSQL: %w", ctx.Err())
	}
}

// Running tells whether the server has not ended, by itself or otherwise.
func (s *PostgresServer) Running() bool {
	if s.server == nil {
		return false
	}
	select {
	case <-s.server.exited:
		return false
	default:
		return true
	}
}

// Pause freezes the server with its children: connections stay and nothing
// answers. Resume ends that.
func (s *PostgresServer) Pause() error {
	if !s.Running() {
		return errors.New("the server does not run")
	}
	s.server.signal(syscall.SIGSTOP) // first, so that no child is new
	for _, pid := range children(s.server.pid()) {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // an error says that it has ended
	}
	return nil
}

// Resume wakes a server that was paused.
func (s *PostgresServer) Resume() error {
	if !s.Running() {
		return errors.New("the server does not run")
	}
	for _, pid := range children(s.server.pid()) {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	s.server.signal(syscall.SIGCONT)
	return nil
}

// children are the processes that a process has started. Where there is no /proc
// there are none to be known; they end by themselves when they notice.
func children(parent int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well formed
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The name stands in parentheses and may hold anything; state and parent follow.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Processes are those of the server; the first has started the others.
func (s *PostgresServer) Processes() []int {
	if s.server == nil {
		return nil
	}
	return append([]int{s.server.pid()}, children(s.server.pid())...)
}

// quit ends the server at once and lets it end its own children.
func (s *PostgresServer) quit() {
	if s.server != nil {
		s.server.signal(syscall.SIGQUIT)
		<-s.server.exited
		s.server = nil
	}
}

// Close ends the server and removes its directory.
func (s *PostgresServer) Close() error {
	s.quit()
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
