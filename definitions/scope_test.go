package definitions_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

const scopeInput = `{"id": 9007199254740993, "big": 18446744073709551616, "total": 2.50, "whole": 3.0, "exp": 1e3,
	"name": "Zoë \"Z\" \u00e9\n", "none": null, "flag": true, "z": {"b": 1, "a": [1, "x", null]}, "list": [3, 1, 2]}`

func TestOutputOfExpressions(t *testing.T) {
	tests := map[string]struct{ expr, want string }{
		"an integer past 2^53":         {"input.id", "9007199254740993"},
		"arithmetic on it":             {"{'next': input.id + 1}", `{"next":9007199254740994}`},
		"an integer past 64 bits":      {"input.big", "18446744073709552000"},
		"a double":                     {"input.total * 2.0", "5"},
		"a whole double":               {"input.whole", "3"},
		"an exponent":                  {"input.exp", "1000"},
		"int and double compare":       {"input.total > 2 && input.whole == 3", "true"},
		"an unsigned integer":          {"18446744073709551615u", "18446744073709551615"},
		"text":                         {"input.name", `"Zoë \"Z\" é\n"`},
		"no HTML escapes":              {"'<a&b>'", `"<a&b>"`},
		"null":                         {"input.none", "null"},
		"a whole object, keys ordered": {"input.z", `{"a":[1,"x",null],"b":1}`},
		"a literal, keys ordered":      {"{'z': 1, 'a': {'y': input.flag, 'b': [input.total]}}", `{"a":{"b":[2.5],"y":true},"z":1}`},
		"computed keys":                {"{input.z.a[1]: 1, 'a': 2}", `{"a":2,"x":1}`},
		"integer keys":                 {"{2: 'b', 10: 'a'}", `{"10":"a","2":"b"}`},
		"a table":                      {"{1: 'one', 3: 'three'}[input.list[0]]", `"three"`},
		"map over a list":              {"input.list.map(x, x * 10)", "[30,10,20]"},
		"map over an object":           {"input.z.map(k, k)", `["a","b"]`},
		"map over a literal":           {"{'c': 1, 'b': 2, 'a': 3}.map(k, k)", `["a","b","c"]`},
		"map over integer keys":        {"{3: 1, 1: 2, 2: 3}.map(k, k)", "[1,2,3]"},
		"map over computed keys":       {"{input.z.a[1]: 1, 'b': 2}.map(k, k)", `["b","x"]`},
		"objects are equal":            {"input.z == {'b': 1, 'a': [1, 'x', null]} && {'b': 1, 'a': [1, 'x', null]} == input.z", "true"},
		"presence":                     {"[has(input.z.a), has(input.nope), 'a' in input.z, size(input.z)]", "[true,false,true,2]"},
		"bytes":                        {"b'abc'", `"YWJj"`},
		"a timestamp":                  {"timestamp('2026-02-03T04:05:06.5Z') + duration('1h')", `"2026-02-03T05:05:06.5Z"`},
		"a duration":                   {"duration('90s')", `"90s"`},
		"an output":                    {"steps.create.output.order.id", "9007199254740995"},
		"an output by index":           {"steps['ship-it']['output'].ok", "true"},
		"no output is null":            {"steps.silent.output", "null"},
		"presence in no output":        {"has(steps.silent.output.x)", "false"},
		"a variable named steps":       {"[1, 2].map(steps, steps + 1)", "[2,3]"},
		"a variable named input":       {"[1, 2].map(input, input + 1)", "[2,3]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			sc := scopeOf(t, tt.expr, scopeInput)
			for range 3 { // an order by chance would differ
				got, err := sc.Output()
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != tt.want {
					t.Errorf("%s yields %s, want %s", tt.expr, got, tt.want)
				}
			}
		})
	}
}

// scopeOf returns a scope of a workflow with that output expression.
func scopeOf(t *testing.T, expr, input string) *definitions.Scope {
	t.Helper()
	b := definitions.Saga("flow").Service("s").Output(expr)
	step(b, "create")
	step(b, "ship-it")
	step(b, "silent")
	wf, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	sc := wf.NewScope([]byte(input))
	sc.SetOutput(0, []byte(`{"order": {"id": 9007199254740995}}`))
	sc.SetOutput(1, []byte(`{"ok": true}`))
	return sc
}

