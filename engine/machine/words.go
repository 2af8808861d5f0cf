package machine

// words say what a code means that the core or the shell gives without a
// message. The codes of workers come with messages of their own.
var words = map[string]string{
	"worker_died":         "the worker died while it had the task, which may have taken effect",
	"timeout":             "the worker gave no answer within the timeout; the task may have taken effect",
	"vanished":            "the worker no longer has the task and gave no result; it may have taken effect",
	CodeIsolated:          "three workers died under the task, so that no other gets it; it may have taken effect",
	CodeQueueTimeout:      "no worker started the task within its queue timeout",
	CodeExhausted:         "its attempts have run out",
	CodeFinal:             "it failed, and is not to be tried again",
	CodeCancelled:         "an operator or a caller asked for it",
	CodeDeadline:          "the run's deadline has passed",
	CodeOutput:            "the workflow's output could not be computed",
	CodeLockRefused:       "too many runs wait for one of its locks",
	CodeExpression:        "an expression of the step could not be evaluated",
	CodeSignalTimeout:     "the signal did not come in time",
	CodeBranch:            "its choice took another branch",
	CodeNoCase:            "no case of the choice applies",
	CodeStepFailed:        "a step failed for good, or its outcome is unknown",
	CodeVotedNo:           "a participant did not prepare, or its vote is unknown",
	CodeHeuristicCommit:   "the participant has committed by itself",
	CodeHeuristicRollback: "the participant has rolled back by itself",
	CodeHeuristicMixed:    "the participant has by itself committed a part and rolled back the rest",
}

// Message is the message of a failure for people: the one that came with its
// code, or else what the code means, where the core knows that.
func Message(code, message string) string {
	if message != "" {
		return message
	}
	return words[code]
}
