package testenv

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// reaperScript reads "add PGID", "del PGID" and "done" from its input. When
// the input ends without "done", its parent is dead: the groups that are left
// are ended and the directory ($1) is removed. SIGQUIT comes first because it
// lets PostgreSQL end its own children and gives back shared memory.
const reaperScript = `
trap '' HUP INT TERM
groups=""
while read -r verb group; do
	case "$verb" in
	add) groups="$groups $group" ;;
	del) left=""; for g in $groups; do [ "$g" = "$group" ] || left="$left $g"; done; groups=$left ;;
	done) exit 0 ;;
	esac
done
for g in $groups; do kill -s QUIT -- "-$g" 2>/dev/null; done
sleep 1
for g in $groups; do kill -s KILL -- "-$g" 2>/dev/null; done
sleep 0.2
[ ! -f "$1/cleanup.sh" ] || sh "$1/cleanup.sh" >/dev/null 2>&1
rm -rf -- "$1"
`

// reaper ends process groups when this process is gone without having done so.
type reaper struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	pipe io.WriteCloser // nil once done
}

// newReaper starts the shell that watches over what is to run in dir.
func newReaper(dir string) (*reaper, error) {
	cmd := exec.Command("/bin/sh", "-c", reaperScript, "reaper", dir)
	cmd.Dir = "/"
	// A session of its own keeps an interrupt typed at the terminal away.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the reaper: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the reaper: %w", err)
	}
	return &reaper{cmd: cmd, pipe: pipe}, nil
}

func (r *reaper) tell(line string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pipe != nil {
		_, _ = io.WriteString(r.pipe, line+"\n")
	}
}

func (r *reaper) add(group int) { r.tell(fmt.Sprintf("add %d", group)) }
func (r *reaper) del(group int) { r.tell(fmt.Sprintf("del %d", group)) }

// done dismisses the reaper: everything was ended in the regular way.
func (r *reaper) done() {
	if r == nil {
		return
	}
	r.tell("done")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pipe != nil {
		_ = r.pipe.Close()
		r.pipe = nil
		_ = r.cmd.Wait()
	}
}

// serverNode is what is kept on disk of a server between start and stop.
type serverNode struct {
	Dir       string
	Port      int
	ServerPID int
}

// serviceDir makes dir (empty: a new temporary directory) and returns its
// absolute path.
func serviceDir(dir, prefix string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", prefix)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// process is a child in a process group of its own.
type process struct {
	cmd    *exec.Cmd
	reaper *reaper
	exited chan struct{}
}

// start runs cmd with its output appended to logfile.
func start(cmd *exec.Cmd, logfile string, r *reaper) (*process, error) {
	out, err := os.OpenFile(logfile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(cmd.Path), err)
	}
	p := &process{cmd: cmd, reaper: r, exited: make(chan struct{})}
	r.add(p.pid())
	go func() {
		_ = cmd.Wait()
		r.del(p.pid())
		close(p.exited)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// signal sends s to the whole group, unless the leader is gone already.
func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.exited:
	default:
		_ = syscall.Kill(-p.pid(), s)
	}
}
