package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// supervisor is systemd, where that has started this process and asks to be
// told how it is (Type=notify, WatchdogSec=). Nil is nobody, and is told
// nothing.
type supervisor struct {
	socket string
	every  time.Duration // how often it wants a sign of life; 0: never
	log    *slog.Logger
}

// newSupervisor reads what systemd has put into the environment.
func newSupervisor(getenv func(string) string, log *slog.Logger) *supervisor {
	s := &supervisor{socket: getenv("NOTIFY_SOCKET"), log: log}
	if s.socket == "" {
		return nil
	}
	if name, ok := strings.CutPrefix(s.socket, "@"); ok {
		s.socket = "\x00" + name // an abstract one
	}
	usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64)
	pid := getenv("WATCHDOG_PID")
	if err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.every = time.Duration(usec) * time.Microsecond
	}
	return s
}

// tell sends states such as READY=1. A supervisor that does not listen is no
// reason to end.
func (s *supervisor) tell(states ...string) {
	if s == nil {
		return
	}
	conn, err := net.Dial("unixgram", s.socket)
	if err == nil {
		_, err = conn.Write([]byte(strings.Join(states, "\n")))
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		s.log.Warn("telling the supervisor failed", "states", states, "error", err)
	}
}

// watch sends a sign of life three times as often as one is wanted, as long as
// alive says so, until ctx ends.
func (s *supervisor) watch(ctx context.Context, alive func(context.Context) error) {
	if s == nil || s.every == 0 {
		return
	}
	tick := time.NewTicker(s.every / 3)
	defer tick.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, s.every/3)
		err := alive(asked)
		cancel()
		switch {
		case err == nil:
			s.tell("WATCHDOG=1")
		case ctx.Err() == nil:
			s.log.Error("no sign of life for the watchdog", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// answers tells whether the API at an address answers, whatever it says: that
// takes the runtime, the listener and the engine's locks, but neither broker
// nor store, whose outages a new start would not mend.
func answers(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("the API does not answer: %w", err)
		}
		_, err = io.Copy(io.Discard, res.Body)
		return errors.Join(err, res.Body.Close())
	}
}
