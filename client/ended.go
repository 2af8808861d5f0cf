package client

import (
	"context"
	"errors"
	"time"
)

// EndedAt says when each of the given runs ended; runs that have not ended, or are
// not known, are left out. Runs that were removed are known until their tombstones
// are. It serves as Ended of the options of worker/inbox and worker/xa.
func (c *Client) EndedAt(ctx context.Context, runs []string) (map[string]time.Time, error) {
	ended := make(map[string]time.Time, len(runs))
	for _, id := range runs {
		run, err := c.Poll(ctx, id, 0)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if run.Ended != nil {
			ended[id] = *run.Ended
		}
	}
	return ended, nil
}
