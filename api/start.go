package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// maxIDBytes bounds the id of a run.
const maxIDBytes = 200

// brokenIDRule names the rule that an id breaks; "" for a good one.
func brokenIDRule(id string) string {
	if len(id) > maxIDBytes {
		return "expected at most 200 bytes"
	}
	if id == "." || id == ".." {
		return "expected something else than . or .. (they cannot stand in a path)"
	}
	for _, r := range id {
		if r > ' ' && r < 0x7f {
			continue
		}
		if r == utf8.RuneError || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return "expected printable characters without spaces"
		}
	}
	return ""
}

func batchEntry(i int) string { return "body.runs[" + strconv.Itoa(i) + "]" }

// startFaults adds what breaks a rule that the schema cannot express.
func startFaults(errs []error, s *rest.Start, at string) []error {
	if rule := brokenIDRule(s.ID); rule != "" {
		errs = append(errs, &huma.ErrorDetail{Location: at + ".id", Message: rule, Value: s.ID})
	}
	return errs
}

// dispatch sends the two routes that start runs past their own decoder, and
// everything else to the mux.
func (h *Handler) dispatch(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		switch r.URL.Path {
		case pathRuns:
			h.serveStart(w, r)
			return
		case pathBatch:
			h.serveBatch(w, r)
			return
		}
	}
	h.serveMux(w, r)
}

func (h *Handler) serveStart(w http.ResponseWriter, r *http.Request) {
	r.Pattern = "POST " + pathRuns
	body, p := readBody(w, r, h.maxStartBody())
	if p != nil {
		p.write(w)
		return
	}
	defer body.release()
	s, ok := rest.Start{}, isPlainJSON(r)
	if ok {
		s, ok = readStart(body.Bytes())
	}
	if !ok {
		h.serveSlowly(w, r, body.Bytes())
		return
	}
	started, err := h.svc.StartRun(r.Context(), s)
	if err != nil {
		h.problemOf(r.Context(), err, inBody).write(w)
		return
	}
	writeJSON(w, startStatus(started), started)
}

func (h *Handler) serveBatch(w http.ResponseWriter, r *http.Request) {
	r.Pattern = "POST " + pathBatch
	body, p := readBody(w, r, h.cfg.MaxBatchBytes)
	if p != nil {
		p.write(w)
		return
	}
	defer body.release()
	var runs []rest.Start
	ok := isPlainJSON(r)
	if ok {
		runs, ok = readBatch(body.Bytes())
	}
	if !ok {
		h.serveSlowly(w, r, body.Bytes())
		return
	}
	writeJSON(w, http.StatusOK, h.startAll(r.Context(), runs))
}

// startAll starts the runs of a batch. Problems of its entries say where in the
// batch they are.
func (h *Handler) startAll(ctx context.Context, runs []rest.Start) rest.StartedBatch {
	outcomes := h.svc.StartRuns(ctx, runs)
	for i, o := range outcomes {
		if o.Error == nil {
			continue
		}
		o.Error.Title = http.StatusText(o.Error.Status)
		for j := range o.Error.Errors {
			o.Error.Errors[j].Location = batchEntry(i) + "." + o.Error.Errors[j].Location
		}
	}
	return rest.StartedBatch{Runs: outcomes}
}

// serveSlowly lets huma answer a request whose body has been read already. It
// refuses bodies that are not UTF-8, since decoding would change them, and
// those that are not said to be JSON, since a form on a web page could send them.
func (h *Handler) serveSlowly(w http.ResponseWriter, r *http.Request, body []byte) {
	if len(body) > 0 {
		if !isJSON(r.Header.Get("Content-Type")) {
			notJSON().write(w)
			return
		}
		if !utf8.Valid(body) {
			notUTF8().write(w)
			return
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	h.mux.ServeHTTP(w, r)
}

func isJSON(contentType string) bool {
	if contentType == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || strings.HasSuffix(media, "+json"))
}

func notJSON() *problem {
	return newProblem(http.StatusUnsupportedMediaType, CodeMediaType,
		"the body must be JSON, with Content-Type: application/json")
}

func notUTF8() *problem {
	return newProblem(http.StatusBadRequest, CodeMalformed, "the body is not UTF-8",
		rest.FieldError{Location: "body", Message: "expected JSON in UTF-8"})
}

// isPlainJSON tells whether the request has nothing that needs negotiation.
func isPlainJSON(r *http.Request) bool {
	if r.URL.RawQuery != "" {
		return false
	}
	switch r.Header.Get("Content-Type") {
	case "", "application/json", "application/json; charset=utf-8":
	default:
		return false
	}
	switch r.Header.Get("Accept") {
	case "", "*/*", "application/json":
		return true
	}
	return false
}

// requestBody is a body in a buffer that goes back to its pool.
type requestBody struct{ bytes.Buffer }

// keptBody is the largest buffer that is kept for another request.
const keptBody = 1 << 20

var bodies = sync.Pool{New: func() any { return new(requestBody) }}

func (b *requestBody) release() {
	if b.Cap() <= keptBody {
		b.Reset()
		bodies.Put(b)
	}
}

// readBody reads a body of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) (*requestBody, *problem) {
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // rather than to read it to its end
		return nil, tooLarge(limit)
	}
	b := bodies.Get().(*requestBody)
	if r.ContentLength > 0 {
		b.Grow(int(min(r.ContentLength, keptBody)) + bytes.MinRead)
	}
	_, err := b.ReadFrom(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		return b, nil
	}
	b.release()
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return nil, tooLarge(limit)
	}
	return nil, unreadable(err)
}

func tooLarge(limit int64) *problem {
	return newProblem(http.StatusRequestEntityTooLarge, CodeTooLarge,
		"the body is larger than "+strconv.FormatInt(limit, 10)+" bytes",
		rest.FieldError{Location: "body", Message: "expected at most " + strconv.FormatInt(limit, 10) + " bytes"})
}

func unreadable(err error) *problem {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return newProblem(http.StatusRequestTimeout, CodeReadTimeout, "the body did not arrive in time")
	}
	return newProblem(http.StatusBadRequest, CodeMalformed, "the body could not be read to its end: "+err.Error())
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		newProblem(http.StatusInternalServerError, CodeInternal, "the answer could not be written: "+err.Error()).write(w)
		return
	}
	header := w.Header()
	header["Content-Type"] = jsonContentType
	header["Content-Length"] = []string{strconv.Itoa(len(b) + 1)}
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the caller has gone: nobody to tell
}

var jsonContentType = []string{"application/json"}
