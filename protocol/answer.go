package protocol

import "github.com/ringmaster-dev/ringmaster/broker"

// EncodeAnswer lays out an answer for the queue that its question named.
// Message is cut to its limit.
func EncodeAnswer(queue string, a *Answer) broker.Message {
	h := versionHeader(openVersion)
	h[HeaderRun] = a.RunID
	if a.Code == "" {
		h[HeaderDecision] = a.Decision.String()
	}
	putText(h, HeaderCode, cleanCode(a.Code))
	putText(h, HeaderMessage, cleanText(a.Message, MaxMessageBytes))
	return broker.Message{
		Key: queue, Type: string(KindDecision), CorrelationID: cut(a.RunID, MaxNameBytes),
		AppID: cut(a.Orchestrator, MaxNameBytes), Headers: h,
	}
}

// DecodeAnswer returns the answer of a message. Errors wrap [ErrMalformed].
func DecodeAnswer(m *broker.Message) (Answer, error) {
	if err := checkOpenKind(m, KindDecision); err != nil {
		return Answer{}, err
	}
	f := fields{h: m.Headers}
	a := Answer{
		RunID: f.name(HeaderRun, MaxNameBytes), Orchestrator: m.AppID,
		Code: cleanCode(f.raw(HeaderCode)), Message: cleanText(f.raw(HeaderMessage), MaxMessageBytes),
	}
	if a.Code == "" {
		if err := a.Decision.UnmarshalText([]byte(f.raw(HeaderDecision))); err != nil {
			f.fail(HeaderDecision, "%.40q is not a decision", f.raw(HeaderDecision))
		}
	}
	if f.err != nil {
		return Answer{}, f.err
	}
	return a, nil
}
