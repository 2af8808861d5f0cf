package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// daemon is a command that serves until its context ends.
type daemon struct {
	url    string
	broker string // where it says one
	stop   context.CancelFunc
	status chan int
	err    *strings.Builder // to be read after stopping
}

var (
	apiLine    = regexp.MustCompile(`api +(http://\S+)`)
	brokerLine = regexp.MustCompile(`broker +(amqp://\S+)`)
)

// startDaemon runs a command line until it says where its API is.
func startDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	out, in := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	d := &daemon{stop: stop, status: make(chan int, 1), err: &strings.Builder{}}
	t.Cleanup(stop)
	c := &cli{in: strings.NewReader(""), out: in, err: d.err, now: time.Now}
	root := newRoot(c)
	root.SetArgs(args)
	go func() {
		d.status <- c.exitStatus(root.ExecuteContext(ctx))
		in.Close()
	}()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := apiLine.FindStringSubmatch(lines.Text()); m != nil {
			d.url = m[1]
		}
		if m := brokerLine.FindStringSubmatch(lines.Text()); m != nil {
			d.broker = m[1]
		}
		if strings.HasPrefix(lines.Text(), "namespace") {
			break
		}
	}
	if d.url == "" {
		t.Fatalf("exit status %d: %s", <-d.status, d.err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return d
}

func (d *daemon) end(t *testing.T) {
	t.Helper()
	d.stop()
	select {
	case status := <-d.status:
		if status != exitDone {
			t.Fatalf("exit status %d: %s", status, d.err)
		}
	case <-time.After(time.Minute):
		t.Fatal("did not stop")
	}
}

func (d *daemon) client(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{URL: d.url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestDevKeepsRunsFromOneStartToTheNext(t *testing.T) {
	db := filepath.Join(t.TempDir(), "folder", "dev.db")
	args := []string{"dev", "--listen", "127.0.0.1:0", "--db", db, "--node", "test"}

	first := startDaemon(t, args...)
	c := first.client(t)
	if _, err := c.Register(t.Context(), saleFlow()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.StartRun(t.Context(), rest.Start{Workflow: "sale", ID: "kept", Input: json.RawMessage(`{}`)}); err != nil {
		t.Fatal(err)
	}
	first.end(t)

	second := startDaemon(t, args...)
	run, err := second.client(t).Get(t.Context(), "kept")
	if err != nil || run.Status != "running" {
		t.Fatalf("%+v, %v", run.Run, err)
	}
	health, err := second.client(t).Health(t.Context())
	if err != nil || health.Status != "ok" {
		t.Errorf("%+v, %v", health, err)
	}

	third := &cli{in: strings.NewReader(""), out: io.Discard, err: &strings.Builder{}, now: time.Now}
	root := newRoot(third)
	root.SetArgs(args)
	err = root.ExecuteContext(t.Context())
	if err == nil || !strings.Contains(err.Error(), "Another orchestrator has this database open") {
		t.Errorf("two on one database: %v", err)
	}
	second.end(t)
}

func TestEphemeralDevLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	d := startDaemon(t, "dev", "--ephemeral", "--listen", "127.0.0.1:0")
	if entries, _ := os.ReadDir(temp); len(entries) != 1 {
		t.Errorf("while it runs: %v", entries)
	}
	d.end(t)
	if entries, _ := os.ReadDir(temp); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// A private RabbitMQ comes and goes with the daemon, and workers of other
// processes can join by what it prints.
func TestDevStartsAPrivateRabbitMQ(t *testing.T) {
	d := startDaemon(t, "dev", "--ephemeral", "--listen", "127.0.0.1:0", "--broker", "auto")
	b, err := rabbit.New(rabbit.Config{URLs: []string{d.broker}})
	if err != nil {
		t.Fatalf("broker %q: %v", d.broker, err)
	}
	sdk, err := worker.New(worker.Config{Broker: b, Service: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	sdk.HandleFunc("pay", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sdk.Run(ctx) }()
	for {
		workers, err := d.client(t).Workers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(workers) == 1 {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	d.end(t)
}

func TestAnAddressInUseIsSaid(t *testing.T) {
	d := startDaemon(t, "dev", "--ephemeral", "--listen", "127.0.0.1:0")
	defer d.end(t)
	other, err := net.Listen("tcp", "127.0.0.1:0") // listens, and answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for address, want := range map[string]string{
		strings.TrimPrefix(d.url, "http://"): "by an orchestrator that is running already (its status is ok)\nTo use that one, give the other commands --api " + d.url,
		other.Addr().String():                "by a program that is not an orchestrator, or one that does not answer",
	} {
		c := &cli{in: strings.NewReader(""), out: io.Discard, err: io.Discard, now: time.Now}
		root := newRoot(c)
		root.SetArgs([]string{"dev", "--ephemeral", "--listen", address})
		err := root.ExecuteContext(t.Context())
		if err == nil || !strings.Contains(err.Error(), address+" is in use "+want) || !strings.Contains(err.Error(), "give it another address with --listen HOST:PORT or RINGMASTER_LISTEN") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestWaitsAreShownOnATerminalInOneLine(t *testing.T) {
	var b strings.Builder
	line := &statusLine{w: &b}
	line.show("one")
	_, _ = line.Write([]byte("a log line\n"))
	line.show("two")
	line.clear()
	if want := "\r\x1b[Kone\r\x1b[Ka log line\none\r\x1b[Ktwo\r\x1b[K"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	got := progress(rest.RunDetail{Steps: []rest.Step{{Name: "a", State: "succeeded"}, {Name: "b", State: "retrying", Attempts: 3}, {Name: "c", State: "pending"}}})
	if got != "1/3 steps  b retrying (attempt 3)" {
		t.Errorf("%q", got)
	}
}

func TestAPrivateRabbitMQThatCannotBeStartedIsSaid(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	c := &cli{in: strings.NewReader(""), out: io.Discard, err: io.Discard, now: time.Now}
	root := newRoot(c)
	root.SetArgs([]string{"dev", "--ephemeral", "--broker", "auto", "--listen", "127.0.0.1:0"})
	if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "with --broker") {
		t.Error(err)
	}
}
