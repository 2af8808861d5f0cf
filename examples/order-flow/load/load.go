// Package load is the shop's opening books and a day of its orders: 300 orders
// of customers in fourteen countries, in ten currencies. Some want what is
// sold out, some pay with cards that are declined or whose issuer does not
// answer at first, and some live where nobody delivers.
//
// The files are written by the seeded program in generate; they are committed,
// so that everybody looks at the same day.
package load

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/orders"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/payments"
)

//go:generate go run ./generate

//go:embed orders.jsonl
var ordersFile []byte

//go:embed items.jsonl
var itemsFile []byte

//go:embed accounts.jsonl
var accountsFile []byte

// Orders returns the day's orders in the order in which they were placed.
func Orders() ([]flow.Order, error) { return read[flow.Order]("orders.jsonl", ordersFile) }

// Items returns the stock that the day begins with.
func Items() ([]orders.Item, error) { return read[orders.Item]("items.jsonl", itemsFile) }

// Accounts returns the cards, and the shop's own accounts, with the money that
// the day begins with.
func Accounts() ([]payments.Account, error) {
	return read[payments.Account]("accounts.jsonl", accountsFile)
}

// ReadOrders reads orders from JSON Lines; name is used in errors.
func ReadOrders(name string, r io.Reader) ([]flow.Order, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return read[flow.Order](name, data)
}

func read[T any](name string, data []byte) ([]T, error) {
	var all []T
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var v T
		dec := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&v); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		all = append(all, v)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return all, nil
}
