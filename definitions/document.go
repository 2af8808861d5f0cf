package definitions

import "time"

// document is a definition as written, before validation. Empty and zero
// values mean that a thing was not given.
type document struct {
	kind        Kind
	name        string
	description string
	service     string
	routingKey  string
	deadline    time.Duration
	output      string
	locks       []lockDocument
	serial      bool
	steps       []stepDocument
}

type stepDocument struct {
	kind                StepKind // follows from the rest
	name                string
	service             string
	action              string
	compensation        string
	undoService         string // of the typed compensation, to be compared with service
	noCompensation      string
	hasNoCompensation   bool
	pivot               bool
	after               []string
	hasAfter            bool
	when                string
	input               string
	compensationInput   string
	retry               RetryPolicy
	compensationRetry   RetryPolicy
	timeout             time.Duration
	compensationTimeout time.Duration
	participant         participantDocument
	waitDocument
	choiceDocument
	childDocument
	queueTimeout time.Duration
	placement    Placement
	forEach      string
	parallel     int
	maxItems     int
}

// participantDocument is what a participant has in place of action and
// compensation.
type participantDocument struct {
	prepare       string
	commit        string
	abort         string
	commitService string // of the typed commit, to be compared with service
	abortService  string
	phaseTwoRetry RetryPolicy
	commitTimeout time.Duration
	abortTimeout  time.Duration
}
