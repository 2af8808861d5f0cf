package definitions

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrInvalid is what errors.Is finds in every error about a definition that
// breaks a rule.
var ErrInvalid = errors.New("invalid workflow definition")

// The rules that a Fault can name. They are stable: programs may compare them.
const (
	RuleSyntax       = "syntax"        // the text is not JSON
	RuleType         = "type"          // a JSON value of the wrong type
	RuleUnknownField = "unknown-field" // a field that the format does not have
	RuleRequired     = "required"      // a value that must be given
	RuleValue        = "value"         // a value outside its set or range
	RuleName         = "name"          // a malformed name
	RuleDuplicate    = "duplicate"     // a name that is taken
	RuleLimit        = "limit"         // too many or too long
	RuleUnknownStep  = "unknown-step"  // no step has that name
	RuleCycle        = "cycle"         // steps that wait for each other
	RuleUnreachable  = "unreachable"   // a step that waits for a cycle
	RulePivot        = "pivot"         // a saga has one pivot, and all steps are before or after it
	RuleKind         = "kind"          // a step does one thing, and has the settings of that
	RuleBranch       = "branch"        // a branch is of a choice that comes before, and of one of its cases
	RuleCompensation = "compensation"  // how a step is undone, before and after the pivot
	RuleParticipant  = "participant"   // the three tasks of a participant: one service, no two the same
	RuleForEach      = "for-each"      // the settings of a step that fans out
	RuleDuration     = "duration"      // a malformed, negative or too long duration
	RuleRetry        = "retry"         // a retry policy that makes no sense
	RuleExpression   = "expression"    // an expression that does not compile, or has the wrong type
	RuleReference    = "reference"     // an expression that refers to a step it cannot see
)

// Fault is one rule that a definition breaks.
type Fault struct {
	Step    string // the step's name; empty if the fault is not a step's
	Field   string // where it is, as a path in the JSON form: steps[1].retry.max
	Rule    string // one of the Rule constants
	Message string // for people
}

// String returns the fault as one line of text.
func (f Fault) String() string {
	var b strings.Builder
	if f.Step != "" {
		b.WriteString("step " + strconv.Quote(f.Step) + ": ")
	}
	if f.Field != "" {
		b.WriteString(f.Field + ": ")
	}
	b.WriteString(f.Message)
	if f.Rule != "" {
		b.WriteString(" [" + f.Rule + "]")
	}
	return b.String()
}

// Invalid is the error of a definition that breaks rules. It holds every fault
// that was found, at least one: first what cannot be read, then what is wrong
// with the workflow, its steps, their order and their expressions.
type Invalid struct {
	Workflow string // the workflow's name, as far as it is known
	Faults   []Fault
}

// Error lists all faults, one per line if there are several.
func (e *Invalid) Error() string {
	head := ErrInvalid.Error()
	if e.Workflow != "" {
		head = fmt.Sprintf("%s %q", head, e.Workflow)
	}
	if len(e.Faults) == 1 {
		return head + ": " + e.Faults[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d faults", head, len(e.Faults))
	for _, f := range e.Faults {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// Is reports whether target is ErrInvalid.
func (e *Invalid) Is(target error) bool { return target == ErrInvalid }

// EvalError is the error of an expression that could not be evaluated on a
// run's data: a key that is not there, a value of the wrong type, a limit.
type EvalError struct {
	Step       string // the step's name, an item's with its index; empty for the workflow's own expressions
	Field      string // routing_key, output, when, for_each, input, compensation_input, sleep_until, timeout_output or choice[N].when
	Expression string // its text
	Err        error
}

// Error shows the expression, a long one in part, and the reason.
func (e *EvalError) Error() string {
	const most = 200
	text := e.Expression
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	where := e.Field
	if e.Step != "" {
		where = "step " + strconv.Quote(e.Step) + ": " + e.Field
	}
	return fmt.Sprintf("%s: evaluate %q: %v", where, text, e.Err)
}

// Unwrap returns the reason.
func (e *EvalError) Unwrap() error { return e.Err }
