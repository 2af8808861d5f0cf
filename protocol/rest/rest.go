// Package rest holds the JSON resources of the HTTP API, for the server that
// writes them and the clients that read them.
package rest

import (
	"encoding/json"
	"time"
)

// Start asks for a run.
type Start struct {
	Workflow string            `json:"workflow" minLength:"1" maxLength:"128" doc:"Name of a registered workflow."`
	ID       string            `json:"id,omitempty" maxLength:"200" doc:"Idempotency key and id of the run: printable characters without spaces. Made (UUIDv7) if absent."`
	Input    json.RawMessage   `json:"input,omitempty" doc:"The run's input, any JSON; null if absent."`
	Key      string            `json:"key,omitempty" maxLength:"256" doc:"Routing key; by default what the workflow says, else the id."`
	Priority int               `json:"priority,omitempty" minimum:"0" maximum:"9" doc:"Runs with a higher number are dispatched first where tasks wait."`
	Tags     map[string]string `json:"tags,omitempty" doc:"Up to 16 labels to search by."`
	Deadline *time.Time        `json:"deadline,omitempty" doc:"The run turns back if it has not passed its pivot by then."`
}

// Started answers a start.
type Started struct {
	ID       string `json:"id"`
	Workflow string `json:"workflow"`
	Version  string `json:"version"`
	Status   string `json:"status"`
	Created  bool   `json:"created" doc:"False: a run with this id, workflow and input existed already."`
}

// StartOutcome is one answer of a batch: Run or Error is set.
type StartOutcome struct {
	Run   *Started `json:"run,omitempty"`
	Error *Problem `json:"error,omitempty"`
}

// Problem is an RFC 9457 problem document.
type Problem struct {
	Type   string       `json:"type,omitempty"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail,omitempty"`
	Code   string       `json:"code,omitempty" doc:"A stable word for programs."`
	Errors []FieldError `json:"errors,omitempty"`
	// Removed says of a run that was removed how it had ended.
	Removed *Removed `json:"removed,omitempty" doc:"Of a run that was removed: what is still known of it."`
}

// Removed is what is still known of a run that has ended and was removed.
type Removed struct {
	Workflow   string     `json:"workflow"`
	Version    string     `json:"version"`
	Status     string     `json:"status" enum:"succeeded,compensated,committed,aborted"`
	Waived     bool       `json:"waived,omitempty"`
	Created    time.Time  `json:"created"`
	Ended      time.Time  `json:"ended"`
	Removed    time.Time  `json:"removed"`
	KnownUntil *time.Time `json:"known_until,omitempty" doc:"Until when the run's id stays known; absent: for ever."`
}

// FieldError names a field and the rule it breaks.
type FieldError struct {
	Location string `json:"location,omitempty"`
	Message  string `json:"message"`
	Value    any    `json:"value,omitempty"`
}

// Error makes a Problem an error.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

// Run is a run as lists show it.
type Run struct {
	ID         string            `json:"id"`
	Workflow   string            `json:"workflow"`
	Version    string            `json:"version"`
	Status     string            `json:"status" enum:"running,compensating,stalled,succeeded,compensated,committed,aborted"`
	Waived     bool              `json:"waived,omitempty"`
	Key        string            `json:"key"`
	Tags       map[string]string `json:"tags,omitempty"`
	RetryOf    string            `json:"retry_of,omitempty"`
	Parent     string            `json:"parent,omitempty" doc:"Id of the run of which this one is a child."`
	ParentStep string            `json:"parent_step,omitempty" doc:"The step of it that this run is."`
	Created    time.Time         `json:"created"`
	Ended      *time.Time        `json:"ended,omitempty"`
	FailedStep string            `json:"failed_step,omitempty"`
	Error      string            `json:"error,omitempty"`
	Removed    *time.Time        `json:"removed,omitempty" doc:"When the run was removed because of its age; only what is needed to tell how it ended is known any more."`
}

// RunDetail is a run with everything known about it.
type RunDetail struct {
	Run
	Shard     uint32          `json:"shard"`
	Input     json.RawMessage `json:"input,omitempty"`
	Output    json.RawMessage `json:"output,omitempty"`
	Deadline  *time.Time      `json:"deadline,omitempty"`
	Wake      *time.Time      `json:"wake,omitempty" doc:"When the run acts next by itself."`
	Decision  string          `json:"decision,omitempty" enum:"undecided,committed,aborted" doc:"Of a TCC or two-phase-commit run: what was decided. Once it is not undecided it never changes."`
	Heuristic bool            `json:"heuristic,omitempty" doc:"A participant has decided by itself."`
	Waiting   []string        `json:"waiting,omitempty" doc:"In words: what the run waits for."`
	Locks     []RunLock       `json:"locks,omitempty" doc:"The named locks that the run wants, in the order in which it asks for them; it holds them until it has ended."`
	Signals   []KeptSignal    `json:"signals,omitempty" doc:"Received, and not taken by a step yet."`
	Steps     []Step          `json:"steps"`
}

