package orders

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/worker"
)

func open(t *testing.T, items ...Item) *Service {
	t.Helper()
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "orders.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Stock(t.Context(), items); err != nil {
		t.Fatal(err)
	}
	return s
}

// do performs a handler in a transaction, as the inbox would.
func do[In, Out any](t *testing.T, s *Service, handler func(context.Context, *sqlx.Tx, In) (Out, error), in In) (Out, error) {
	t.Helper()
	tx, err := s.DB().BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := handler(t.Context(), tx, in)
	if err != nil {
		return out, errors.Join(err, tx.Rollback())
	}
	return out, tx.Commit()
}

func onHand(t *testing.T, s *Service, sku string) (n int64) {
	t.Helper()
	if err := s.DB().Get(&n, `SELECT on_hand FROM items WHERE sku = ?`, sku); err != nil {
		t.Fatal(err)
	}
	return n
}

var tea, cup = Item{SKU: "TEA", Name: "Tea", Opening: 5}, Item{SKU: "CUP", Name: "Cup", Opening: 1}

func order(lines ...flow.Line) flow.Order {
	return flow.Order{ID: "SO-1", Currency: "EUR", Lines: lines}
}

func TestCreateTakesGoodsAndCancelPutsThemBack(t *testing.T) {
	s := open(t, tea, cup)
	o := order(flow.Line{SKU: "TEA", Quantity: 2, UnitPrice: 300}, flow.Line{SKU: "CUP", Quantity: 1, UnitPrice: 950})
	placed, err := do(t, s, s.Create, o)
	if err != nil || placed != (flow.Placed{Total: 1550, Pieces: 3}) {
		t.Fatalf("placed %+v, %v", placed, err)
	}
	if onHand(t, s, "TEA") != 3 || onHand(t, s, "CUP") != 0 {
		t.Error("the goods are still in stock")
	}
	if _, err := do(t, s, s.Cancel, o); err != nil {
		t.Fatal(err)
	}
	if onHand(t, s, "TEA") != 5 || onHand(t, s, "CUP") != 1 {
		t.Error("the goods are not back in stock")
	}
}

func TestOrderThatCannotBeServedIsRefusedFinally(t *testing.T) {
	for _, tt := range []struct {
		name  string
		order flow.Order
		code  string
	}{
		{"second line out of stock", order(flow.Line{SKU: "TEA", Quantity: 1, UnitPrice: 1}, flow.Line{SKU: "CUP", Quantity: 2, UnitPrice: 1}), "out_of_stock"},
		{"unknown item", order(flow.Line{SKU: "POT", Quantity: 1, UnitPrice: 1}), "out_of_stock"},
		{"negative quantity", order(flow.Line{SKU: "TEA", Quantity: 2, UnitPrice: 1}, flow.Line{SKU: "CUP", Quantity: -1, UnitPrice: 1}), "bad_line"},
		{"nothing ordered", order(), "empty_order"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, tea, cup)
			_, err := do(t, s, s.Create, tt.order)
			var refused *worker.Error
			if !errors.As(err, &refused) || refused.Code != tt.code || refused.Retryable {
				t.Errorf("error %v, want a final %s", err, tt.code)
			}
			if onHand(t, s, "TEA") != 5 || onHand(t, s, "CUP") != 1 {
				t.Error("the refused order took goods")
			}
		})
	}
}

func TestStockIsPutOnTheShelvesOnce(t *testing.T) {
	s := open(t, tea)
	if _, err := do(t, s, s.Create, order(flow.Line{SKU: "TEA", Quantity: 1, UnitPrice: 1})); err != nil {
		t.Fatal(err)
	}
	if err := s.Stock(t.Context(), []Item{tea}); err != nil {
		t.Fatal(err)
	}
	if n := onHand(t, s, "TEA"); n != 4 {
		t.Errorf("%d on hand, want 4", n)
	}
}
