package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ZooKeeperServer is a ZooKeeper server that was started here.
type ZooKeeperServer struct {
	// URL is its address, zookeeper://host:port.
	URL string

	node   serverNode
	java   string // the directory of the program java
	jar    string
	reaper *reaper
	server *process
}

// ZooKeeperConfig says how to start a server. The zero value works.
type ZooKeeperConfig struct {
	// Dir is where the server keeps everything. Empty is a new temporary
	// directory, which Close removes.
	Dir string
	// Detached leaves the server running when this process ends.
	Detached bool
}

// StartZooKeeper starts a server of its own and waits until it answers. Its tick
// is short, so that it grants sessions of a second; its transaction log is
// written to disk before it answers, as by default.
func StartZooKeeper(ctx context.Context, cfg ZooKeeperConfig) (*ZooKeeperServer, error) {
	// The package brings a Java runtime with it.
	jars, err := ensure(ctx, "zkServer.sh", "zookeeper", "/usr/share/zookeeper/bin", "/opt/zookeeper*/bin")
	if err != nil {
		return nil, err
	}
	java, err := ensure(ctx, "java", "default-jre-headless", "/usr/lib/jvm/default-java/bin")
	if err != nil {
		return nil, err
	}
	jar := "/usr/share/java/zookeeper.jar" // its manifest names what it needs
	if _, err := os.Stat(jar); err != nil {
		jar = filepath.Join(filepath.Dir(jars), "lib", "*") // as in the archive of the project
	}
	dir, err := serviceDir(cfg.Dir, "ringmaster-zookeeper-")
	if err != nil {
		return nil, err
	}
	s := &ZooKeeperServer{node: serverNode{Dir: dir}, java: java, jar: jar}
	if !cfg.Detached {
		if s.reaper, err = newReaper(dir); err != nil {
			return nil, err
		}
	}
	// The port may have been taken since it was found free: try again.
	for attempt := 1; ; attempt++ {
		ports, err := freePorts(1)
		if err == nil {
			s.node.Port = ports[0]
			s.URL = fmt.Sprintf("zookeeper://127.0.0.1:%d", s.node.Port)
			err = errors.Join(s.configure(), s.Start(ctx))
		}
		if err == nil {
			return s, nil
		}
		if attempt == 3 || ctx.Err() != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
}

// configure writes what the server reads when it starts.
func (s *ZooKeeperServer) configure() error {
	config := fmt.Sprintf("dataDir=%s\nclientPort=%d\nclientPortAddress=127.0.0.1\ntickTime=200\nmaxSessionTimeout=60000\n"+
		"admin.enableServer=false\n4lw.commands.whitelist=ruok,srvr,cons\nmaxClientCnxns=0\n",
		filepath.Join(s.node.Dir, "data"), s.node.Port)
	if err := os.MkdirAll(filepath.Join(s.node.Dir, "data"), 0o755); err != nil {
		return err
	}
	logging := "log4j.rootLogger=WARN, CONSOLE\nlog4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender\n" +
		"log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout\nlog4j.appender.CONSOLE.layout.ConversionPattern=%d %p %c %m%n\n"
	return errors.Join(os.WriteFile(filepath.Join(s.node.Dir, "zoo.cfg"), []byte(config), 0o644),
		os.WriteFile(filepath.Join(s.node.Dir, "log4j.properties"), []byte(logging), 0o644))
}

// Start starts the server again after Kill, on the same port and with the same
// data, and waits until it answers.
func (s *ZooKeeperServer) Start(ctx context.Context) error {
	logfile := filepath.Join(s.node.Dir, "server.log")
	cmd := exec.Command(filepath.Join(s.java, "java"), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-cp", s.node.Dir+":"+s.jar, "-Dzookeeper.jmx.log4j.disable=true",
		"org.apache.zookeeper.server.ZooKeeperServerMain", filepath.Join(s.node.Dir, "zoo.cfg"))
	cmd.Dir = s.node.Dir
	p, err := start(cmd, logfile, s.reaper)
	if err != nil {
		return err
	}
	s.server, s.node.ServerPID = p, p.pid()
	if err := poll(ctx, p.exited, func() error { return zooKeeperPing(s.node.Port) }); err != nil {
		s.Kill()
		return fmt.Errorf("starting ZooKeeper: %w\n%s", err, tailFile(logfile))
	}
	return nil
}

// zooKeeperPing asks whether the server serves; it says so only when its data is loaded.
func zooKeeperPing(port int) error {
	c, err := net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("srvr")); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if len(answer) < 9 || string(answer[:9]) != "Zookeeper" {
		return fmt.Errorf("unexpected answer %q", answer)
	}
	return nil
}

// Kill ends the server as a crash would (SIGKILL).
func (s *ZooKeeperServer) Kill() {
	if s.server != nil {
		s.server.signal(syscall.SIGKILL)
		<-s.server.exited
		s.server = nil
	}
}

// Close ends the server and removes its directory.
func (s *ZooKeeperServer) Close() error {
	s.Kill()
	s.reaper.done()
	return os.RemoveAll(s.node.Dir)
}