// Step is the state of one step of a run.
type Step struct {
	Name                 string          `json:"name"`
	Kind                 string          `json:"kind,omitempty" enum:"sleep,signal,choice,child" doc:"What a step without a task does; absent: it has a task."`
	After                []string        `json:"after,omitempty"`
	Service              string          `json:"service"`
	Action               string          `json:"action"`
	Compensation         string          `json:"compensation,omitempty"`
	Prepare              string          `json:"prepare,omitempty" doc:"Task types of a participant of a TCC or two-phase-commit run; it has no action."`
	Commit               string          `json:"commit,omitempty"`
	Abort                string          `json:"abort,omitempty"`
	Pivot                bool            `json:"pivot,omitempty"`
	Signal               string          `json:"signal,omitempty" doc:"Name of the signal that the step waits for."`
	Branch               *Branch         `json:"branch,omitempty" doc:"The step is skipped unless that case of that choice was taken."`
	Workflow             string          `json:"workflow,omitempty" doc:"Of a child: the workflow that it is a run of."`
	Child                string          `json:"child,omitempty" doc:"Of a child: id of the run that its last attempt is."`
	State                string          `json:"state" enum:"pending,waiting,sleeping,running,retrying,succeeded,skipped,failed,unknown,compensating,compensated,stalled,waived,resolved"`
	Phase                string          `json:"phase,omitempty" enum:"action,compensate,prepare,commit,abort" doc:"What a step that has begun is at, or was at last."`
	Waiting              string          `json:"waiting,omitempty" doc:"In words: what the step waits for."`
	Attempts             int             `json:"attempts" doc:"Of the action."`
	CompensationAttempts int             `json:"compensation_attempts,omitempty"`
	Worker               string          `json:"worker,omitempty" doc:"Where the attempt in flight is."`
	Input                json.RawMessage `json:"input,omitempty"`
	Output               json.RawMessage `json:"output,omitempty"`
	Code                 string          `json:"code,omitempty"`
	Error                string          `json:"error,omitempty"`
	Stack                string          `json:"stack,omitempty"`
	Progress             json.RawMessage `json:"progress,omitempty" doc:"What the handler of the attempt in flight reported last; else, what the last attempt that did not succeed had reported."`
	NextAttempt          *time.Time      `json:"next_attempt,omitempty"`
	Until                *time.Time      `json:"until,omitempty" doc:"When the wait of the step ends by itself."`
	Started              *time.Time      `json:"started,omitempty"`
	Ended                *time.Time      `json:"ended,omitempty"`
	Items                *Items          `json:"items,omitempty" doc:"Of a step that has fanned out."`
}

// Items are those of a step that has fanned out, each a step of its own.
type Items struct {
	Total  int            `json:"total"`
	States map[string]int `json:"states" doc:"How many items are in which state. A running one is at a worker, or waits for one."`
	Shown  []Step         `json:"shown,omitempty" doc:"Items that are stalled, have failed, are tried again, or are under way, in this order and at most 20."`
	More   int            `json:"more,omitempty" doc:"How many more of these there are: list the items to see them."`
}

// ItemPage is a page of the items of a step.
type ItemPage struct {
	Items []Step `json:"items"`
	Next  string `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
}

// Branch names a case of a choice.
type Branch struct {
	Choice string `json:"choice"`
	Case   string `json:"case"`
}

// Event is a fact of a run's history.
type Event struct {
	Seq        uint64          `json:"seq"`
	At         time.Time       `json:"at"`
	Kind       string          `json:"kind"`
	Step       string          `json:"step,omitempty"`
	Phase      string          `json:"phase,omitempty"`
	Generation uint32          `json:"generation,omitempty"`
	Attempt    uint32          `json:"attempt,omitempty"`
	Worker     string          `json:"worker,omitempty"`
	Code       string          `json:"code,omitempty"`
	Message    string          `json:"message,omitempty"`
	Stack      string          `json:"stack,omitempty"`
	By         string          `json:"by,omitempty"`
	Name       string          `json:"name,omitempty" doc:"Of a signal, or of the case that a choice took."`
	ID         string          `json:"id,omitempty" doc:"Of a signal: its sender's."`
	Until      *time.Time      `json:"until,omitempty"`
	Payload    json.RawMessage `json:"payload,omitempty"`
	Child      string          `json:"child,omitempty" doc:"Of an attempt that is scheduled of a child: id of the run that it is."`
	Parent     string          `json:"parent,omitempty" doc:"Of the start of a child: id of its parent."`
	Text       string          `json:"text" doc:"The event in words."`
}

// RunPage is a page of a list.
type RunPage struct {
	Runs []Run  `json:"runs"`
	Next string `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
}

// Cancel asks a run to turn back.
type Cancel struct {
	Reason string `json:"reason,omitempty" maxLength:"1000"`
	By     string `json:"by,omitempty" maxLength:"128"`
}

