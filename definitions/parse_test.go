package definitions_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

func TestParseNamesThePathOfAFault(t *testing.T) {
	const a = `{"name":"a","action":"x","compensation":"y"}`
	tests := map[string]struct {
		json string
		want []string
	}{
		"nothing":        {``, []string{"  syntax"}},
		"cut short":      {`{"kind":"saga"`, []string{"  syntax"}},
		"not an object":  {`[]`, []string{"  type"}},
		"text after":     {`{} x`, []string{"  syntax"}},
		"broken inside":  {`{"steps":[{"name":"a"},{"retry":{"max":tru}}]}`, []string{" steps[1].retry.max syntax"}},
		"not UTF-8":      {"{\"name\":\"\xff\"}", []string{" name syntax"}},
		"key twice":      {`{"steps":[{"name":"a","name":"b"}]}`, []string{" steps[0].name duplicate"}},
		"nothing inside": {`{}`, []string{" kind required", " name required", " steps required"}},
		"another kind":   {`{"kind":"choreography","name":"n","service":"s","steps":[` + a + `]}`, []string{" kind value"}},
		"unknown fields": {`{"kind":"saga","name":"n","service":"s","foo":1,"steps":[{"name":"a","action":"x","compensation":"y","bar":1,"retry":{"baz":2}}]}`,
			[]string{" foo unknown-field", "a steps[0].retry.baz unknown-field", "a steps[0].bar unknown-field"}},
		"wrong types": {`{"kind":"saga","name":"n","service":"s","deadline":3,"steps":[{"name":"a","action":1,"compensation":{},"pivot":"yes","after":[1],"retry":[],"timeout":null,"placement":2}]}`,
			[]string{" deadline type", "a steps[0].action type", "a steps[0].compensation type", "a steps[0].pivot type", "a steps[0].after[0] type",
				"a steps[0].retry type", "a steps[0].timeout type", "a steps[0].placement type"}},
		"steps of a wrong type": {`{"kind":"saga","name":"n","steps":{}}`, []string{" steps type"}},
		"step of a wrong type":  {`{"kind":"saga","name":"n","service":"s","steps":[7,` + a + `]}`, []string{" steps[0] type"}},
		"wrong values": {`{"kind":"saga","name":"n","service":"s","steps":[{"name":"a","action":"x","compensation":"y","after":["b"],"timeout":"5 parsecs","placement":"any",
			"retry":{"jitter":-1,"max_attempts":1.5,"multiplier":1000,"initial":"-1s"}}]}`,
			[]string{"a steps[0].retry.jitter retry", "a steps[0].retry.max_attempts type", "a steps[0].timeout duration", "a steps[0].placement value",
				"a steps[0].retry.initial duration", "a steps[0].retry.multiplier retry", "a steps[0].after[0] unknown-step"}},
		"too many steps": {`{"kind":"saga","name":"n","service":"s","steps":[` + strings.Repeat(a+",", 256) + a + `]}`, []string{" steps limit"}},
		"too long":       {strings.Repeat(" ", definitions.MaxDefinitionBytes+1), []string{"  limit"}},
		"too deep":       {strings.Repeat("[", 1000), []string{" " + nested(513) + " syntax"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := definitions.Parse([]byte(tt.json))
			if got := faultsOf(t, err); !slices.Equal(got, tt.want) {
				t.Errorf("faults are\n%q, want\n%q\n%v", got, tt.want, err)
			}
		})
	}
}

func nested(n int) string { return strings.Repeat("[0]", n) }

