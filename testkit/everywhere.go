package testkit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// canonical is JSON text without blanks and with sorted keys.
func (r *Run) canonical(data []byte) string {
	r.t.Helper()
	if len(data) == 0 {
		return "null"
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		r.fail("not JSON: %s: %v", shorten(data), err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		r.fail("not JSON: %s: %v", shorten(data), err)
	}
	return string(out)
}

// CrashEverywhere runs the workflow without a crash, and then twice for each
// decision of it: with a crash right after the decision is durable, and with one
// when the tasks it calls for are out and performed (see [Kit.CrashAfter]). It
// fails the test where a run ends otherwise than the first one: another status,
// output, or other effects by idempotency key. The run's id, which differs, may
// stand in the output.
//
// Check, if not nil, is called after each run; it can look at what the handlers
// have done. [Kit.BeforeRun] can clear that before each run.
func (k *Kit) CrashEverywhere(input any, check func(r *Run), options ...Option) {
	k.t.Helper()
	data := k.encode(input)
	whole := k.run(data, nil, options)
	if check != nil {
		check(whole)
	}
	want := whole.summary()
	for commit := 1; ; commit++ {
		crashes := 0
		for _, do := range [...]deed{crashingIdle, crashing} {
			r := k.run(data, &trigger{at: Moment{commit: commit}, target: target{step: -1, item: everyItem}, do: do}, options)
			crashes += r.Crashes - whole.Crashes
			if got := r.summary(); got != want {
				r.fail("a crash makes a difference\nwithout: %s\nwith:    %s\nthe run without a crash: %s\n\nthe run with it:",
					want, got, whole)
			}
			if check != nil {
				check(r)
			}
		}
		if crashes <= 0 {
			return // the decision was not reached
		}
	}
}

// summary is what must not depend on crashes.
func (r *Run) summary() string {
	text := fmt.Sprintf("%v, output %s, effects: %s", r.Status, r.canonical(r.Output), list(r.Effects()))
	return strings.ReplaceAll(text, r.ID, "RUN")
}
