package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// maxPage bounds what is read of a page of an export. A page ends after a few
// megabytes, but has at least one run whole.
const maxPage = 1 << 30

// page is an answer that is lines of text, and the cursor of the next.
type page struct {
	text []byte
	next string
}

// ExportPage writes one page of an export, which is lines of JSON (see package
// archive), and returns the cursor of the next; "" after the last. Of the filter,
// Workflow, Statuses, Since, Until and Cursor count. Runs that have not ended are
// exported only with all. Nothing is written if it fails, apart from errors of w.
func (c *Client) ExportPage(ctx context.Context, f Filter, all bool, w io.Writer) (next string, err error) {
	q := Filter{Workflow: f.Workflow, Statuses: f.Statuses, Since: f.Since, Until: f.Until, Cursor: f.Cursor}.query()
	if all {
		q.Set("all", "true")
	}
	var p page
	if err := c.do(ctx, call{name: "export runs", method: http.MethodGet, path: path("export"), query: q, page: &p}); err != nil {
		return "", err
	}
	if len(p.text) >= maxPage {
		return "", fmt.Errorf("export runs: a run is too large to be exported through the API; export the database itself")
	}
	if _, err := w.Write(p.text); err != nil {
		return "", fmt.Errorf("export runs: %w", err)
	}
	return p.next, nil
}
