package engine_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// TestLostAttemptIsSaidInWords loses the only attempt of a step: whoever looks
// at the run reads what that means, not a code alone.
func TestLostAttemptIsSaidInWords(t *testing.T) {
	b := definitions.Saga("once").Service("shop")
	b.Step("pay").Action("pay").Compensation("refund").Retry(definitions.RetryPolicy{MaxAttempts: 1})
	w, l := newWorld(t, nil), newLedger()
	w.start()
	w.register(b.MustBuild())
	doomed := &severable{Broker: w.broker}
	h := shop(l)
	hang, started := make(chan struct{}), make(chan struct{}, 1)
	h["pay"] = func(context.Context, []byte) ([]byte, error) {
		started <- struct{}{}
		<-hang
		return nil, errors.New("killed")
	}
	w.workerOn(doomed, "doomed", h)
	t.Cleanup(func() { close(hang) }) // before the worker is waited for
	id := w.run(rest.Start{Workflow: "once", Input: orderInput})
	<-started
	w.worker("heir", shop(l))
	doomed.kill()
	d := w.wait(id, "compensated")
	for what, text := range map[string]string{"run": d.Error, "step": d.Steps[0].Code + ": " + d.Steps[0].Error} {
		if _, words, _ := strings.Cut(text, ": "); !strings.Contains(words, "may have taken effect") {
			t.Errorf("%s: %q", what, text)
		}
	}
}
