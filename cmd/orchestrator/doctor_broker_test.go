package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

func TestDoctorWarnsOfASilentNodeAmongOthers(t *testing.T) {
	const silent = "amqp://guest:secret@127.0.0.1:1/"
	node := testenv.RabbitMQ(t).URL
	for _, c := range []struct{ name, urls, result, found string }{
		{"all answer", node + "," + node, "ok", "answers at"},
		{"one is silent", silent + "," + node, "warn", "127.0.0.1:1 does not answer"},
		{"none answers", silent + "," + silent, "fail", "127.0.0.1:1 does not answer"},
		{"one refuses", node + "," + strings.Replace(node, "guest:guest", "guest:wrong", 1), "fail", "refuses"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		f := checkBroker(ctx, settings{AMQPURL: c.urls})
		cancel()
		if f.Result != c.result || !strings.Contains(f.Found, c.found) || strings.Contains(f.Found, "secret") {
			t.Errorf("%s: %+v", c.name, f)
		}
	}
}
