package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestHealthTellsWhyNoTasksCanCome(t *testing.T) {
	var log bytes.Buffer
	var fault error
	stop, err := serveMetrics("127.0.0.1:0", prometheus.NewRegistry(), func() error { return fault }, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	address := regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(log.String())[1]
	for _, c := range []struct {
		fault error
		code  int
		body  string
	}{
		{nil, http.StatusOK, "ok"},
		{errors.New("orchestrator speaks version 4"), http.StatusServiceUnavailable, "orchestrator speaks version 4"},
	} {
		fault = c.fault
		r, err := http.Get("http://" + address + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != c.code || strings.TrimSpace(string(body)) != c.body {
			t.Errorf("%v: %d %s, %v", c.fault, r.StatusCode, body, err)
		}
	}
}
