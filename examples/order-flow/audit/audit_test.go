package audit

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/deliveries"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/load"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/orders"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/payments"
)

// shop is the three services, called in the place of an orchestrator.
type shop struct {
	orders     *orders.Service
	payments   *payments.Service
	deliveries *deliveries.Service
}

func openShop(t *testing.T, dir string) *shop {
	t.Helper()
	var s shop
	var err error
	open := func(name string) string { return filepath.Join(dir, name+".db") }
	if s.orders, err = orders.Open(t.Context(), open("orders")); err != nil {
		t.Fatal(err)
	}
	if s.payments, err = payments.Open(t.Context(), open("payments")); err != nil {
		t.Fatal(err)
	}
	if s.deliveries, err = deliveries.Open(t.Context(), open("deliveries")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return &s
}

func (s *shop) close() {
	_ = s.orders.Close()
	_ = s.payments.Close()
	_ = s.deliveries.Close()
}

func (s *shop) books() Books {
	return Books{Orders: s.orders.DB(), Payments: s.payments.DB(), Deliveries: s.deliveries.DB()}
}

// do performs a handler in a transaction, as the inbox would.
func do[In, Out any](t *testing.T, db *sqlx.DB, handler func(context.Context, *sqlx.Tx, In) (Out, error), in In) (Out, bool) {
	t.Helper()
	tx, err := db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := handler(t.Context(), tx, in)
	if err != nil {
		_ = tx.Rollback()
		return out, false
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return out, true
}

// perform takes an order through the flow and returns its run's status.
func (s *shop) perform(t *testing.T, o flow.Order) string {
	t.Helper()
	placed, ok := do(t, s.orders.DB(), s.orders.Create, o)
	if !ok {
		return "compensated"
	}
	pay := flow.Payment{Order: o.ID, Card: o.Card, Currency: o.Currency, Amount: placed.Total}
	if _, ok := do(t, s.payments.DB(), s.payments.Charge, pay); !ok {
		do(t, s.orders.DB(), s.orders.Cancel, o)
		return "compensated"
	}
	shipped, ok := do(t, s.deliveries.DB(), s.deliveries.Ship,
		flow.Parcel{Order: o.ID, Name: o.Customer.Name, Address: o.Address, Pieces: placed.Pieces})
	if !ok {
		do(t, s.payments.DB(), s.payments.Refund, pay)
		do(t, s.orders.DB(), s.orders.Cancel, o)
		return "compensated"
	}
	do(t, s.orders.DB(), s.orders.Notify, flow.Notice{Order: o.ID, Email: o.Customer.Email, Tracking: shipped.Tracking})
	return "succeeded"
}

// day performs the first orders of the day in dir.
func day(t *testing.T, dir string, count int) ([]flow.Order, map[string]string) {
	t.Helper()
	s := openShop(t, dir)
	defer s.close()
	items, err1 := load.Items()
	accounts, err2 := load.Accounts()
	all, err3 := load.Orders()
	if err := errors.Join(err1, err2, err3, s.orders.Stock(t.Context(), items), s.payments.Fund(t.Context(), accounts)); err != nil {
		t.Fatal(err)
	}
	all = all[:count]
	status := map[string]string{}
	for _, o := range all {
		status[o.ID] = s.perform(t, o)
	}
	return all, status
}

func TestSoundBooksPass(t *testing.T) {
	dir := t.TempDir()
	all, status := day(t, dir, 300)
	report, err := Run(t.Context(), openShop(t, dir).books(), all, status)
	if err != nil {
		t.Fatal(err)
	}
	if report.Orders != 300 || report.Delivered+report.Undone != 300 || report.Delivered < 150 || report.Refunded < 5 ||
		report.ChargedTwice != 0 || report.PiecesBefore != report.PiecesSold+report.PiecesLeft {
		t.Errorf("report %+v", report)
	}
	var text bytes.Buffer
	if _, err := report.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"300 acknowledged", "EUR", "KWD", "audit    passed"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &text)
		}
	}
}

