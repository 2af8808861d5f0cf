package deliveries

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ringmaster-dev/ringmaster/cmd/worker/config"
)

type endpoint struct {
	*Service
	http.Handler
}

func open(t *testing.T) endpoint {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "deliveries.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return endpoint{s, s.Handler(slog.New(slog.DiscardHandler))}
}

func (e endpoint) post(t *testing.T, path, key, body string) (int, string) {
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	w := httptest.NewRecorder()
	e.ServeHTTP(w, req)
	data, _ := io.ReadAll(w.Body)
	return w.Code, string(data)
}

func (e endpoint) shipments(t *testing.T, where string) (n int) {
	t.Helper()
	if err := e.DB().Get(&n, `SELECT count(*) FROM shipments WHERE `+where); err != nil {
		t.Fatal(err)
	}
	return n
}

const (
	parcel     = `{"order":"SO-1","name":"Åsa Öberg","address":{"street":"Storgatan 1","city":"Umeå","country":"SE"},"pieces":2}`
	shipKey    = "SO-1/deliver/action/1"
	recallKey  = "SO-1/deliver/compensate/1"
	wantParcel = `{"carrier":"PostNord","tracking":"PN000000001SE"}`
)

func TestShipmentIsMadeOncePerKey(t *testing.T) {
	e := open(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if status, body := e.post(t, "/shipments", shipKey, parcel); status != 201 || body != wantParcel {
				t.Errorf("answer %d %s", status, body)
			}
		})
	}
	all.Wait()
	if n := e.shipments(t, "1"); n != 1 {
		t.Errorf("%d shipments, want 1", n)
	}
}

func TestRecallCallsTheParcelBack(t *testing.T) {
	e := open(t)
	e.post(t, "/shipments", shipKey, parcel)
	for range 2 {
		if status, body := e.post(t, "/recalls", recallKey, parcel); status != 200 || body != "{}" {
			t.Errorf("answer %d %s", status, body)
		}
	}
	if n := e.shipments(t, "recalled = 1"); n != 1 {
		t.Errorf("%d recalled shipments, want 1", n)
	}
}

func TestRecallAheadOfItsShipmentBlocksIt(t *testing.T) {
	e := open(t)
	if status, _ := e.post(t, "/recalls", recallKey, parcel); status != 200 {
		t.Errorf("recall answered %d", status)
	}
	if status, body := e.post(t, "/shipments", shipKey, parcel); status != 409 || !strings.Contains(body, "was recalled") {
		t.Errorf("shipment answered %d %s", status, body)
	}
	if n := e.shipments(t, "1"); n != 0 {
		t.Errorf("%d shipments, want none", n)
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	for _, tt := range []struct {
		name, key, body string
		status          int
		want            string
	}{
		{"nobody delivers there", "k", strings.Replace(parcel, "SE", "AQ", 1), 422, "nobody delivers to Umeå, AQ"},
		{"no key", "", parcel, 400, "Idempotency-Key"},
		{"no order", "k", `{}`, 400, "order"},
		{"not JSON", "k", `parcel`, 400, "must be a parcel"},
		{"too long", "k", `{"name":"` + strings.Repeat("x", 64<<10) + `"}`, 400, "must be a parcel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := open(t)
			if status, body := e.post(t, "/shipments", tt.key, tt.body); status != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("answer %d %s, want %d with %q", status, body, tt.status, tt.want)
			}
			if n := e.shipments(t, "1"); n != 0 {
				t.Errorf("%d shipments, want none", n)
			}
		})
	}
}

func TestDatabaseThatFailsIsAnsweredAsRetryable(t *testing.T) {
	e := open(t)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if status, body := e.post(t, "/shipments", shipKey, parcel); status != 503 {
		t.Errorf("answer %d %s, want 503", status, body)
	}
}

func TestRelayConfigIsGood(t *testing.T) {
	set := map[string]string{"RINGMASTER_AMQP_URL": "amqp://127.0.0.1/", "RINGMASTER_NAMESPACE": "shop", "DELIVERIES": "127.0.0.1:8083"}
	cfg, err := config.Parse("relay.yaml", RelayConfig, func(name string) (string, bool) { v, ok := set[name]; return v, ok })
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Service != "deliveries" || len(cfg.Tasks) != 2 || cfg.Tasks[0].URL.String() != "http://127.0.0.1:8083/shipments" {
		t.Errorf("configuration %+v", cfg)
	}
}
