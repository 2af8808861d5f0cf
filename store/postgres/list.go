package postgres

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

const (
	defaultLimit = 50
	maxLimit     = 1000
	// fewIDs is the number of runs with an id prefix up to which they are
	// sorted, instead of picked from all runs in list order.
	fewIDs = 2000
)

// position is a place in a list, which is ordered by descending positions.
type position struct{ created, ref int64 }

const cursorVersion = 1

func (p position) cursor() string {
	b := []byte{cursorVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(p.created))
	b = binary.BigEndian.AppendUint64(b, uint64(p.ref))
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(s string) (position, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != 17 || b[0] != cursorVersion {
		return position{}, store.ErrBadCursor
	}
	return position{int64(binary.BigEndian.Uint64(b[1:])), int64(binary.BigEndian.Uint64(b[9:]))}, nil
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, f store.Filter) (store.Page, error) {
	page, err := read(ctx, s, func(ctx context.Context) (store.Page, error) { return s.list(ctx, f) })
	if err != nil {
		return store.Page{}, fmt.Errorf("postgres: listing runs: %w", err)
	}
	return page, nil
}

func (s *Store) list(ctx context.Context, f store.Filter) (page store.Page, err error) {
	limit := f.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	q, err := s.listQuery(ctx, f, limit+1)
	if err != nil {
		return page, err
	}
	page.Runs, err = s.queryRuns(ctx, s.db, q.sql(), q.args...)
	if err != nil {
		return page, err
	}
	if len(page.Runs) > limit {
		page.Runs = page.Runs[:limit]
		last := page.Runs[limit-1]
		page.Next = position{last.Created.UnixMilli(), last.Ref}.cursor()
	}
	return page, nil
}

// upperBound is the position that a page's runs are below.
func upperBound(f store.Filter) (position, error) {
	below := position{ceilMilli(f.Until, math.MaxInt64), math.MinInt64}
	if f.Cursor != "" {
		p, err := parseCursor(f.Cursor)
		if err != nil {
			return position{}, err
		}
		if p.created < below.created || p.created == below.created && p.ref < below.ref {
			below = p
		}
	}
	return below, nil
}

// ceilMilli is the first millisecond at or after t, since a time in whole
// milliseconds is before t exactly if it is before that.
func ceilMilli(t time.Time, zero int64) int64 {
	if t.IsZero() {
		return zero
	}
	ms := t.UnixMilli()
	if time.UnixMilli(ms).Before(t) {
		ms++
	}
	return ms
}

// listQuery is a query in the making. Each of its streams gives positions of runs
// in list order, from an index; they are merged, and the rows read by them.
type listQuery struct {
	args    []any
	streams []string
	limit   string
	bounds  string // the condition that positions of the page fulfil; @ is the table
}

// arg adds an argument and returns its name in SQL.
func (q *listQuery) arg(v any) string {
	q.args = append(q.args, v)
	return "$" + strconv.Itoa(len(q.args))
}

// stream adds a stream of the runs of a table that fulfil all conditions. order is the
// alias of the table whose index gives the order.
func (q *listQuery) stream(from, order string, where ...string) {
	where = append(slices.Clip(where), strings.ReplaceAll(q.bounds, "@", order))
	q.streams = append(q.streams, fmt.Sprintf("SELECT %[2]s.created, %[2]s.ref FROM %[1]s WHERE %[3]s ORDER BY %[2]s.created DESC, %[2]s.ref DESC LIMIT %[4]s",
		from, order, strings.Join(where, " AND "), q.limit))
}

func (q *listQuery) sql() string {
	if len(q.streams) == 0 {
		return "SELECT " + runColumns + " FROM runs r WHERE false"
	}
	return "SELECT " + runColumns + " FROM (SELECT created, ref FROM ((" + strings.Join(q.streams, ") UNION ALL (") +
		")) s ORDER BY created DESC, ref DESC LIMIT " + q.limit + ") n JOIN runs r ON r.ref = n.ref ORDER BY n.created DESC, n.ref DESC"
}

// listQuery chooses where the runs of a list come from: from the narrowest index
// that a field of the filter has, the other fields being conditions. Without
// such a field they come from the index by workflow and status, a range for
// each pair that has runs and that the filter allows.
func (s *Store) listQuery(ctx context.Context, f store.Filter, limit int) (*listQuery, error) {
	below, err := upperBound(f)
	if err != nil {
		return nil, err
	}
	few, err := s.fewWithPrefix(ctx, f.IDPrefix)
	if err != nil {
		return nil, err
	}
	q := &listQuery{}
	q.limit = q.arg(limit) + "::bigint"
	q.bounds = fmt.Sprintf("@.created >= %s AND (@.created, @.ref) < (%s, %s)",
		q.arg(ceilMilli(f.Since, math.MinInt64)), q.arg(below.created), q.arg(below.ref))
	rest := f // what the indexes do not take care of
	switch {
	case few:
		// Sorted, and so bounded from within: the order must not come from an index.
		q.streams = append(q.streams, "SELECT created, ref FROM (SELECT r.created, r.ref FROM runs r WHERE "+
			strings.Join(append(q.conditions(f), strings.ReplaceAll(q.bounds, "@", "r")), " AND ")+" OFFSET 0) r")
	case f.Key != "":
		rest.Key = ""
		where, key := q.conditions(rest), q.arg(clean(f.Key))
		q.stream("runs r", "r", append(slices.Clip(where), "r.key = "+key)...)
		q.stream("runs r", "r", append(slices.Clip(where), "r.id = "+key, "r.key IS NULL")...)
	case f.TagName != "":
		rest.TagName, rest.TagValue = "", ""
		where := append(q.conditions(rest), "t.name = "+q.arg(clean(f.TagName)))
		if f.TagValue != "" {
			where = append(where, "t.value = "+q.arg(clean(f.TagValue)))
		}
		q.stream("tags t JOIN runs r ON r.ref = t.ref", "t", where...)
	case f.Parent != "":
		rest.Parent = ""
		q.stream("runs r", "r", append(q.conditions(rest), "r.parent = "+q.arg(clean(f.Parent)))...)
	case f.FailedStep != "":
		rest.FailedStep = ""
		q.stream("runs r", "r", append(q.conditions(rest), "r.failed_step = "+q.arg(clean(f.FailedStep)))...)
	default:
		q.byStatus(f, rest)
	}
	return q, nil
}

// byStatus adds the stream of all runs: of each workflow version and status, from
// its range of the index.
func (q *listQuery) byStatus(f, rest store.Filter) {
	pairs := []string{"true"}
	if f.Workflow != "" {
		pairs = append(pairs, "w.name = "+q.arg(clean(f.Workflow)))
	}
	if len(f.Statuses) > 0 {
		pairs = append(pairs, "c.status = ANY("+q.arg(statuses(f.Statuses))+"::smallint[])")
	}
	rest.Workflow, rest.Statuses = "", nil
	where := append(q.conditions(rest), "r.workflow = p.workflow", "r.status = p.status", strings.ReplaceAll(q.bounds, "@", "r"))
	q.streams = append(q.streams, "SELECT x.created, x.ref FROM (SELECT c.workflow, c.status FROM counts c JOIN workflows w ON w.workflow = c.workflow WHERE "+
		strings.Join(pairs, " AND ")+" GROUP BY c.workflow, c.status HAVING sum(c.n) > 0) p CROSS JOIN LATERAL (SELECT r.created, r.ref FROM runs r WHERE "+
		strings.Join(where, " AND ")+" ORDER BY r.created DESC, r.ref DESC LIMIT "+q.limit+") x")
}

func statuses(of []store.Status) []int16 {
	out := make([]int16, len(of))
	for i, s := range of {
		out[i] = int16(s)
	}
	return out
}

// conditions are a filter's fields as conditions on runs r.
func (q *listQuery) conditions(f store.Filter) []string {
	var where []string
	if f.Workflow != "" {
		where = append(where, "r.workflow IN (SELECT workflow FROM workflows WHERE name = "+q.arg(clean(f.Workflow))+")")
	}
	if len(f.Statuses) > 0 {
		where = append(where, "r.status = ANY("+q.arg(statuses(f.Statuses))+"::smallint[])")
	}
	if f.Key != "" {
		where = append(where, "coalesce(r.key, r.id) = "+q.arg(clean(f.Key)))
	}
	if prefix := clean(f.IDPrefix); prefix != "" {
		where = append(where, "r.id >= "+q.arg(prefix), "starts_with(r.id, "+q.arg(prefix)+")")
		if end, ok := prefixEnd(prefix); ok {
			where = append(where, "r.id < "+q.arg(end))
		}
	}
	if f.FailedStep != "" {
		where = append(where, "r.failed_step = "+q.arg(clean(f.FailedStep)))
	}
	if f.Parent != "" {
		where = append(where, "r.parent = "+q.arg(clean(f.Parent)))
	}
	if f.TagName != "" {
		tag := "SELECT 1 FROM tags t WHERE t.ref = r.ref AND t.created = r.created AND t.name = " + q.arg(clean(f.TagName))
		if f.TagValue != "" {
			tag += " AND t.value = " + q.arg(clean(f.TagValue))
		}
		where = append(where, "EXISTS ("+tag+")")
	}
	return where
}

// prefixEnd is a string of UTF-8 after all that begin with prefix, and as low as
// is simple.
func prefixEnd(prefix string) (string, bool) {
	for i := len(prefix) - 1; i >= 0; i-- {
		if c := prefix[i]; c < 0x7f {
			return prefix[:i] + string(rune(c+1)), true
		}
	}
	return "", false
}

// fewWithPrefix tells whether few runs have an id with this prefix.
func (s *Store) fewWithPrefix(ctx context.Context, prefix string) (bool, error) {
	prefix = clean(prefix)
	end, ok := prefixEnd(prefix)
	if !ok {
		return false, nil
	}
	var n int
	err := s.db.GetContext(ctx, &n, "SELECT count(*) FROM (SELECT 1 FROM runs WHERE id >= $1 AND id < $2 LIMIT $3) r", prefix, end, fewIDs+1)
	return n <= fewIDs, err
}