// TestEveryCorruptionIsFound falsifies sound books in one place at a time.
// ${delivered}, ${refunded} and ${refused} are orders that ended so.
func TestEveryCorruptionIsFound(t *testing.T) {
	sound := t.TempDir()
	all, status := day(t, sound, 120)
	example := examples(t, sound, all, status)
	for _, tt := range []struct {
		name     string
		database string
		sql      string
		want     string // in the violations
	}{
		{"charged twice, also in the balances", "payments", `
			UPDATE accounts SET balance = balance - (SELECT amount FROM entries WHERE order_id = '${delivered}')
				WHERE (card, currency) = (SELECT card, currency FROM entries WHERE order_id = '${delivered}');
			UPDATE accounts SET balance = balance + (SELECT amount FROM entries WHERE order_id = '${delivered}')
				WHERE card = 'shop' AND currency = (SELECT currency FROM entries WHERE order_id = '${delivered}');
			INSERT INTO entries (order_id, kind, card, currency, amount)
				SELECT order_id, kind, card, currency, amount FROM entries WHERE order_id = '${delivered}'`,
			"${delivered}: delivered and charged 2 times"},
		{"charged twice, not in the balances", "payments", `
			INSERT INTO entries (order_id, kind, card, currency, amount)
				SELECT order_id, kind, card, currency, amount FROM entries WHERE order_id = '${delivered}'`,
			"its entries come to"},
		{"charge forgotten", "payments", `DELETE FROM entries WHERE order_id = '${delivered}'`,
			"${delivered}: delivered and charged 0 times"},
		{"wrong amount charged", "payments", `UPDATE entries SET amount = amount + 1 WHERE order_id = '${delivered}'`,
			"${delivered}: costs"},
		{"delivered and refunded", "payments", `
			INSERT INTO entries (order_id, kind, card, currency, amount)
				SELECT order_id, 'refund', card, currency, amount FROM entries WHERE order_id = '${delivered}'`,
			"${delivered}: delivered and refunded 1 times"},
		{"refund forgotten", "payments", `DELETE FROM entries WHERE order_id = '${refunded}' AND kind = 'refund'`,
			"${refunded}: undone, but charged 1 times"},
		{"refunded twice", "payments", `
			INSERT INTO entries (order_id, kind, card, currency, amount)
				SELECT order_id, kind, card, currency, amount FROM entries WHERE order_id = '${refunded}' AND kind = 'refund'`,
			"${refunded}: undone, but charged 1 times"},
		{"charged and refunded twice", "payments", `
			INSERT INTO entries (order_id, kind, card, currency, amount)
				SELECT order_id, kind, card, currency, amount FROM entries WHERE order_id = '${refunded}'`,
			"${refunded}: undone, but charged 2 times"},
		{"refund in another currency", "payments", `
			UPDATE entries SET card = 'shop', currency = 'ISK' WHERE order_id = '${refunded}' AND kind = 'refund'`,
			"${refunded}: undone, but charged 1 times"},
		{"money made of nothing", "payments", `UPDATE accounts SET balance = balance + 1 WHERE card = 'shop' AND currency = 'EUR'`,
			"EUR: the day began with"},
		{"money moved without an entry", "payments", `
			UPDATE accounts SET balance = balance + 5 WHERE card = 'shop' AND currency = 'EUR';
			UPDATE accounts SET balance = balance - 5 WHERE card =
				(SELECT card FROM accounts WHERE currency = 'EUR' AND card != 'shop' AND balance > 5 LIMIT 1)`,
			"EUR: the shop took"},
		{"account lost", "payments", `
			PRAGMA foreign_keys = off;
			DELETE FROM accounts WHERE currency = (SELECT currency FROM entries WHERE order_id = '${delivered}')`,
			"but there is no account"},
		{"shipped twice", "deliveries", `
			INSERT INTO shipments (order_id, name, country, carrier, tracking, pieces)
				SELECT order_id, name, country, carrier, tracking, pieces FROM shipments WHERE order_id = '${delivered}'`,
			"${delivered}: delivered with 2 shipments"},
		{"not shipped", "deliveries", `DELETE FROM shipments WHERE order_id = '${delivered}'`,
			"${delivered}: delivered with 0 shipments"},
		{"recalled although delivered", "deliveries", `UPDATE shipments SET recalled = 1 WHERE order_id = '${delivered}'`,
			"${delivered}: delivered with 1 shipments, 1 of them recalled"},
		{"shipped although undone", "deliveries", `
			INSERT INTO shipments (order_id, name, country, carrier, tracking, pieces) VALUES ('${refunded}', '', '', '', '', 1)`,
			"${refunded}: undone, but 1 shipments"},
		{"order lost", "orders", `
			PRAGMA foreign_keys = off;
			DELETE FROM notices WHERE order_id = '${delivered}';
			DELETE FROM stock_moves WHERE order_id = '${delivered}';
			DELETE FROM orders WHERE id = '${delivered}'`,
			`${delivered}: its run succeeded, but the order is ""`},
		{"order still open", "orders", `UPDATE orders SET status = 'placed' WHERE id = '${delivered}'`,
			`${delivered}: its run succeeded, but the order is "placed"`},
		{"order not cancelled", "orders", `UPDATE orders SET status = 'placed' WHERE id = '${refunded}'`,
			`${refunded}: its run was undone, but the order is "placed"`},
		{"order that nobody placed", "orders", `
			INSERT INTO orders (id, customer_id, customer, currency, total, status) VALUES ('SO-0', '', '', 'EUR', 1, 'placed')`,
			"SO-0: is in the books, but its start was never acknowledged"},
		{"shipment that nobody ordered", "deliveries", `
			INSERT INTO shipments (order_id, name, country, carrier, tracking, pieces) VALUES ('SO-0', '', '', '', '', 1)`,
			"SO-0: is in the books"},
		{"stock taken twice", "orders", `
			INSERT INTO stock_moves (order_id, sku, quantity)
				SELECT order_id, sku, quantity FROM stock_moves WHERE order_id = '${delivered}' LIMIT 1`,
			"${delivered}: delivered"},
		{"stock not put back", "orders", `DELETE FROM stock_moves WHERE order_id = '${refunded}' AND quantity > 0`,
			"${refunded}: undone, but stock gave"},
		{"stock put back by a refused order", "orders", `
			INSERT INTO orders (id, customer_id, customer, currency, total, status) VALUES ('${refused}', '', '', 'EUR', 1, 'cancelled');
			INSERT INTO stock_moves (order_id, sku, quantity) SELECT '${refused}', sku, 1 FROM items LIMIT 1`,
			"${refused}: undone, but stock gave 0"},
		{"stock shrunk", "orders", `UPDATE items SET on_hand = on_hand - 1 WHERE sku = 'TEA-SENCHA-100'`,
			"TEA-SENCHA-100: began with"},
		{"stock moved behind the orders' back", "orders", `
			UPDATE items SET opening = opening + 1 WHERE sku = 'TEA-SENCHA-100'`,
			"TEA-SENCHA-100: began with"},
		{"customer told twice", "orders", `
			INSERT INTO notices (order_id, email, text) SELECT order_id, email, text FROM notices WHERE order_id = '${delivered}'`,
			"${delivered}: its customer was told 2 times"},
		{"customer not told", "orders", `DELETE FROM notices WHERE order_id = '${delivered}'`,
			"${delivered}: its customer was told 0 times"},
		{"customer told of an undone order", "orders", `INSERT INTO notices (order_id, email, text) VALUES ('${refunded}', '', '')`,
			"${refunded}: undone, but its customer was told 1 times"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(sound)); err != nil {
				t.Fatal(err)
			}
			books := openShop(t, dir).books()
			db := map[string]*sqlx.DB{"orders": books.Orders, "payments": books.Payments, "deliveries": books.Deliveries}[tt.database]
			db.SetMaxOpenConns(1) // a PRAGMA belongs to a connection
			if _, err := db.ExecContext(t.Context(), example.Replace(tt.sql)); err != nil {
				t.Fatal(err)
			}
			report, err := Run(t.Context(), books, all, status)
			expectViolation(t, report, err, example.Replace(tt.want))
		})
	}
}

