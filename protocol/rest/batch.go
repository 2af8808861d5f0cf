package rest

// MaxBatch is the largest number of runs that one batch may start.
const MaxBatch = 1000

// StartBatch asks for many runs at once.
type StartBatch struct {
	Runs []Start `json:"runs" minItems:"1" maxItems:"1000" nullable:"false" doc:"The runs to start; each is answered for itself."`
}

// StartedBatch answers a StartBatch: one outcome for each run, in order.
type StartedBatch struct {
	Runs []StartOutcome `json:"runs"`
}

// Activate makes new runs of a workflow use a version.
type Activate struct {
	Version string `json:"version" minLength:"1" maxLength:"64" doc:"A registered version of the workflow."`
}

// WorkflowList is every version of every workflow.
type WorkflowList struct {
	Workflows []Workflow `json:"workflows"`
}

// WorkerList is every worker that the orchestrator knows.
type WorkerList struct {
	Workers []Worker `json:"workers"`
}

// EventList is a run's history.
type EventList struct {
	Events []Event `json:"events"`
}
