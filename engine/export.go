package engine

import (
	"context"
	"errors"
	"io"

	"github.com/ringmaster-dev/ringmaster/archive"
)

// Export writes a page of an export of the store, whoever owns its shards, and
// returns the cursor of the next; "" after the last.
func (e *Engine) Export(ctx context.Context, f archive.Filter, cursor string, w io.Writer) (next string, err error) {
	x := archive.Exporter{Store: e.cfg.Store, Filter: f}
	next, err = x.Page(ctx, cursor, w)
	if errors.Is(err, archive.ErrBadCursor) {
		return "", &Error{Kind: KindInvalid, Code: "bad_cursor", Field: "cursor", Message: "not a cursor that an export gave out", Err: err}
	}
	return next, storeError("export runs", err)
}