func TestCanonicalJSON(t *testing.T) {
	const head, tail = `{"kind":"saga","name":"n",`, `]}`
	const a = `{"name":"a","service":"s","action":"x","compensation":"y","after":[]`
	tests := map[string]struct{ json, want string }{
		"space and order": {`{ "steps" : [ {"compensation":"y", "service":"s","action":"x","name":"a"} ], "name":"n", "kind":"saga" }`,
			head + `"steps":[` + a + "}" + tail},
		"the workflow's service": {head + `"service":"s","steps":[{"name":"a","action":"x","compensation":"y"},{"name":"b","service":"t","action":"x","compensation":"y"}]}`,
			head + `"steps":[` + a + `},{"name":"b","service":"t","action":"x","compensation":"y","after":["a"]}` + tail},
		"the order of after": {head + `"steps":[` + a + `},{"name":"b","service":"s","action":"x2","compensation":"y2","after":[]},{"name":"c","service":"s","action":"x3","no_compensation":"r","after":["b","a"]}]}`,
			head + `"steps":[` + a + `},{"name":"b","service":"s","action":"x2","compensation":"y2","after":[]},{"name":"c","service":"s","action":"x3","no_compensation":"r","after":["a","b"]}` + tail},
		"defaults": {head + `"description":"","deadline":"0s","steps":[` + a + `,"timeout":"60s","compensation_timeout":"1m0s","queue_timeout":"0","placement":"bounded","pivot":false,
			"retry":{"initial":"0.2s","max":"1m","multiplier":2.0,"jitter":0.2,"max_attempts":10,"max_elapsed":"0s","non_retryable":[]},"compensation_retry":{"max_attempts":-1}}]}`,
			head + `"steps":[` + a + "}" + tail},
		"durations": {head + `"deadline":"3600s","steps":[` + a + `,"timeout":"90s","compensation_timeout":"1h30m","queue_timeout":"1500ms"}]}`,
			head + `"deadline":"1h","steps":[` + a + `,"timeout":"1m30s","compensation_timeout":"1h30m","queue_timeout":"1.5s"}` + tail},
		"retry": {head + `"steps":[` + a + `,"retry":{"non_retryable":["b","a","b"],"jitter":0,"initial":"2m"},"compensation_retry":{"max":"100ms","max_attempts":3}}]}`,
			head + `"steps":[` + a + `,"retry":{"initial":"2m","max":"2m","jitter":0,"non_retryable":["a","b"]},"compensation_retry":{"initial":"100ms","max":"100ms","max_attempts":3}}` + tail},
		"attempts after the pivot": {head + `"steps":[{"name":"p","service":"s","action":"x","pivot":true},{"name":"q","service":"s","action":"x","retry":{"max_attempts":-1}},{"name":"r","service":"s","action":"x","retry":{"max_attempts":10}}]}`,
			head + `"steps":[{"name":"p","service":"s","action":"x","pivot":true,"after":[]},{"name":"q","service":"s","action":"x","after":["p"]},{"name":"r","service":"s","action":"x","after":["q"],"retry":{"max_attempts":10}}` + tail},
		"everything": {head + `"description":"d <&> \u00e9","routing_key":"input.k","deadline":"2h45m","output":"input","serial":true,"locks":[{"shared":false,"name":"input.a"},{"name":"['b']","shared":true}],"steps":[` + a + `,"when":"true","input":"1","compensation_input":"2","placement":"least-loaded"}]}`,
			head + `"description":"d <&> é","routing_key":"input.k","deadline":"2h45m","output":"input","locks":[{"name":"input.a"},{"name":"['b']","shared":true}],"serial":true,"steps":[` + a + `,"when":"true","input":"1","compensation_input":"2","placement":"least-loaded"}` + tail},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wf, err := definitions.Parse([]byte(tt.json))
			if err != nil {
				t.Fatal(err)
			}
			if got := string(wf.JSON()); got != tt.want {
				t.Errorf("canonical JSON is\n%s, want\n%s", got, tt.want)
			}
		})
	}
}

// The version is what stored runs refer to: it must not change by accident.
func TestTheVersionOfADefinitionStays(t *testing.T) {
	b := definitions.Saga("order-flow").Service("orders")
	b.Step("create").Action("orders.create").Compensation("orders.cancel")
	wf := b.MustBuild()
	if want := "{\"kind\":\"saga\",\"name\":\"order-flow\",\"steps\":[{\"name\":\"create\",\"service\":\"orders\",\"action\":\"orders.create\",\"compensation\":\"orders.cancel\",\"after\":[]}]}"; string(wf.JSON()) != want {
		t.Errorf("canonical JSON is %s", wf.JSON())
	}
	if want := "eda0daf129eb38b38fa907f09b55e40a"; wf.Version() != want {
		t.Errorf("version is %s, want %s", wf.Version(), want)
	}
}

func TestTheJSONIsACopy(t *testing.T) {
	b := definitions.Saga("flow").Service("s")
	step(b, "a")
	wf := b.MustBuild()
	wf.JSON()[0] = 'x'
	if _, err := definitions.Parse(wf.JSON()); err != nil {
		t.Error(err)
	}
}

func TestADefinitionTooLongToTravelIsRefused(t *testing.T) {
	b := definitions.Saga("flow").Service("s")
	for i := range definitions.MaxSteps {
		long := fmt.Sprintf("'%s'", strings.Repeat("x", definitions.MaxExpressionBytes-2))
		step(b, fmt.Sprint("s", i)).Input(long).CompensationInput(long)
	}
	_, err := b.Build()
	if got, want := faultsOf(t, err), []string{"  limit"}; !slices.Equal(got, want) {
		t.Errorf("faults are %q, want %q", got, want)
	}
	if !errors.Is(err, definitions.ErrInvalid) {
		t.Error("not ErrInvalid")
	}
}
