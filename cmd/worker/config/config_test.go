package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

const whole = `# the relay of the delivery service
amqp_url: amqp://guest:${PASSWORD}@rabbit:5672/shop
namespace: shop
service: deliveries
name: relay-1
concurrency: 8
weight: 50
drain_timeout: 1m30s
tasks:
  deliveries.ship:
    url: http://127.0.0.1:8083/shipments
    timeout: 2s
    headers:
      Authorization: Bearer ${TOKEN}
  deliveries.recall@2:
    url: https://deliveries.example/recalls
    method: PUT
    success: [200, 204]
    retry: [429, "500-503"]
    unknown: [504]
    max_response_bytes: 100
`

func TestWholeFileIsRead(t *testing.T) {
	cfg, err := Parse("relay.yaml", []byte(whole), environment("PASSWORD", "s3cret", "TOKEN", "t0ken"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.AMQPURL != "amqp://guest:s3cret@rabbit:5672/shop" || cfg.Namespace != "shop" || cfg.Service != "deliveries" ||
		cfg.Name != "relay-1" || cfg.Concurrency != 8 || cfg.Weight != 50 || cfg.DrainTimeout != 90*time.Second {
		t.Errorf("settings: %+v", cfg)
	}
	if len(cfg.Tasks) != 2 || cfg.Tasks[0].Type != "deliveries.ship" || cfg.Tasks[1].Type != "deliveries.recall@2" {
		t.Fatalf("tasks: %+v", cfg.Tasks)
	}
	ship, recall := &cfg.Tasks[0], &cfg.Tasks[1]
	if ship.Method != "POST" || ship.Timeout != 2*time.Second || ship.Headers.Get("Authorization") != "Bearer t0ken" ||
		ship.URL.Path != "/shipments" || ship.MaxResponse != DefaultMaxResponse {
		t.Errorf("ship: %+v", ship)
	}
	for status, want := range map[int]string{
		200: "success", 299: "success", 303: "unknown", 408: "retry", 425: "retry", 429: "retry", 503: "retry",
		400: "", 404: "", 409: "", 500: "unknown", 502: "unknown", 504: "unknown",
	} {
		if got := meaning(ship, status); got != want {
			t.Errorf("status %d means %q by default, want %q", status, got, want)
		}
	}
	if recall.Method != "PUT" || recall.MaxResponse != 100 {
		t.Errorf("recall: %+v", recall)
	}
	for status, want := range map[int]string{200: "success", 201: "", 429: "retry", 502: "retry", 504: "unknown", 505: ""} {
		if got := meaning(recall, status); got != want {
			t.Errorf("status %d means %q as configured, want %q", status, got, want)
		}
	}
}

func meaning(t *Task, status int) string {
	switch {
	case t.Success.Has(status):
		return "success"
	case t.Retry.Has(status):
		return "retry"
	case t.Unknown.Has(status):
		return "unknown"
	}
	return ""
}

func TestEveryFaultIsNamedWithLineFieldAndRule(t *testing.T) {
	long := strings.Repeat("x", 65)
	for _, tt := range []struct {
		name, file string
		want       []string // line: field: start of the rule
	}{
		{"empty file", "", []string{"1: the file is empty"}},
		{"only a comment", "# nothing\n", []string{"1: the file is empty"}},
		{"not YAML", "service: [", []string{"1: not YAML: "}},
		{"not a mapping", "- a\n- b\n", []string{"1: must be a mapping"}},
		{"two documents", minimal + "---\nservice: b\n", []string{"6: the file holds more than one document"}},
		{"nothing required is there", "namespace: a\n", []string{"1: service: is required", "1: tasks: is required"}},
		{"unknown field", minimal + "servce: a\n", []string{"5: servce: unknown field"}},
		{"unknown field with a hint", minimal + "draintimeout: 1s\n", []string{"5: draintimeout: unknown field (did you mean drain_timeout?)"}},
		{"field twice", minimal + "service: b\n", []string{"5: service: is there twice"}},
		{"amqp_url of another kind", minimal + "amqp_url: http://x\n", []string{"5: amqp_url: must be a URL such as amqp"}},
		{"amqp_url empty", minimal + "amqp_url: ''\n", []string{"5: amqp_url: must not be empty"}},
		{"variable not set", minimal + "amqp_url: amqp://${NOWHERE}/\n", []string{"5: amqp_url: the environment variable NOWHERE is not set"}},
		{"variable not closed", minimal + "amqp_url: amqp://${NOWHERE/\n", []string{"5: amqp_url: has ${ without }"}},
		{"name with a space", minimal + "name: a b\n", []string{"5: name: must be of letters"}},
		{"name too long", minimal + "name: " + long + "\n", []string{"5: name: must not be longer than 64"}},
		{"namespace is a list", minimal + "namespace: [a]\n", []string{"5: namespace: must be a text"}},
		{"alias", minimal + "name: &x a\nnamespace: *x\n", []string{"5: name: must be a text", "6: namespace: must be a text"}},
		{"concurrency zero", minimal + "concurrency: 0\n", []string{"5: concurrency: must be a whole number from 1 to 10000"}},
		{"concurrency in words", minimal + "concurrency: many\n", []string{"5: concurrency: must be a whole number"}},
		{"concurrency quoted", minimal + "concurrency: '4'\n", []string{"5: concurrency: must be a whole number"}},
		{"concurrency beyond int64", minimal + "concurrency: 99999999999999999999\n", []string{"5: concurrency: must be a whole number"}},
		{"weight fractional", minimal + "weight: 1.5\n", []string{"5: weight: must be a whole number"}},
		{"drain timeout without unit", minimal + "drain_timeout: 30\n", []string{"5: drain_timeout: must be a duration"}},
		{"drain timeout negative", minimal + "drain_timeout: -1s\n", []string{"5: drain_timeout: must be a duration"}},
		{"no tasks", "service: a\ntasks: {}\n", []string{"2: tasks: must name at least one"}},
		{"tasks null", "service: a\ntasks:\n", []string{"2: tasks: must be a mapping"}},
		{"task without url", "service: a\ntasks:\n  a.b:\n    method: PUT\n", []string{"3: tasks[a.b].url: is required"}},
		{"task type with a slash", "service: a\ntasks:\n  a/b: {url: 'http://x/'}\n", []string{"3: tasks[a/b]: the task type must be of letters"}},
		{"task type with half a version", "service: a\ntasks:\n  a.b@: {url: 'http://x/'}\n", []string{"3: tasks[a.b@]: the version after '@' must not be empty"}},
		{"task type with two versions", "service: a\ntasks:\n  a.b@1@2: {url: 'http://x/'}\n", []string{"3: tasks[a.b@1@2]: the version after '@' must be of letters"}},
		{"task twice", minimal + "  a.b: {url: 'http://x/'}\n", []string{"5: tasks[a.b]: is there twice"}},
		{"url relative", task("url: /ship"), []string{"4: tasks[a.b].url: must be an absolute"}},
		{"url of another scheme", task("url: ftp://x/"), []string{"4: tasks[a.b].url: must be an absolute"}},
		{"url with credentials", task("url: http://u:p@x/"), []string{"4: tasks[a.b].url: must not hold credentials"}},
		{"url with a fragment", task("url: http://x/#a"), []string{"4: tasks[a.b].url: must not have a fragment"}},
		{"method GET", task("url: http://x/\n    method: GET"), []string{"5: tasks[a.b].method: must be one of POST, PUT, PATCH, DELETE"}},
		{"timeout too long", task("url: http://x/\n    timeout: 25h"), []string{"5: tasks[a.b].timeout: must be a duration"}},
		{"header name", task("url: http://x/\n    headers: {'a b': c}"), []string{"5: tasks[a.b].headers[a b]: is not a header name"}},
		{"header reserved", task("url: http://x/\n    headers:\n      idempotency-key: c\n      RM-Step: d"), []string{
			"6: tasks[a.b].headers[idempotency-key]: is set by the relay", "7: tasks[a.b].headers[RM-Step]: is set by the relay",
		}},
		{"header value", task("url: http://x/\n    headers: {A: \"c\\nd\"}"), []string{"5: tasks[a.b].headers[A]: holds characters"}},
		{"header twice", task("url: http://x/\n    headers: {A: b, a: c}"), []string{"5: tasks[a.b].headers[a]: is there twice"}},
		{"statuses not a list", task("url: http://x/\n    retry: 503"), []string{"5: tasks[a.b].retry: must be a list"}},
		{"statuses unreadable", task("url: http://x/\n    retry: [5yy, 99, 600, 505-500, [1]]"), []string{
			`5: tasks[a.b].retry: "5yy" is not a status`, `5: tasks[a.b].retry: "99" is not`, `5: tasks[a.b].retry: "600" is not`,
			`5: tasks[a.b].retry: "505-500" is not`, "5: tasks[a.b].retry: must hold statuses only",
		}},
		{"response limit", task("url: http://x/\n    max_response_bytes: 0"), []string{"5: tasks[a.b].max_response_bytes: must be a whole number from 1"}},
		{"all at once", "servic: a\nconcurrency: -1\ntasks:\n  a.b:\n    urll: http://x/\n", []string{
			"1: servic: unknown field", "1: service: is required", "2: concurrency: must be",
			"4: tasks[a.b].url: is required", "5: tasks[a.b].urll: unknown field",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f.yaml", []byte(tt.file), environment())
			var invalid *Invalid
			if !errors.As(err, &invalid) || !errors.Is(err, ErrInvalid) {
				t.Fatalf("error %v, want an *Invalid", err)
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(tt.want) {
				t.Fatalf("faults:\n%s\nwant:\n%s", err, strings.Join(tt.want, "\n"))
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], "f.yaml:"+want) {
					t.Errorf("fault %q, want it to start with %q", got[i], "f.yaml:"+want)
				}
			}
		})
	}
}

const minimal = "service: a\ntasks:\n  a.b:\n    url: http://x/\n"

func task(fields string) string { return "service: a\ntasks:\n  a.b:\n    " + fields + "\n" }

func TestSmallestFileHasDefaults(t *testing.T) {
	cfg, err := Parse("f.yaml", []byte(minimal), environment())
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(cfg.AMQPURL, cfg.Namespace, cfg.Name, cfg.Concurrency, cfg.Weight, cfg.DrainTimeout)
	want := fmt.Sprint("", DefaultNamespace, "", DefaultConcurrency, DefaultWeight, DefaultDrainTimeout)
	if got != want {
		t.Errorf("defaults %s, want %s", got, want)
	}
}

func TestMissingFileIsNoFault(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), environment())
	if !errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrInvalid) {
		t.Errorf("error %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(minimal))
	f.Add([]byte("service: &a a\ntasks: *a\n? [x]\n: y\n<<: {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse("f.yaml", data, environment())
		if (cfg == nil) != (err != nil) {
			t.Fatalf("configuration %v with error %v", cfg, err)
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("error %v is no *Invalid", err)
		}
	})
}