// Signal tells a run something that a step of its workflow waits for.
type Signal struct {
	ID      string          `json:"id,omitempty" maxLength:"200" doc:"The sender's, to tell a repetition: a signal with an id that the run has received is not received again."`
	Payload json.RawMessage `json:"payload,omitempty" doc:"Output of the step that waits for it."`
	By      string          `json:"by,omitempty" maxLength:"128"`
}

// SignalRequest is a signal with its name, as it comes through the broker.
type SignalRequest struct {
	Name string `json:"name"`
	Signal
}

// Signalled answers a signal.
type Signalled struct {
	ID       string `json:"id,omitempty" doc:"The signal's."`
	Received bool   `json:"received" doc:"False: it had been received before."`
	Run      Run    `json:"run"`
}

// KeptSignal is a signal that no step has taken yet.
type KeptSignal struct {
	Name string `json:"name"`
	ID   string `json:"id,omitempty"`
}

// Decision is what was decided of a TCC or two-phase-commit run.
type Decision struct {
	ID       string `json:"id"`
	Decision string `json:"decision" enum:"undecided,committed,aborted" doc:"Once it is not undecided it never changes. Undecided promises nothing."`
}

// Settle is an operator's order about a stalled step, or (Retry only) an ended run.
type Settle struct {
	Step    string          `json:"step,omitempty" doc:"May be left out where one step only is stalled."`
	Reason  string          `json:"reason,omitempty" maxLength:"1000"`
	By      string          `json:"by,omitempty" maxLength:"128"`
	Input   json.RawMessage `json:"input,omitempty" doc:"Retry: another input, under a new generation."`
	Applied bool            `json:"applied,omitempty" doc:"Resolve: the effect has happened."`
	Output  json.RawMessage `json:"output,omitempty" doc:"Resolve: the step's output."`
	ID      string          `json:"id,omitempty" doc:"Retry of an ended run: id of the new run."`
}

// Workflow is one version of a registered workflow.
type Workflow struct {
	Name       string          `json:"name"`
	Version    string          `json:"version"`
	Kind       string          `json:"kind"`
	Active     bool            `json:"active"`
	Registered time.Time       `json:"registered"`
	Created    bool            `json:"created,omitempty" doc:"Of a registration: it was new."`
	Definition json.RawMessage `json:"definition,omitempty"`
}

// Worker is a worker as this orchestrator knows it.
type Worker struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Service     string    `json:"service"`
	TaskTypes   []string  `json:"task_types"`
	State       string    `json:"state" enum:"ready,draining,unreachable,silent,incompatible"`
	Protocol    string    `json:"protocol" doc:"The protocol versions that it speaks, as in 1 or 1 to 2."`
	Problem     string    `json:"problem,omitempty" doc:"Why it gets no tasks, if it is incompatible."`
	Release     string    `json:"release,omitempty"`
	Capacity    int       `json:"capacity"`
	Credit      int       `json:"credit"`
	Weight      int       `json:"weight"`
	Outstanding int       `json:"outstanding" doc:"Tasks sent and not answered."`
	Queued      int       `json:"queued"`
	Running     int       `json:"running"`
	LastSeen    time.Time `json:"last_seen"`
}

// Ring is a service's ring; with a key, also where that key goes.
type Ring struct {
	Service  string       `json:"service"`
	TaskType string       `json:"task_type,omitempty" doc:"Set if these are the workers that serve this type; else all of the service."`
	Points   int          `json:"points" doc:"Virtual nodes on the ring."`
	Members  []RingMember `json:"members"`
	Key      string       `json:"key,omitempty"`
	Owner    string       `json:"owner,omitempty" doc:"Worker that the key goes to."`
	Fallback []string     `json:"fallback,omitempty" doc:"Where it would go next, in order, if that worker left."`
}

// RingMember is a worker's part of a ring.
type RingMember struct {
	Worker      string  `json:"worker"`
	Name        string  `json:"name"`
	Weight      int     `json:"weight"`
	Share       float64 `json:"share" doc:"Part of the ring that it owns, 0 to 1."`
	Outstanding int     `json:"outstanding"`
}

// Health is the state of one orchestrator.
type Health struct {
	Status string            `json:"status" enum:"ok,degraded"`
	Checks map[string]string `json:"checks,omitempty" doc:"What is wrong, by part; or ok."`
}

// ServiceQueue is a group of tasks that wait in the engine.
type ServiceQueue struct {
	Service string `json:"service"`
	Type    string `json:"type"`
	Waiting int    `json:"waiting"`
	Workers int    `json:"workers" doc:"That serve this type now."`
}

// Stats is a running system at a glance.
type Stats struct {
	Runs     map[string]map[string]int64 `json:"runs" doc:"Counts by workflow and status."`
	Waiting  []ServiceQueue              `json:"waiting"`
	InFlight int                         `json:"in_flight"`
	Resident int                         `json:"resident" doc:"Runs held in memory."`
}