func TestStatusesThatDoNotFitAreFound(t *testing.T) {
	dir := t.TempDir()
	all, status := day(t, dir, 120)
	example := examples(t, dir, all, status)
	books := openShop(t, dir).books()
	for _, tt := range []struct{ name, order, status, want string }{
		{"acknowledged and lost", "${delivered}", "", "was acknowledged, but the orchestrator does not know it"},
		{"still running", "${delivered}", "running", "has not ended: its run is running"},
		{"stalled", "${delivered}", "stalled", "has not ended: its run is stalled"},
		{"delivered, but called undone", "${delivered}", "compensated", `its run was undone, but the order is "delivered"`},
		{"undone, but called delivered", "${refunded}", "succeeded", "delivered with 0 shipments"},
		{"refused, but called delivered", "${refused}", "succeeded", "delivered and charged 0 times"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := example.Replace(tt.order)
			before := status[id]
			defer func() { status[id] = before }()
			status[id] = tt.status
			report, err := Run(t.Context(), books, all, status)
			expectViolation(t, report, err, id+": "+tt.want)
		})
	}
}

func TestUnreadableBooksAreNoViolation(t *testing.T) {
	dir := t.TempDir()
	day(t, dir, 1)
	books := openShop(t, dir).books()
	if _, err := books.Deliveries.Exec(`DROP TABLE shipments`); err != nil {
		t.Fatal(err)
	}
	_, err := Run(t.Context(), books, nil, nil)
	var failed *Failed
	if err == nil || errors.As(err, &failed) || !strings.Contains(err.Error(), "read shipments") {
		t.Errorf("error %v", err)
	}
}

