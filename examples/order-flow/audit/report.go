package audit

import (
	"fmt"
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Report is what an audit found.
type Report struct {
	Orders    int // that a start was acknowledged for
	Delivered int
	Undone    int
	Refunded  int // of the undone: charged once and refunded once

	ChargedNever, ChargedOnce, ChargedTwice int // orders, by how often they were charged

	Items, PiecesBefore, PiecesSold, PiecesLeft int64

	Money      []Money // by currency
	Violations []Violation
}

// Money is what happened in one currency, in its minor units.
type Money struct {
	Currency string
	Opening  int64 // on all accounts, the shop's included, at the start
	Closing  int64 // on all accounts at the end
	Takings  int64 // by how much the shop's account has grown
	Shipped  int64 // price of the delivered orders
}

func (r *Report) countCharges(n int) {
	switch n {
	case 0:
		r.ChargedNever++
	case 1:
		r.ChargedOnce++
	default:
		r.ChargedTwice++
	}
}

// WriteTo writes the report for people.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "orders   %d acknowledged: %d delivered, %d undone (%d of them after payment, refunded)\n",
		r.Orders, r.Delivered, r.Undone, r.Refunded)
	fmt.Fprintf(&b, "charges  %d orders once, %d never, %d more than once\n",
		r.ChargedOnce, r.ChargedNever, r.ChargedTwice)
	fmt.Fprintf(&b, "stock    %d items: %d pieces at the start = %d delivered + %d left\n",
		r.Items, r.PiecesBefore, r.PiecesSold, r.PiecesLeft)

	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"currency", "money at the start", "money at the end", "taken by the shop", "delivered for"})
	t.SetColumnConfigs([]table.ColumnConfig{
		{Number: 2, Align: text.AlignRight}, {Number: 3, Align: text.AlignRight},
		{Number: 4, Align: text.AlignRight}, {Number: 5, Align: text.AlignRight},
	})
	for _, m := range r.Money {
		t.AppendRow(table.Row{
			m.Currency, Amount(m.Opening, m.Currency), Amount(m.Closing, m.Currency),
			Amount(m.Takings, m.Currency), Amount(m.Shipped, m.Currency),
		})
	}
	b.WriteString(t.Render())
	b.WriteByte('\n')

	if len(r.Violations) == 0 {
		b.WriteString("audit    passed: every order is delivered, paid and out of stock once, or wholly undone\n")
	} else {
		fmt.Fprintf(&b, "audit    FAILED: %d violations\n", len(r.Violations))
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// Amount writes minor units of a currency as people write them: 1290 EUR is
// "12.90", 1290 JPY is "1290".
func Amount(minor int64, currency string) string {
	digits := 2
	switch currency {
	case "ISK", "JPY":
		digits = 0
	case "KWD":
		digits = 3
	}
	sign := ""
	if minor < 0 {
		sign, minor = "-", -minor
	}
	s := fmt.Sprintf("%0*d", digits+1, minor)
	if digits == 0 {
		return sign + s
	}
	return sign + s[:len(s)-digits] + "." + s[len(s)-digits:]
}
