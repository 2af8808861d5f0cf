package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"worker": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

func TestAHangUpHasTheWeightReadAgain(t *testing.T) {
	url := testenv.RabbitMQ(t).URL
	b, err := rabbit.New(rabbit.Config{URLs: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := b.Open(t.Context(), broker.Options{Name: "observer"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	heartbeats := broker.Exchange{Name: protocol.HeartbeatsExchange(""), Kind: broker.Fanout}
	if err := conn.Declare(t.Context(), []broker.Exchange{heartbeats}, nil); err != nil {
		t.Fatal(err)
	}
	weights := make(chan int, 1000)
	if _, err := conn.Subscribe(t.Context(), broker.Subscription{
		Queue: "observer", Kind: broker.Exclusive, NoAck: true, Bindings: []broker.Binding{{Exchange: heartbeats}},
		Handler: func(d broker.Delivery) {
			if h, err := protocol.DecodeHeartbeat(&d.Message); err == nil {
				weights <- h.Weight
			}
		},
	}); err != nil {
		t.Fatal(err)
	}
	awaitWeight := func(want int) {
		t.Helper()
		for deadline := time.After(time.Minute); ; {
			select {
			case got := <-weights:
				if got == want {
					return
				}
			case <-deadline:
				t.Fatalf("no heartbeat has the weight %d", want)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "worker.yaml")
	write := func(weight string) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, "service: a\nweight: %s\ntasks:\n  a.b:\n    url: http://127.0.0.1:1/\n", weight), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hangUp := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write("50")
	silent, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() { ended <- run(ctx, []string{"--config", file, "--amqp-url", url}, silent, silent) }()
	awaitWeight(50)
	write("300")
	hangUp()
	awaitWeight(300)
	write("many") // is refused
	hangUp()
	write("100")
	hangUp()
	awaitWeight(100)
	stop()
	if status := <-ended; status != 0 {
		t.Errorf("the worker ended with status %d", status)
	}
}

func TestHealthTellsWhatTheWorkerAnswers(t *testing.T) {
	for status, want := range map[int]int{http.StatusOK: exitDone, http.StatusInternalServerError: exitFailed} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" {
				t.Errorf("asked for %s", r.URL.Path)
			}
			w.WriteHeader(status)
		}))
		if got := run(t.Context(), []string{"health", server.Listener.Addr().String()}, os.Stdout, os.Stderr); got != want {
			t.Errorf("exit status %d for an answer %d; want %d", got, status, want)
		}
		server.Close()
	}
}
