// Package audit proves from the books of the three services, after all runs
// have ended, that every order took effect once or not at all.
//
// It reads the services' own databases and believes no log or metric: an order
// whose run succeeded must have been paid once, have left the stock once, and
// be with a carrier once; an order whose run was undone must have left no
// trace in the sums. Then it adds up: money per currency and stock per item
// must come to what the day began with.
package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/payments"
)

// Books are the databases of the three services.
type Books struct {
	Orders, Payments, Deliveries *sqlx.DB
}

// Violation is one thing that the books do not bear out.
type Violation struct {
	Subject string // an order, an account or an item
	Message string
}

func (v Violation) String() string { return v.Subject + ": " + v.Message }

// Failed is the error of an audit that found violations.
type Failed struct{ Violations []Violation }

func (f *Failed) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the books do not add up, %d violations:", len(f.Violations))
	for i, v := range f.Violations {
		if i == 20 {
			fmt.Fprintf(&b, "\n  and %d more", len(f.Violations)-i)
			break
		}
		fmt.Fprintf(&b, "\n  %s", v)
	}
	return b.String()
}

// Run audits the books. Acknowledged are the orders whose start was
// acknowledged, and status holds the status of every run by its id, as the
// orchestrator tells it. The report is complete also when violations were
// found; then the error is a [*Failed]. Any other error means that the books
// could not be read.
func Run(ctx context.Context, books Books, acknowledged []flow.Order, status map[string]string) (*Report, error) {
	a := auditor{orders: map[string]*trace{}, report: &Report{Orders: len(acknowledged)}}
	for _, o := range acknowledged {
		a.orders[o.ID] = &trace{order: o, acknowledged: true, taken: map[string]int64{}, returned: map[string]int64{}}
	}
	for _, read := range []struct {
		what string
		from func(context.Context, Books) error
	}{
		{"orders", a.readOrders},
		{"stock", a.readStockMoves},
		{"payments", a.readPayments},
		{"shipments", a.readShipments},
	} {
		if err := read.from(ctx, books); err != nil {
			return nil, fmt.Errorf("read %s: %w", read.what, err)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(a.orders)) {
		a.checkOrder(a.orders[id], status[id])
	}
	if err := a.checkMoney(ctx, books.Payments); err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	if err := a.checkStock(ctx, books.Orders); err != nil {
		return nil, fmt.Errorf("read items: %w", err)
	}
	if len(a.violations) > 0 {
		a.report.Violations = a.violations
		return a.report, &Failed{Violations: a.violations}
	}
	return a.report, nil
}

// trace is everything the books hold about one order.
type trace struct {
	order        flow.Order
	acknowledged bool

	status    string           // in the order book; empty if it is not there
	taken     map[string]int64 // pieces taken out of stock, by item
	returned  map[string]int64 // pieces put back
	notices   int
	charges   int
	refunds   int
	charged   int64 // minor units
	refunded  int64
	currency  string // of the last entry
	mixed     bool   // entries in several currencies
	shipments int
	recalled  int
}

type auditor struct {
	orders     map[string]*trace
	violations []Violation
	report     *Report
	delivered  map[string]int64 // money of delivered orders, by currency
	sold       map[string]int64 // pieces of delivered orders, by item
}

func (a *auditor) violate(subject, format string, args ...any) {
	a.violations = append(a.violations, Violation{Subject: subject, Message: fmt.Sprintf(format, args...)})
}

// trace returns the trace of an order, also of one that nobody knows.
func (a *auditor) trace(id string) *trace {
	t, ok := a.orders[id]
	if !ok {
		t = &trace{order: flow.Order{ID: id}, taken: map[string]int64{}, returned: map[string]int64{}}
		a.orders[id] = t
	}
	return t
}

func (a *auditor) readOrders(ctx context.Context, books Books) error {
	var rows []struct {
		ID      string `db:"id"`
		Status  string `db:"status"`
		Notices int    `db:"notices"`
	}
	err := books.Orders.SelectContext(ctx, &rows, `
		SELECT id, status, (SELECT count(*) FROM notices WHERE order_id = orders.id) AS notices FROM orders`)
	for _, r := range rows {
		t := a.trace(r.ID)
		t.status, t.notices = r.Status, r.Notices
	}
	return err
}

func (a *auditor) readStockMoves(ctx context.Context, books Books) error {
	var rows []struct {
		Order    string `db:"order_id"`
		SKU      string `db:"sku"`
		Quantity int64  `db:"quantity"`
	}
	err := books.Orders.SelectContext(ctx, &rows, `SELECT order_id, sku, quantity FROM stock_moves`)
	for _, r := range rows {
		if t := a.trace(r.Order); r.Quantity < 0 {
			t.taken[r.SKU] -= r.Quantity
		} else {
			t.returned[r.SKU] += r.Quantity
		}
	}
	return err
}

func (a *auditor) readPayments(ctx context.Context, books Books) error {
	var rows []struct {
		Order    string `db:"order_id"`
		Kind     string `db:"kind"`
		Currency string `db:"currency"`
		Amount   int64  `db:"amount"`
	}
	err := books.Payments.SelectContext(ctx, &rows, `SELECT order_id, kind, currency, amount FROM entries`)
	for _, r := range rows {
		t := a.trace(r.Order)
		t.mixed = t.mixed || t.currency != "" && t.currency != r.Currency
		t.currency = r.Currency
		if r.Kind == "charge" {
			t.charges++
			t.charged += r.Amount
		} else {
			t.refunds++
			t.refunded += r.Amount
		}
	}
	return err
}

func (a *auditor) readShipments(ctx context.Context, books Books) error {
	var rows []struct {
		Order    string `db:"order_id"`
		Recalled bool   `db:"recalled"`
	}
	err := books.Deliveries.SelectContext(ctx, &rows, `SELECT order_id, recalled FROM shipments`)
	for _, r := range rows {
		t := a.trace(r.Order)
		t.shipments++
		if r.Recalled {
			t.recalled++
		}
	}
	return err
}

func (a *auditor) checkOrder(t *trace, status string) {
	if !t.acknowledged {
		a.violate(t.order.ID, "is in the books, but its start was never acknowledged")
		return
	}
	a.report.countCharges(t.charges)
	switch status {
	case "succeeded":
		a.report.Delivered++
		a.checkDelivered(t)
	case "compensated":
		a.report.Undone++
		a.checkUndone(t)
	case "":
		a.violate(t.order.ID, "was acknowledged, but the orchestrator does not know it")
	default:
		a.violate(t.order.ID, "has not ended: its run is %s", status)
	}
}

func (a *auditor) checkDelivered(t *trace) {
	id := t.order.ID
	if t.status != "delivered" {
		a.violate(id, "its run succeeded, but the order is %q", t.status)
	}
	wanted := map[string]int64{}
	for _, l := range t.order.Lines {
		wanted[l.SKU] += l.Quantity
	}
	for _, sku := range keys(wanted, t.taken, t.returned) {
		if t.taken[sku] != wanted[sku] || t.returned[sku] != 0 {
			a.violate(id, "delivered %d of %s, but stock gave %d and took back %d",
				wanted[sku], sku, t.taken[sku], t.returned[sku])
		}
		add(&a.sold, sku, wanted[sku])
	}
	switch total := t.order.Total(); {
	case t.charges != 1:
		a.violate(id, "delivered and charged %d times", t.charges)
	case t.charged != total || t.mixed || t.currency != t.order.Currency:
		a.violate(id, "costs %d %s and was charged %d %s", total, t.order.Currency, t.charged, t.currency)
	}
	if t.refunds != 0 {
		a.violate(id, "delivered and refunded %d times", t.refunds)
	}
	add(&a.delivered, t.order.Currency, t.order.Total())
	if t.shipments != 1 || t.recalled != 0 {
		a.violate(id, "delivered with %d shipments, %d of them recalled", t.shipments, t.recalled)
	}
	if t.notices != 1 {
		a.violate(id, "its customer was told %d times", t.notices)
	}
}

func (a *auditor) checkUndone(t *trace) {
	id := t.order.ID
	if t.status != "" && t.status != "cancelled" {
		a.violate(id, "its run was undone, but the order is %q", t.status)
	}
	for _, sku := range keys(t.taken, t.returned) {
		if t.taken[sku] != t.returned[sku] {
			a.violate(id, "undone, but stock gave %d of %s and took back %d", t.taken[sku], sku, t.returned[sku])
		}
	}
	if t.charges > 1 || t.charges != t.refunds || t.charged != t.refunded || t.mixed {
		a.violate(id, "undone, but charged %d times (%d %s) and refunded %d times (%d)",
			t.charges, t.charged, t.currency, t.refunds, t.refunded)
	}
	if t.charges == 1 && t.refunds == 1 {
		a.report.Refunded++
	}
	if t.shipments != t.recalled {
		a.violate(id, "undone, but %d shipments are under way", t.shipments-t.recalled)
	}
	if t.notices != 0 {
		a.violate(id, "undone, but its customer was told %d times that it is on its way", t.notices)
	}
}

func (a *auditor) checkMoney(ctx context.Context, db *sqlx.DB) error {
	var rows []struct {
		Card     string `db:"card"`
		Currency string `db:"currency"`
		Opening  int64  `db:"opening"`
		Balance  int64  `db:"balance"`
		Entries  int64  `db:"entries"` // what its entries come to
	}
	err := db.SelectContext(ctx, &rows, `
		WITH moved AS (
			SELECT card, currency, sum(CASE kind WHEN 'refund' THEN amount ELSE -amount END) AS amount
			FROM entries GROUP BY card, currency
		)
		SELECT card, currency, opening, balance, coalesce(moved.amount, 0) AS entries
		FROM accounts LEFT JOIN moved USING (card, currency)
		ORDER BY currency, card`)
	if err != nil {
		return err
	}
	sums := map[string]*Money{}
	for _, r := range rows {
		m := sums[r.Currency]
		if m == nil {
			m = &Money{Currency: r.Currency, Shipped: a.delivered[r.Currency]}
			sums[r.Currency] = m
		}
		m.Opening += r.Opening
		m.Closing += r.Balance
		if r.Card == payments.Shop {
			m.Takings = r.Balance - r.Opening
		} else if r.Opening+r.Entries != r.Balance {
			a.violate("card "+r.Card, "began with %d %s, its entries come to %d, but its balance is %d",
				r.Opening, r.Currency, r.Entries, r.Balance)
		}
	}
	for _, code := range slices.Sorted(maps.Keys(sums)) {
		m := sums[code]
		a.report.Money = append(a.report.Money, *m)
		if m.Opening != m.Closing {
			a.violate(code, "the day began with %d and ended with %d", m.Opening, m.Closing)
		}
		if m.Takings != m.Shipped {
			a.violate(code, "the shop took %d and delivered for %d", m.Takings, m.Shipped)
		}
	}
	for _, code := range slices.Sorted(maps.Keys(a.delivered)) {
		if sums[code] == nil {
			a.violate(code, "delivered for %d, but there is no account", a.delivered[code])
		}
	}
	return nil
}

func (a *auditor) checkStock(ctx context.Context, db *sqlx.DB) error {
	var rows []struct {
		SKU     string `db:"sku"`
		Opening int64  `db:"opening"`
		OnHand  int64  `db:"on_hand"`
		Moves   int64  `db:"moves"`
	}
	err := db.SelectContext(ctx, &rows, `
		WITH moved AS (SELECT sku, sum(quantity) AS quantity FROM stock_moves GROUP BY sku)
		SELECT sku, opening, on_hand, coalesce(moved.quantity, 0) AS moves
		FROM items LEFT JOIN moved USING (sku)
		ORDER BY sku`)
	for _, r := range rows {
		a.report.Items++
		a.report.PiecesBefore += r.Opening
		a.report.PiecesLeft += r.OnHand
		a.report.PiecesSold += a.sold[r.SKU]
		if r.Opening+r.Moves != r.OnHand {
			a.violate(r.SKU, "began with %d, its moves come to %d, but %d are on hand", r.Opening, r.Moves, r.OnHand)
		}
		if r.OnHand+a.sold[r.SKU] != r.Opening {
			a.violate(r.SKU, "began with %d, delivered %d, but %d are on hand", r.Opening, a.sold[r.SKU], r.OnHand)
		}
	}
	return err
}

// keys returns the keys of all maps, sorted.
func keys(all ...map[string]int64) []string {
	union := map[string]bool{}
	for _, m := range all {
		for k := range m {
			union[k] = true
		}
	}
	return slices.Sorted(maps.Keys(union))
}

func add(sums *map[string]int64, key string, n int64) {
	if *sums == nil {
		*sums = map[string]int64{}
	}
	(*sums)[key] += n
}
