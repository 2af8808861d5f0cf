package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// slowly decodes a start as huma does: by the schema, and then by the type.
func slowly(h *Handler, b []byte) (rest.Start, bool) {
	registry := h.huma.OpenAPI().Components.Schemas
	schema := registry.Schema(reflect.TypeFor[rest.Start](), false, "")
	var (
		parsed any
		s      rest.Start
		res    huma.ValidateResult
	)
	if json.Unmarshal(b, &parsed) != nil {
		return s, false
	}
	huma.Validate(registry, schema, huma.NewPathBuffer(nil, 0), huma.ModeWriteToServer, parsed, &res)
	if len(res.Errors) > 0 || json.Unmarshal(b, &s) != nil || len(startFaults(nil, &s, "body")) > 0 {
		return rest.Start{}, false
	}
	return s, true
}

func sameStart(a, b rest.Start) bool {
	if (a.Deadline == nil) != (b.Deadline == nil) || a.Deadline != nil && !a.Deadline.Equal(*b.Deadline) {
		return false
	}
	a.Deadline, b.Deadline = nil, nil
	return reflect.DeepEqual(a, b)
}

// The decoder of the hot path may leave a body to huma, but whatever it takes,
// huma takes too and reads in the same way.
func TestTheTwoDecodersOfAStartAgree(t *testing.T) {
	h := New(Config{Service: created{}})
	name := rapid.SampledFrom([]string{`"workflow"`, `"id"`, `"input"`, `"key"`, `"priority"`, `"tags"`, `"deadline"`, `"Workflow"`, `"x"`, `"k\u0065y"`})
	value := rapid.SampledFrom([]string{
		`"flow"`, `""`, `null`, `1`, `10`, `-1`, `1.0`, `1e0`, `true`, `{}`, `[]`, `{"a":"b"}`, `{"a":"b","a":"c"}`, `{"a\n":"b"}`, `{"a":1}`,
		`"2030-01-02T03:04:05Z"`, `"2030-01-02T03:04:05.123+02:00"`, `"0001-01-01T00:00:00Z"`, `"2030-01-02"`, `"a b"`, `"a\u0000"`, `"\ud83d\ude00"`, `"\ud83d"`, `"a\\\"b"`,
		`[1,{"b":[" } ]"]}, "x\\" ]`, `{ "a" : [ { } ] , "c" : "," }`, `"` + strings.Repeat("é", 128) + `"`, `"` + strings.Repeat("é", 129) + `"`,
		`"` + strings.Repeat("x", 201) + `"`, `12345678901234567890.5`,
	})
	space := rapid.SampledFrom([]string{"", "", " ", "\n\t"})
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		b.WriteString(space.Draw(t, "space") + "{" + space.Draw(t, "space"))
		if rapid.Bool().Draw(t, "named") {
			b.WriteString(`"workflow":"flow",`)
		}
		for i := range rapid.IntRange(0, 4).Draw(t, "members") {
			if i > 0 {
				b.WriteString(space.Draw(t, "space") + "," + space.Draw(t, "space"))
			}
			b.WriteString(name.Draw(t, "name") + space.Draw(t, "space") + ":" + space.Draw(t, "space") + value.Draw(t, "value"))
		}
		b.WriteString(space.Draw(t, "space") + "}" + space.Draw(t, "space"))
		body := []byte(b.String())
		fast, ok := readStart(body)
		if !ok {
			return
		}
		slow, ok := slowly(h, body)
		if !ok || !sameStart(fast, slow) {
			t.Fatalf("%s\nfast %+v\nslow %+v, %v", body, fast, slow, ok)
		}
	})
}

func TestOrdinaryStartsTakeTheShortWay(t *testing.T) {
	for _, body := range []string{
		`{"workflow":"flow"}`,
		` { "workflow" : "flow" , "input" : [ 1 , { "a" : "}" } ] , "priority" : 3 } `,
		`{"workflow":"flow","id":"order-1042","input":{"customer_id":"c-7","note":"say \"hi\""},"key":"c-7","priority":9,"tags":{"region":"eu"},"deadline":"2030-01-02T03:04:05Z"}`,
		`{"workflow":"fl\u006fw"}`,
	} {
		if _, ok := readStart([]byte(body)); !ok {
			t.Errorf("left to huma: %s", body)
		}
		if runs, ok := readBatch([]byte(`{"runs":[` + body + `,` + body + `]}`)); !ok || len(runs) != 2 {
			t.Errorf("batch left to huma: %s", body)
		}
	}
}

func FuzzDecodersOfAStartAgree(f *testing.F) {
	h := New(Config{Service: created{}})
	f.Add([]byte(`{"workflow":"flow","id":"a","input":{"a":[1,"x\""]},"tags":{"a":"b"},"priority":3,"deadline":"2030-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"workflow" : "\u0066" , "input":-1e5 }`))
	f.Fuzz(func(t *testing.T, body []byte) {
		fast, ok := readStart(body)
		if !ok {
			return
		}
		slow, ok := slowly(h, body)
		if !ok || !sameStart(fast, slow) {
			t.Fatalf("%q\nfast %+v\nslow %+v, %v", body, fast, slow, ok)
		}
	})
}

const startBody = `{"workflow":"order-flow","id":"01920f3e-7b1a-7c55-9d51-7d1c9a3e0b11","input":{"customer_id":"c-1842","items":[{"sku":"a-1","count":2},{"sku":"b-9","count":1}],"total":4200,"currency":"EUR"},"tags":{"region":"eu"}}`

func BenchmarkReadStart(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(startBody)))
	for b.Loop() {
		if _, ok := readStart([]byte(startBody)); !ok {
			b.Fatal("left to huma")
		}
	}
}

// BenchmarkStart compares what a start costs in the handler, without the
// network and without the service, with and without the decoder of its own.
func BenchmarkStart(b *testing.B) {
	h := New(Config{Service: created{}})
	for name, handler := range map[string]http.Handler{"own": h, "huma": h.wrap(h.mux)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest("POST", pathRuns, strings.NewReader(startBody))
				r.Header.Set("Content-Type", "application/json")
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, r)
				if w.Code != http.StatusCreated {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}
