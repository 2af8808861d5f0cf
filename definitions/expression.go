package definitions

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/types"
)

// EvaluationCostLimit bounds the cost of one evaluation in CEL's units: about
// one per operation and per ten bytes of text handled.
const EvaluationCostLimit = 1_000_000

// maxNesting bounds how deep macros such as map and filter nest.
const maxNesting = 3

// maxRegexSize bounds the compiled size of a regular expression.
const maxRegexSize = 1000

// expression is a compiled expression. It is immutable.
type expression struct {
	step    string // the step's name, or empty
	field   string
	text    string
	program cel.Program
}

// stepExpressions are those of one step; nil where there is none.
type stepExpressions struct {
	when, input, compensationInput *expression
	sleepUntil, timeoutOutput      *expression
	cases                          []*expression // of a choice
	forEach                        *expression
}

// environment is what all expressions are compiled in. It is built once, when
// the first expression is, and does not change.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("input", cel.DynType),
		cel.Variable("steps", cel.MapType(cel.StringType, cel.MapType(cel.StringType, cel.DynType))),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserExpressionSizeLimit(MaxExpressionBytes),
		cel.ParserRecursionLimit(100),
		cel.ParserErrorRecoveryLimit(8),
		cel.ExpressionNodeLimit(10_000),
		cel.RegexProgramSizeLimit(maxRegexSize),
		cel.ASTValidators(
			cel.ValidateDurationLiterals(),
			cel.ValidateTimestampLiterals(),
			cel.ValidateRegexLiterals(),
			cel.ValidateComprehensionNestingLimit(maxNesting),
		),
	)
})

// variables says which variables an expression may use.
type variables bool

const (
	ofRun  variables = false // input and steps
	ofItem variables = true  // ... and item and index
)

func (v variables) environment() (*cel.Env, error) {
	if v == ofItem {
		return itemEnvironment()
	}
	return environment()
}

// itemEnvironment is the environment of expressions about an item of a step
// that fans out.
var itemEnvironment = sync.OnceValues(func() (*cel.Env, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	return env.Extend(itemVariables()...)
})

// want is the type that an expression must yield.
type want int

const (
	wantJSON want = iota
	wantBool
	wantKey
	wantTime
	wantList
	wantNames
)

// admits reports whether a checked expression may yield what is wanted; for a
// dynamic type that shows only when it is evaluated.
func (w want) admits(t *cel.Type) bool {
	switch t.Kind() {
	case types.DynKind, types.AnyKind:
		return true
	case types.BoolKind:
		return w == wantJSON || w == wantBool
	case types.StringKind:
		return w != wantBool && w != wantList
	case types.IntKind:
		return w == wantJSON || w == wantKey || w == wantTime
	case types.UintKind:
		return w == wantJSON || w == wantKey
	case types.TimestampKind:
		return w == wantJSON || w == wantTime
	case types.ListKind:
		return w == wantJSON || w == wantList || w == wantNames && wantNames.admits(t.Parameters()[0]) && t.Parameters()[0].Kind() != types.ListKind
	case types.TypeKind:
		return false
	}
	return w == wantJSON
}

func (w want) String() string {
	switch w {
	case wantBool:
		return "a bool"
	case wantKey:
		return "a string or an integer"
	case wantTime:
		return "a time: a text in RFC 3339, a timestamp, or seconds since 1970"
	case wantList:
		return "a list"
	case wantNames:
		return "a string or a list of strings"
	}
	return "a value with a JSON form"
}

// problem is something wrong with an expression.
type problem struct {
	rule    string
	message string
}

// compileExpression parses, checks and plans an expression. The references to
// steps are returned also where the expression has other problems, as far as
// it could be parsed.
func compileExpression(text string, w want, vars variables) (cel.Program, []reference, []problem) {
	if len(text) > MaxExpressionBytes {
		return nil, nil, []problem{{RuleLimit, fmt.Sprintf("longer than %d bytes", MaxExpressionBytes)}}
	}
	if !utf8.ValidString(text) {
		return nil, nil, []problem{{RuleExpression, "not valid UTF-8"}}
	}
	env, err := vars.environment()
	if err != nil {
		return nil, nil, []problem{{RuleExpression, err.Error()}}
	}
	parsed, issues := env.Parse(text)
	if issues.Err() != nil {
		return nil, nil, issueProblems(issues)
	}
	refs, problems := findReferences(parsed.NativeRep())
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		return nil, refs, append(problems, issueProblems(issues)...)
	}
	if t := checked.OutputType(); !w.admits(t) {
		problems = append(problems, problem{RuleExpression, fmt.Sprintf("yields %s, but must yield %s", t, w)})
	}
	if len(problems) > 0 {
		return nil, refs, problems
	}
	program, err := env.Program(checked,
		cel.EvalOptions(cel.OptOptimize),
		cel.CustomDecoratorV2(orderMaps),
		cel.CostTracking(pricer{}),
		cel.CostLimit(EvaluationCostLimit))
	if err != nil {
		return nil, refs, []problem{{RuleExpression, err.Error()}}
	}
	return program, refs, nil
}

func issueProblems(issues *cel.Issues) []problem {
	var ps []problem
	for _, e := range issues.Errors() {
		p := problem{RuleExpression, place(e.Location) + e.Message}
		if !slices.Contains(ps, p) {
			ps = append(ps, p)
		}
	}
	if len(ps) == 0 {
		ps = append(ps, problem{RuleExpression, issues.Err().Error()})
	}
	return ps
}

// place shows a position in an expression, counted from one.
func place(l common.Location) string {
	if l == nil || l.Line() < 1 {
		return ""
	}
	return fmt.Sprintf("line %d, column %d: ", l.Line(), l.Column()+1)
}

// quoted joins names for a message.
func quoted(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(q, ", ")
}