func TestAmountsAreWrittenInTheirCurrency(t *testing.T) {
	for _, tt := range []struct {
		minor    int64
		currency string
		want     string
	}{
		{1290, "EUR", "12.90"}, {5, "EUR", "0.05"}, {-150, "USD", "-1.50"}, {1290, "JPY", "1290"}, {0, "ISK", "0"}, {1500, "KWD", "1.500"},
	} {
		if got := Amount(tt.minor, tt.currency); got != tt.want {
			t.Errorf("%d %s is written %q, want %q", tt.minor, tt.currency, got, tt.want)
		}
	}
}

func expectViolation(t *testing.T, report *Report, err error, want string) {
	t.Helper()
	var failed *Failed
	if !errors.As(err, &failed) {
		t.Fatalf("error %v, want a *Failed", err)
	}
	if report == nil || len(report.Violations) == 0 {
		t.Error("the report lacks the violations")
	}
	for _, v := range failed.Violations {
		if strings.Contains(v.String(), want) {
			return
		}
	}
	t.Errorf("no violation says %q:\n%v", want, err)
}

// examples finds orders of each fate.
func examples(t *testing.T, dir string, all []flow.Order, status map[string]string) *strings.Replacer {
	t.Helper()
	if _, err := fs.Stat(os.DirFS(dir), "payments.db"); err != nil {
		t.Fatal(err)
	}
	s := openShop(t, dir)
	defer s.close()
	found := map[string]string{}
	for _, o := range all {
		var refunds, known int
		if err := errors.Join(
			s.payments.DB().Get(&refunds, `SELECT count(*) FROM entries WHERE order_id = ? AND kind = 'refund'`, o.ID),
			s.orders.DB().Get(&known, `SELECT count(*) FROM orders WHERE id = ?`, o.ID),
		); err != nil {
			t.Fatal(err)
		}
		switch {
		case status[o.ID] == "succeeded":
			found["delivered"] = o.ID
		case refunds == 1:
			found["refunded"] = o.ID
		case known == 0:
			found["refused"] = o.ID
		}
	}
	if len(found) != 3 {
		t.Fatalf("found only %v", found)
	}
	return strings.NewReplacer("${delivered}", found["delivered"], "${refunded}", found["refunded"], "${refused}", found["refused"])
}
