package payments

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/inbox"
)

// desk is the service behind its inbox, as a worker would call it.
type desk struct {
	*Service
	box *inbox.Inbox
}

func open(t *testing.T, accounts ...Account) *desk {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "payments.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Fund(t.Context(), append(accounts, Account{Card: Shop, Currency: "EUR"})); err != nil {
		t.Fatal(err)
	}
	box, err := inbox.New(t.Context(), s.DB(), inbox.SQLite, inbox.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &desk{s, box}
}

func (d *desk) perform(t *testing.T, phase protocol.Phase, attempt uint32, p flow.Payment) (string, error) {
	t.Helper()
	ctx := worker.WithTask(t.Context(), worker.TaskInfo{
		RunID: p.Order, Step: "pay", Phase: phase, Generation: 1, Attempt: attempt,
		IdempotencyKey: protocol.IdempotencyKey(p.Order, "pay", phase, 1),
	})
	out, err := d.box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) ([]byte, error) {
		if phase == protocol.PhaseCompensate {
			out, err := d.Refund(ctx, tx, p)
			return encode(t, out), err
		}
		out, err := d.Charge(ctx, tx, p)
		return encode(t, out), err
	})
	return string(out), err
}

func encode(t *testing.T, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (d *desk) balance(t *testing.T, card string) (amount int64) {
	t.Helper()
	if err := d.DB().Get(&amount, `SELECT balance FROM accounts WHERE card = ?`, card); err != nil {
		t.Fatal(err)
	}
	return amount
}

func expect(t *testing.T, err error, code string, retryable bool) {
	t.Helper()
	var e *worker.Error
	if !errors.As(err, &e) || e.Code != code || e.Retryable != retryable || e.Outcome != protocol.OutcomeFailed {
		t.Errorf("error %+v, want %s, retryable %v, without effect", err, code, retryable)
	}
}

const action, compensate = protocol.PhaseAction, protocol.PhaseCompensate

var payment = flow.Payment{Order: "SO-1", Card: "card_1", Currency: "EUR", Amount: 700}

func TestRepeatedChargeIsMadeOnceAndAnswersTheSame(t *testing.T) {
	d := open(t, Account{Card: "card_1", Currency: "EUR", Opening: 1000})
	first, err := d.perform(t, action, 1, payment)
	if err != nil {
		t.Fatal(err)
	}
	second, err := d.perform(t, action, 2, payment)
	if err != nil || first != second {
		t.Errorf("the second attempt answered %s, %v; the first %s", second, err, first)
	}
	if card, shop := d.balance(t, "card_1"), d.balance(t, Shop); card != 300 || shop != 700 {
		t.Errorf("balances %d and %d, want 300 and 700", card, shop)
	}
}

func TestRepeatedRefundIsMadeOnce(t *testing.T) {
	d := open(t, Account{Card: "card_1", Currency: "EUR", Opening: 1000})
	for _, step := range []struct {
		phase   protocol.Phase
		attempt uint32
	}{{action, 1}, {compensate, 1}, {compensate, 2}} {
		if _, err := d.perform(t, step.phase, step.attempt, payment); err != nil {
			t.Fatal(err)
		}
	}
	if card, shop := d.balance(t, "card_1"), d.balance(t, Shop); card != 1000 || shop != 0 {
		t.Errorf("balances %d and %d, want 1000 and 0", card, shop)
	}
}

func TestRefundAheadOfItsChargeDoesNothingAndBlocksIt(t *testing.T) {
	d := open(t, Account{Card: "card_1", Currency: "EUR", Opening: 1000})
	if _, err := d.perform(t, compensate, 1, payment); err != nil {
		t.Fatal(err)
	}
	_, err := d.perform(t, action, 1, payment)
	expect(t, err, inbox.CodeSuspended, false)
	if card := d.balance(t, "card_1"); card != 1000 {
		t.Errorf("balance %d, want 1000", card)
	}
}

func TestIssuerThatDoesNotAnswerAtFirstIsAskedAgain(t *testing.T) {
	d := open(t, Account{Card: "card_1", Currency: "EUR", Opening: 1000, Outages: 2})
	for attempt := range uint32(2) {
		_, err := d.perform(t, action, attempt+1, payment)
		expect(t, err, "issuer_unavailable", true)
	}
	if _, err := d.perform(t, action, 3, payment); err != nil {
		t.Error(err)
	}
	if card := d.balance(t, "card_1"); card != 300 {
		t.Errorf("balance %d, want 300", card)
	}
}

func TestRefusedChargesAreFinalAndMoveNothing(t *testing.T) {
	for _, tt := range []struct {
		name    string
		account Account
		code    string
	}{
		{"declined", Account{Card: "card_1", Currency: "EUR", Opening: 1000, Decline: "expired"}, "card_declined"},
		{"too little money", Account{Card: "card_1", Currency: "EUR", Opening: 699}, "insufficient_funds"},
		{"card in another currency", Account{Card: "card_1", Currency: "USD", Opening: 1000}, "unknown_card"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, tt.account)
			_, err := d.perform(t, action, 1, payment)
			expect(t, err, tt.code, false)
			if card := d.balance(t, "card_1"); card != tt.account.Opening {
				t.Errorf("balance %d, want %d", card, tt.account.Opening)
			}
		})
	}
}
