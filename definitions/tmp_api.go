package definitions

import "errors"

var errSoon = errors.New("not yet")

type expression struct{}
type stepExpressions struct{}

func compile(doc document, faults []Fault) (*Workflow, error) { return nil, errSoon }

// Parse reads.
func Parse(data []byte) (*Workflow, error) { return nil, errSoon }

// EvalRoutingKey evaluates.
func (w *Workflow) EvalRoutingKey(input []byte) (string, error) { return "", errSoon }

// Scope holds what expressions see.
type Scope struct{}

func (w *Workflow) NewScope(input []byte) *Scope             { return &Scope{} }
func (sc *Scope) SetOutput(step int, output []byte)          {}
func (sc *Scope) When(step int) (bool, error)                { return false, errSoon }
func (sc *Scope) Input(step int) ([]byte, error)             { return nil, errSoon }
func (sc *Scope) CompensationInput(step int) ([]byte, error) { return nil, errSoon }
func (sc *Scope) Output() ([]byte, error)                    { return nil, errSoon }
