package deliveries

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// RelayConfig is the configuration of cmd/worker that joins the HTTP form to
// Ringmaster.
//
//go:embed relay.yaml
var RelayConfig []byte

// Handler serves the same work over plain HTTP:
//
//	POST /shipments   hands a parcel to a carrier
//	POST /recalls     calls it back, in workflows that ship before their pivot
//
// Both want an Idempotency-Key and keep their answer under it, in the
// transaction that does the work: the same key is given the same answer. A
// recall of an order that was not shipped does nothing and succeeds, and a
// shipment that comes after it is refused.
func (s *Service) Handler(logger *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /shipments", s.once(logger, s.postShipment))
	mux.Handle("POST /recalls", s.once(logger, s.postRecall))
	return mux
}

// reply is what a request is answered, then and ever after.
type reply struct {
	Status int    `db:"status"`
	Body   []byte `db:"body"`
}

// problem answers with a problem document (RFC 9457).
func problem(status int, detail string) *reply {
	body, _ := json.Marshal(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail})
	return &reply{Status: status, Body: body}
}

// once runs do in a transaction, unless the request's key was answered before.
// Only successes are kept: a refusal has no effect to protect.
func (s *Service) once(logger *slog.Logger, do func(context.Context, *sqlx.Tx, flow.Parcel) (*reply, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Header.Get("Idempotency-Key")
		var p flow.Parcel
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
		if err == nil {
			err = json.Unmarshal(body, &p)
		}
		var answer *reply
		switch {
		case err != nil:
			answer = problem(http.StatusBadRequest, "the body must be a parcel: "+err.Error())
		case key == "" || p.Order == "":
			answer = problem(http.StatusBadRequest, "the Idempotency-Key header and the order are required")
		default:
			answer, err = s.answer(r.Context(), key, p, do)
		}
		if err != nil {
			logger.Error("request failed", "path", r.URL.Path, "order", p.Order, "error", err)
		}
		if answer == nil {
			answer = problem(http.StatusServiceUnavailable, "rolled back; try again") // no effect
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer.Status)
		_, _ = w.Write(answer.Body)
	})
}

func (s *Service) answer(
	ctx context.Context, key string, p flow.Parcel, do func(context.Context, *sqlx.Tx, flow.Parcel) (*reply, error),
) (*reply, error) {
	tx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	var before reply
	err = tx.GetContext(ctx, &before, `SELECT status, body FROM requests WHERE key = ?`, key)
	if err == nil {
		return &before, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	answer, err := do(ctx, tx, p)
	if err != nil || answer.Status >= 300 {
		return answer, err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO requests (key, status, body) VALUES (?, ?, ?)`,
		key, answer.Status, answer.Body); err != nil {
		return nil, err
	}
	if err := tx.Commit(); err != nil { // whether it is on disk is unknown: not a 503
		return problem(http.StatusInternalServerError, err.Error()), err
	}
	return answer, nil
}

func (s *Service) postShipment(ctx context.Context, tx *sqlx.Tx, p flow.Parcel) (*reply, error) {
	var recalled bool
	if err := tx.GetContext(ctx, &recalled, `SELECT count(*) > 0 FROM recalls WHERE order_id = ?`, p.Order); err != nil {
		return nil, err
	}
	if recalled {
		return problem(http.StatusConflict, fmt.Sprintf("order %s was recalled", p.Order)), nil
	}
	out, err := s.Ship(ctx, tx, p)
	var refused *worker.Error
	if errors.As(err, &refused) && !refused.Retryable {
		return problem(http.StatusUnprocessableEntity, refused.Error()), nil
	}
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(out)
	return &reply{Status: http.StatusCreated, Body: body}, err
}

func (s *Service) postRecall(ctx context.Context, tx *sqlx.Tx, p flow.Parcel) (*reply, error) {
	if _, err := tx.ExecContext(ctx, `INSERT INTO recalls (order_id) VALUES (?) ON CONFLICT DO NOTHING`, p.Order); err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE shipments SET recalled = 1 WHERE order_id = ?`, p.Order); err != nil {
		return nil, err
	}
	return &reply{Status: http.StatusOK, Body: []byte("{}")}, nil
}
