package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// MaxProgressBytes bounds the JSON of a progress report.
const MaxProgressBytes = protocol.MaxProgressBytes

// ErrNoTask is returned by [Progress] for a context that belongs to no task.
var ErrNoTask = errors.New("the context belongs to no task")

// Progress reports how far a long task has come. The worker's next heartbeat
// carries it, so that people see it beside the step; the last report also
// reaches the next attempt, as [TaskInfo.Progress], if this one fails or its
// worker dies. It is a hint to go on from, kept as of the last heartbeat or of
// the failure, and no record of what was done.
//
// Details are encoded as JSON, at most [MaxProgressBytes] of it. Each report
// replaces the one before; reporting is cheap, and may be done often. It may be
// called from several goroutines of a handler.
func Progress(ctx context.Context, details any) error {
	p, ok := ctx.Value(progressKey{}).(*progress)
	if !ok {
		return ErrNoTask
	}
	b, err := json.Marshal(details)
	if err != nil {
		return fmt.Errorf("encode progress: %w", err)
	}
	if len(b) > MaxProgressBytes {
		return fmt.Errorf("progress is %d bytes of JSON; at most %d", len(b), MaxProgressBytes)
	}
	p.report.Store(&b)
	return nil
}

type progressKey struct{}

// progress holds the last report of a handler.
type progress struct {
	report atomic.Pointer[[]byte]
}

// last returns the last report, nil if there was none.
func (p *progress) last() []byte {
	if b := p.report.Load(); b != nil {
		return *b
	}
	return nil
}