func TestAnExpressionThatFailsShowsItselfAndTheReason(t *testing.T) {
	text := `"` + strings.Repeat("a", 1<<20) + `"`
	list := "[" + strings.Repeat("1,", 200_000) + "1]"
	tests := map[string]struct{ expr, input, want string }{
		"a missing key":            {"input.nope", "{}", "no such key: nope"},
		"a field of null":          {"input.x", "", "no such"},
		"a type":                   {"input.a + input.b", `{"a":1,"b":"x"}`, "no such overload"},
		"division by zero":         {"1 / input.a", `{"a":0}`, "division by zero"},
		"overflow":                 {"input.a * 2", `{"a":9223372036854775807}`, "overflow"},
		"not a number":             {"0.0 / input.a", `{"a":0.0}`, "has no JSON form"},
		"a type inside":            {"[type(input)]", "1", "has no JSON form"},
		"keys that collide":        {"{1: 'a', '1': 'b'}", "1", "same JSON form"},
		"input that is not JSON":   {"input.a", `{"a": nul}`, "the input is not JSON: a, at offset 6"},
		"input with a huge number": {"input.a", `{"a": 1e999}`, "out of range"},
		"input nested too deeply":  {"input", strings.Repeat("[", 1000) + strings.Repeat("]", 1000), "nested deeper"},
		"a large result":           {"[input, input]", text, "larger than"},
		"nested loops":             {"input.all(x, input.all(y, true))", list, "cost limit"},
		"text that grows":          {"input.map(x, 'y').map(x, size(input) > 0 ? 'ab' + 'cd' : '')", list, "cost limit"},
		"long text, joined often":  {"[1,2,3,4,5,6,7,8,9].map(x, input + input)", text, "cost limit"},
		"long text, searched":      {"[1,2,3,4,5,6,7,8,9,10].map(a, [1,2].map(b, input.matches('x*y')))", text, "cost limit"},
		"lists, compared often":    {"input.exists(x, [input] != [input])", list, "cost limit"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := scopeOf(t, tt.expr, tt.input).Output()
			var eval *definitions.EvalError
			if !errors.As(err, &eval) {
				t.Fatalf("error is %v, want an *EvalError", err)
			}
			if eval.Expression != tt.expr || eval.Field != "output" || eval.Step != "" || eval.Unwrap() == nil {
				t.Errorf("error is %#v", eval)
			}
			for _, want := range []string{tt.want, tt.expr} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\ndoes not show %s", err, want)
				}
			}
		})
	}
}

func TestWhenAsksForABool(t *testing.T) {
	b := definitions.Saga("flow").Service("s")
	step(b, "free")
	step(b, "pay").When("input.pay")
	wf := b.MustBuild()
	for input, want := range map[string]string{
		`{"pay": true}`:  "true",
		`{"pay": false}`: "false",
		`{"pay": 1}`:     `step "pay": when: evaluate "input.pay": yields int, but must yield a bool`,
		`{}`:             `step "pay": when: evaluate "input.pay": no such key: pay`,
	} {
		ok, err := wf.NewScope([]byte(input)).When(1)
		got := "false"
		if ok {
			got = "true"
		}
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("with %s: %s, want %s", input, got, want)
		}
	}
	if ok, err := wf.NewScope([]byte("{}")).When(0); !ok || err != nil {
		t.Errorf("a step without a condition: %v, %v", ok, err)
	}
}

func TestRoutingKey(t *testing.T) {
	b := definitions.Saga("flow").Service("s").RoutingKey("input.customer_id")
	step(b, "a")
	wf := b.MustBuild()
	long := strings.Repeat("k", definitions.MaxRoutingKeyBytes+1)
	for input, want := range map[string]string{
		`{"customer_id": "c-7"}`:            "c-7",
		`{"customer_id": 9007199254740993}`: "9007199254740993",
		`{"customer_id": ""}`:               "an empty string",
		`{"customer_id": null}`:             "must yield a string or an integer",
		`{"customer_id": 1.5}`:              "must yield a string or an integer",
		`{"customer_id": "` + long + `"}`:   "longer than 255 bytes",
		`{}`:                                "no such key: customer_id",
	} {
		got, err := wf.EvalRoutingKey([]byte(input))
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || (err == nil && got != want) {
			t.Errorf("with %.40s: %s, want %s", input, got, want)
		}
	}
	b = definitions.Saga("flow").Service("s")
	step(b, "a")
	if key, err := b.MustBuild().EvalRoutingKey([]byte("not JSON")); key != "" || err != nil {
		t.Errorf("without an expression: %q, %v", key, err)
	}
}

func TestInputsOfAStep(t *testing.T) {
	b := definitions.Saga("flow").Service("s")
	step(b, "create")
	step(b, "pay").
		Input("{'order': steps.create.output.id, 'amount': input.total}").
		CompensationInput("{'charge': steps.pay.output}")
	wf := b.MustBuild()
	sc := wf.NewScope([]byte(`{"total": 12}`))
	sc.SetOutput(0, []byte(`{"id": "o-1"}`))
	in, err := sc.Input(1)
	if string(in) != `{"amount":12,"order":"o-1"}` || err != nil {
		t.Errorf("input is %s, %v", in, err)
	}
	in, err = sc.CompensationInput(1)
	if string(in) != `{"charge":null}` || err != nil {
		t.Errorf("compensation input with an unknown outcome is %s, %v", in, err)
	}
	sc.SetOutput(1, []byte(`"ch-1"`))
	if in, err = sc.CompensationInput(1); string(in) != `{"charge":"ch-1"}` || err != nil {
		t.Errorf("compensation input is %s, %v", in, err)
	}
	if in, err = sc.Input(0); in != nil || err != nil {
		t.Errorf("input of a step without an expression is %s, %v", in, err)
	}
	if out, err := sc.Output(); out != nil || err != nil || wf.HasOutput() {
		t.Errorf("output without an expression is %s, %v", out, err)
	}
}
