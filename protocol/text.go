package protocol

import (
	"fmt"
	"strconv"
)

var phaseNames = [...]string{
	PhaseAction:     "action",
	PhaseCompensate: "compensate",
	PhasePrepare:    "prepare",
	PhaseCommit:     "commit",
	PhaseAbort:      "abort",
}

var outcomeNames = [...]string{
	OutcomeSucceeded: "succeeded",
	OutcomeFailed:    "failed",
	OutcomeUnknown:   "unknown",
	OutcomeReadOnly:  "read-only",
}

var decisionNames = [...]string{
	Undecided: "undecided",
	Committed: "committed",
	Aborted:   "aborted",
}

// Valid tells whether d is one of the decisions.
func (d Decision) Valid() bool { return int(d) < len(decisionNames) }

// String is the decision as it is written in headers and in JSON, or
// "decision(n)" for a number that is not a decision.
func (d Decision) String() string {
	if !d.Valid() {
		return "decision(" + strconv.Itoa(int(d)) + ")"
	}
	return decisionNames[d]
}

// MarshalText never fails; what it writes of an invalid decision is refused by
// UnmarshalText.
func (d Decision) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the reverse of String for valid decisions. Its error wraps
// [ErrMalformed].
func (d *Decision) UnmarshalText(text []byte) error {
	for i, n := range decisionNames {
		if n == string(text) {
			*d = Decision(i)
			return nil
		}
	}
	return fmt.Errorf("%w: %.40q is not a decision", ErrMalformed, text)
}

// Valid tells whether p is one of the phases.
func (p Phase) Valid() bool { return p > 0 && int(p) < len(phaseNames) }

// String is the phase as it is written in headers and in JSON, or "phase(n)"
// for a number that is not a phase.
func (p Phase) String() string {
	if !p.Valid() {
		return "phase(" + strconv.Itoa(int(p)) + ")"
	}
	return phaseNames[p]
}

// MarshalText never fails; what it writes of an invalid phase is refused by
// UnmarshalText.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the reverse of String for valid phases. Its error wraps
// [ErrMalformed].
func (p *Phase) UnmarshalText(text []byte) error {
	for i, n := range phaseNames {
		if i > 0 && n == string(text) {
			*p = Phase(i)
			return nil
		}
	}
	return fmt.Errorf("%w: %.40q is not a phase", ErrMalformed, text)
}

// Valid tells whether o is one of the outcomes.
func (o Outcome) Valid() bool { return o > 0 && int(o) < len(outcomeNames) }

// String is the outcome as it is written in headers, or "outcome(n)" for a
// number that is not an outcome.
func (o Outcome) String() string {
	if !o.Valid() {
		return "outcome(" + strconv.Itoa(int(o)) + ")"
	}
	return outcomeNames[o]
}

// MarshalText never fails; what it writes of an invalid outcome is refused by
// UnmarshalText.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText is the reverse of String for valid outcomes. Its error wraps
// [ErrMalformed].
func (o *Outcome) UnmarshalText(text []byte) error {
	for i, n := range outcomeNames {
		if i > 0 && n == string(text) {
			*o = Outcome(i)
			return nil
		}
	}
	return fmt.Errorf("%w: %.40q is not an outcome", ErrMalformed, text)
}
