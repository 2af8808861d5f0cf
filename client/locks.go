package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// Locks returns a page of the named locks that runs hold, by name: who holds
// each, and who waits for it.
func (c *Client) Locks(ctx context.Context, f rest.LockFilter) (rest.LockPage, error) {
	q := url.Values{}
	if f.Name != "" {
		q.Set("name", f.Name)
	}
	if f.Limit != 0 {
		q.Set("limit", strconv.Itoa(f.Limit))
	}
	if f.Cursor != "" {
		q.Set("cursor", f.Cursor)
	}
	var page rest.LockPage
	err := c.do(ctx, call{name: "list locks", method: http.MethodGet, path: path("locks"), query: q, answer: &page})
	return page, err
}
