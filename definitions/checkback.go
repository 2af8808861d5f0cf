package definitions

import "time"

// CheckBack makes the saga begin as the second half of a two-phase message. Its
// caller starts the run first, then commits a transaction of its own database, and
// then gives the run the signal "submitted". Steps that are added after this run
// when that signal has come. Where it has not within wait, check is performed,
// again and again until it is known: its handler succeeds if the caller's
// transaction has committed, and the run goes on; it fails for good if the
// transaction has not and never will, and the run ends with nothing done. Package
// worker/outbox has what a handler asks (Marks).
//
// The two steps are named "submitted" and "check".
func (b *SagaBuilder) CheckBack(check TaskRef, wait time.Duration) *SagaBuilder {
	b.Step("submitted").WaitSignal("submitted").Timeout(wait).TimeoutOutput("false")
	b.Step("check").Do(check).When("steps.submitted.output == false").NoCompensation("it asks, and changes nothing").
		Retry(RetryPolicy{Initial: time.Second, Max: time.Minute, MaxAttempts: Unlimited})
	return b
}
