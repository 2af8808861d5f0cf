package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// requestTimeout bounds how long a request that came through the broker may
// take; then it is delivered again.
const requestTimeout = 30 * time.Second

// onRequest carries out a request that came through the broker. It settles the
// message, which is the only copy, once the request is durable.
func (e *Engine) onRequest(dl broker.Delivery) {
	req, err := protocol.DecodeRequest(&dl.Message)
	if err != nil {
		e.deadLetter(&dl.Message, protocol.RequestsQueue(e.cfg.Namespace), err)
		dl.Settle(true)
		return
	}
	// Requests are independent of each other, so they share commits.
	e.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(e.requests, requestTimeout)
		defer cancel()
		switch err := e.carryOut(ctx, &req); {
		case err == nil:
			dl.Settle(true)
		case refused(err):
			e.deadLetter(&dl.Message, protocol.RequestsQueue(e.cfg.Namespace), err)
			dl.Settle(true)
		default:
			e.log.Warn("request is put back", "type", req.Type, "error", err)
			dl.Settle(false)
		}
	})
}

// refused tells whether repeating a request would change nothing.
func refused(err error) bool {
	var own *Error
	if !errors.As(err, &own) {
		return false
	}
	switch own.Kind {
	case KindInvalid, KindNotFound, KindConflict, KindTooLarge:
		return true
	}
	return false
}

func (e *Engine) carryOut(ctx context.Context, req *protocol.Request) error {
	switch req.Type {
	case protocol.RequestStart:
		var s rest.Start
		if err := strict(req.Body, &s); err != nil {
			return err
		}
		if s.ID == "" {
			// Without an id, a redelivery would start a second run.
			return invalid("required", "id", "is required of a start that comes through the broker")
		}
		_, err := e.StartRun(ctx, s)
		return err
	case protocol.RequestCancel:
		var c rest.Cancel
		if err := strict(req.Body, &c); err != nil {
			return err
		}
		_, err := e.Cancel(ctx, req.RunID, c)
		return err
	case protocol.RequestRegister:
		_, err := e.RegisterWorkflow(ctx, req.Body)
		return err
	}
	return invalid("unknown_request", "type", "there is no request %q", req.Type)
}

// strict decodes JSON and refuses unknown fields.
func strict(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return invalid("not_json", "", "the body: %v", err)
	}
	if d.More() {
		return invalid("not_json", "", "the body: %v", fmt.Errorf("more than one JSON value"))
	}
	return nil
}
