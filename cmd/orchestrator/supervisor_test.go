package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// listenAsSupervisor returns the environment of a process under a supervisor,
// and what that is told.
func listenAsSupervisor(t *testing.T, watchdog string) (getenv func(string) string, told func() string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	env := map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": watchdog}
	return func(name string) string { return env[name] }, func() string {
		b := make([]byte, 1024)
		n, err := conn.Read(b)
		if err != nil {
			t.Error(err)
		}
		return string(b[:n])
	}
}

func TestDaemonTellsItsSupervisorWhenItServesAndStops(t *testing.T) {
	getenv, told := listenAsSupervisor(t, "30000")
	t.Setenv("NOTIFY_SOCKET", getenv("NOTIFY_SOCKET"))
	t.Setenv("WATCHDOG_USEC", getenv("WATCHDOG_USEC"))
	d := startDaemon(t, "dev", "--ephemeral", "--listen", "127.0.0.1:0")
	if got := told(); got != "READY=1" {
		t.Errorf("told %q first", got)
	}
	for range 3 {
		if got := told(); got != "WATCHDOG=1" {
			t.Errorf("told %q while it runs", got)
		}
	}
	d.end(t)
	for got := told(); got != "STOPPING=1"; got = told() {
		if got != "WATCHDOG=1" {
			t.Fatalf("told %q", got)
		}
	}
}

// Without a sign of life there is none for the watchdog either.
func TestWatchdogIsNotToldOfADaemonThatDoesNotAnswer(t *testing.T) {
	getenv, told := listenAsSupervisor(t, "3000")
	s := newSupervisor(getenv, slog.New(slog.DiscardHandler))
	asked := make(chan struct{}, 3)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.watch(ctx, func(context.Context) error { asked <- struct{}{}; return errors.New("it hangs") })
	}()
	for range 3 {
		<-asked
	}
	stop()
	for open := true; open; {
		select {
		case <-asked:
		case <-done:
			open = false
		}
	}
	s.tell("STOPPING=1")
	if got := told(); got != "STOPPING=1" {
		t.Errorf("told %q", got)
	}
}

func TestSupervisorIsWhoTheEnvironmentNames(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"nobody", nil, ""},
		{"without a watchdog", map[string]string{"NOTIFY_SOCKET": "/run/n"}, "/run/n 0s"},
		{"with one", map[string]string{"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "60000000"}, "/run/n 1m0s"},
		{"with one of another process", map[string]string{"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, "/run/n 0s"},
		{"an abstract socket", map[string]string{"NOTIFY_SOCKET": "@n"}, "\x00n 0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSupervisor(func(name string) string { return tt.env[name] }, slog.New(slog.DiscardHandler))
			got := ""
			if s != nil {
				got = s.socket + " " + s.every.String()
			}
			if got != tt.want {
				t.Errorf("it is %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAnyAnswerOfTheAPIIsASignOfLife(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	address := strings.TrimPrefix(server.URL, "http://")
	if err := answers(address)(t.Context()); err != nil {
		t.Error(err)
	}
	server.Close()
	if err := answers(address)(t.Context()); err == nil {
		t.Error("a closed server answers")
	}
}
