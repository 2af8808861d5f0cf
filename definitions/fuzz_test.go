package definitions_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// Whatever Parse takes, its canonical JSON means the same; whatever it refuses,
// it says why.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"kind":"saga","name":"n","service":"s","steps":[{"name":"a","action":"x","compensation":"y"},{"name":"p","action":"z","pivot":true,"after":["a"],"input":"steps.a.output"}]}`))
	f.Add([]byte(`{"kind":"saga","name":"n","deadline":"1h","output":"{'a': input}","steps":[{"name":"a","service":"s","action":"x","no_compensation":"r","retry":{"initial":"1ms","jitter":0,"multiplier":1.5,"max_attempts":-1,"non_retryable":["é"]}}]}`))
	f.Add([]byte(`{"kind":"saga","name":"n","steps":[{"name":"a","sleep":"24h"},{"name":"b","sleep_until":"input.at"},{"name":"c","signal":"go","timeout":"1h","timeout_output":"1"},{"name":"d","choice":[{"case":"x","when":"input.y"},{"case":"z"}]},{"name":"e","sleep":"1s","branch":{"choice":"d","case":"z"}}]}`))
	f.Add([]byte(`{"kind":"saga","name":"n","service":"s","steps":[{"name":"a","action":"x","compensation":"y","for_each":"input.l","parallel":3,"max_items":9,"input":"[item, index]"}]}`))
	f.Add([]byte(`{"kind":"tcc","name":"n","service":"s","locks":[{"name":"input.a"},{"name":"['x']","shared":true}],"serial":true,"participants":[{"name":"a","prepare":"p","commit":"c","abort":"x"}]}`))
	f.Add([]byte(`{"kind":"saga","name":"n","service":"s","steps":[{"name":"a","workflow":"w","compensation":"c","timeout":"1h"},{"name":"b","workflow":"w","pivot":true}]}`))
	f.Add([]byte(`{"steps":[{"after":["a"],"name":"a"},3]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		wf, err := definitions.Parse(data)
		if err != nil {
			var invalid *definitions.Invalid
			if !errors.As(err, &invalid) || len(invalid.Faults) == 0 {
				t.Fatalf("error is %v", err)
			}
			return
		}
		if !json.Valid(wf.JSON()) {
			t.Fatalf("canonical JSON is not JSON: %s", wf.JSON())
		}
		again, err := definitions.Parse(wf.JSON())
		if err != nil {
			t.Fatalf("%v\n%s", err, wf.JSON())
		}
		sameWorkflow(t, wf, again)
	})
}

// No expression and no input breaks anything, and what comes out is JSON and
// the same every time.
func FuzzExpression(f *testing.F) {
	f.Add("input.a + 1", []byte(`{"a": 1}`))
	f.Add("{'a': steps.a.output, input.x: [1.5, b'x']}", []byte(`{"x":"y"}`))
	f.Add("input.map(k, {k: input[k]})", []byte(`{"x":{"z":1},"b":[null]}`))
	f.Add("input.filter(x, x.matches('a+')).size() > 2 ? dyn(timestamp(0)) : duration('1s')", []byte(`["aa"]`))
	f.Fuzz(func(t *testing.T, expr string, input []byte) {
		if expr == "" || len(expr) > 200 {
			return
		}
		b := definitions.Saga("flow").Service("s").Output(expr)
		b.Step("a").Action("x").Compensation("y")
		wf, err := b.Build()
		if err != nil {
			if !errors.Is(err, definitions.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		eval := func() string {
			sc := wf.NewScope(input)
			sc.SetOutput(0, input)
			out, err := sc.Output()
			if err != nil {
				var eval *definitions.EvalError
				if !errors.As(err, &eval) {
					t.Fatalf("error is %v", err)
				}
				return ""
			}
			if !json.Valid(out) {
				t.Fatalf("%s yields what is not JSON: %s", expr, out)
			}
			return string(out)
		}
		if first, second := eval(), eval(); first != second {
			t.Fatalf("%s yields %s, then %s", expr, first, second)
		}
	})
}

// Input passes through an expression as the standard library reads it.
func FuzzInput(f *testing.F) {
	for _, s := range []string{`{"b":1,"a":[1.5,-0,1e-7,1E+30,true,null,"x\u00e9\ud800\n"],"b":2}`, `9007199254740993`, `"é\"\\\/"`, "\"\xff\"", ` [ ] `, `01`, `1.`, `"a`, `{"a" 1}`, `--1`, `nulll`} {
		f.Add([]byte(s))
	}
	b := definitions.Saga("flow").Service("s").Output("input")
	b.Step("a").Action("x").Compensation("y")
	wf := b.MustBuild()
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 10_000 {
			return
		}
		out, err := wf.NewScope(input).Output()
		var want any
		unmarshal := json.Unmarshal(input, &want)
		if err != nil {
			if unmarshal == nil && depth(input) < 500 {
				t.Fatalf("%q: %v", input, err)
			}
			return
		}
		if unmarshal != nil && len(input) > 0 && !blank(input) {
			t.Fatalf("%q is taken; %v", input, unmarshal)
		}
		var got any
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q yields what is not JSON: %s", input, out)
		}
		x, _ := json.Marshal(got)
		y, _ := json.Marshal(want)
		if string(x) != string(y) && !negativeZero(y) {
			t.Fatalf("%q yields %s, want %s", input, x, y)
		}
	})
}

func depth(b []byte) (n int) {
	for _, c := range b {
		if c == '[' || c == '{' {
			n++
		}
	}
	return n
}

func blank(b []byte) bool {
	for _, c := range b {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}

// negativeZero reports whether a text may hold one; it comes out as 0.
func negativeZero(b []byte) bool {
	for i := 1; i < len(b); i++ {
		if b[i-1] == '-' && b[i] == '0' {
			return true
		}
	}
	return false
}
