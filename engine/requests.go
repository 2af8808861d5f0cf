package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"

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
	select {
	case <-e.ready:
	case <-e.requests.Done():
		dl.Settle(false)
		return
	}
	if req.Type == protocol.RequestRegister {
		// What follows may need it.
		e.settleRequest(dl, &req)
		return
	}
	// Requests of different runs share commits; those of one run keep their
	// order.
	lane := e.lanes[xxhash.Sum64String(runOfRequest(&req))%uint64(len(e.lanes))]
	select {
	case lane <- func() { e.settleRequest(dl, &req) }:
	case <-e.requests.Done():
		dl.Settle(false)
	}
}

// requestLanes is how many requests of the broker are carried out side by side.
const requestLanes = 64

// runLane carries out the requests of one lane until the engine stops.
func (e *Engine) runLane(lane chan func()) {
	for {
		select {
		case f := <-lane:
			f()
		case <-e.requests.Done():
			return
		}
	}
}

// runOfRequest is the id of the run that a request is about, if it says so.
func runOfRequest(req *protocol.Request) string {
	if req.RunID != "" {
		return req.RunID
	}
	var s struct {
		ID string `json:"id"`
	}
	_ = json.Unmarshal(req.Body, &s) // a bad one is refused when its turn comes
	return s.ID
}

// settleRequest carries out a request and settles its message.
func (e *Engine) settleRequest(dl broker.Delivery, req *protocol.Request) {
	ctx, cancel := context.WithTimeout(e.requests, requestTimeout)
	defer cancel()
	err := e.carryOut(ctx, req)
	switch {
	case err == nil:
		dl.Settle(true)
	case refused(err) && (dl.Redelivered || !errors.Is(err, errUnknownRun)): // its start may have been put back
		e.deadLetter(&dl.Message, protocol.RequestsQueue(e.cfg.Namespace), err)
		dl.Settle(true)
	default:
		e.log.Warn("request is put back", "type", req.Type, "error", err)
		// It would come again at once.
		select {
		case <-time.After(putBackWait):
		case <-e.requests.Done():
		}
		dl.Settle(false)
	}
}

// putBackWait is how long a request that cannot be carried out now is kept
// before it goes back to the queue.
const putBackWait = time.Second

// refused tells whether repeating a request would change nothing.
func refused(err error) bool {
	var own *Error
	if !errors.As(err, &own) {
		return false
	}
	switch own.Kind {
	case KindInvalid, KindNotFound, KindConflict, KindTooLarge, KindGone:
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
		if len(req.Body) > 0 {
			if err := strict(req.Body, &c); err != nil {
				return err
			}
		}
		_, err := e.Cancel(ctx, req.RunID, c)
		return err
	case protocol.RequestSignal:
		return e.carryOutSignal(ctx, req.RunID, req.Body)
	case protocol.RequestRegister:
		_, err := e.RegisterWorkflow(ctx, req.Body)
		return err
	case protocol.RequestDecision:
		return e.tellDecision(ctx, req)
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
