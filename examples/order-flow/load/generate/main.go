// Command generate writes the files of package load: orders.jsonl, items.jsonl
// and accounts.jsonl. The same seed gives the same bytes.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/orders"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/payments"
)

const (
	seed       = 20260314
	customers  = 118
	orderCount = 300
)

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", ".", "directory to write to")
	flag.Parse()
	for name, data := range generate(seed) {
		if err := os.WriteFile(filepath.Join(*dir, name), data, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// generate returns the files by name.
func generate(seed uint64) map[string][]byte {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0))}
	g.stock()
	g.openShop()
	for n := range customers {
		g.addCustomer(n)
	}
	g.addOutposts()
	g.placeOrders()
	return map[string][]byte{
		"items.jsonl":    lines(g.items),
		"accounts.jsonl": lines(g.accounts),
		"orders.jsonl":   lines(g.orders),
	}
}

type generator struct {
	*rand.Rand
	items     []orders.Item
	accounts  []payments.Account
	customers []customer
	orders    []flow.Order
}

// customer is a person with an address, who pays with one card.
type customer struct {
	flow.Customer
	address  flow.Address
	currency string
	card     string
	keen     int // how many orders, relative to others
}

func (g *generator) stock() {
	for _, p := range products {
		g.items = append(g.items, orders.Item{SKU: p.sku, Name: p.name, Opening: p.stock})
	}
}

func (g *generator) openShop() {
	for _, code := range []string{"CHF", "CZK", "EUR", "GBP", "ISK", "JPY", "KWD", "PLN", "SEK", "USD"} {
		// What the till holds in the morning.
		float := currencies[code].price(50_000)
		g.accounts = append(g.accounts, payments.Account{Card: payments.Shop, Currency: code, Opening: float})
	}
}

func (g *generator) addCustomer(n int) {
	r := pickWeighted(g.Rand, regions, func(r region) int { return r.weight })
	given, family := pick(g.Rand, r.given), pick(g.Rand, r.family)
	name := given + " " + family
	if r.familyFirst {
		name = family + " " + given
	}
	town := pick(g.Rand, r.towns)
	c := customer{
		Customer: flow.Customer{ID: fmt.Sprintf("C-%05d", 20417+n*7), Name: name},
		address: flow.Address{
			Street: r.street(pick(g.Rand, r.streets), 1+g.IntN(140)), Postcode: town[0], City: town[1], Country: r.country,
		},
		currency: r.currency,
		keen:     1 + g.IntN(4)*g.IntN(3),
	}
	c.Email = fmt.Sprintf("customer.%s@example.%s", c.ID[2:], pick(g.Rand, []string{"com", "net", "org"}))
	g.addCard(&c)
	g.customers = append(g.customers, c)
}

// addOutposts adds customers whom nobody delivers to: their orders are paid
// and then undone.
func (g *generator) addOutposts() {
	for n, o := range outposts {
		c := customer{
			Customer: flow.Customer{ID: fmt.Sprintf("C-%05d", 31003+n*11), Name: o.name, Email: o.email + "@example.org"},
			address:  flow.Address{Street: o.street, City: o.city, Country: o.country},
			currency: o.currency,
			keen:     3,
		}
		g.addCard(&c)
		g.customers = append(g.customers, c)
	}
	// Two of them have a card whose issuer is slow to answer, also at the refund.
	g.accounts[len(g.accounts)-1].Outages = 2
	g.accounts[len(g.accounts)-4].Outages = 3
}

func (g *generator) addCard(c *customer) {
	c.card = fmt.Sprintf("card_%s_%06x", pick(g.Rand, []string{"visa", "mc", "amex", "jcb"}), g.IntN(1<<24))
	a := payments.Account{Card: c.card, Currency: c.currency}
	a.Opening = currencies[c.currency].price(1_000_000 + 1000*int64(g.IntN(900)))
	switch n := g.IntN(100); {
	case c.address.Postcode == "": // an outpost's card is good
	case n < 3:
		a.Decline = "expired"
	case n < 5:
		a.Decline = "reported stolen"
	case n < 8:
		a.Opening = currencies[c.currency].price(250) // not enough for anything
	case n < 20:
		a.Outages = 1 + int64(g.IntN(3))
	}
	g.accounts = append(g.accounts, a)
}

func (g *generator) placeOrders() {
	at := time.Date(2026, time.March, 14, 6, 2, 11, 0, time.UTC)
	for n := range orderCount {
		at = at.Add(time.Duration(5+g.IntN(330)) * time.Second)
		c := pickWeighted(g.Rand, g.customers, func(c customer) int { return c.keen })
		g.orders = append(g.orders, flow.Order{
			ID:       fmt.Sprintf("SO-2026-%06d", 48112+n),
			PlacedAt: at,
			Customer: c.Customer,
			Address:  c.address,
			Currency: c.currency,
			Lines:    g.lines(c.currency),
			Card:     c.card,
		})
	}
}

func (g *generator) lines(code string) []flow.Line {
	count := 1 + g.IntN(2) + g.IntN(3)
	seen := map[string]bool{}
	var out []flow.Line
	for range count {
		p := pickWeighted(g.Rand, products, func(p product) int { return p.wanted })
		if seen[p.sku] {
			continue
		}
		seen[p.sku] = true
		quantity := int64(1)
		if p.cents < 5000 {
			quantity += int64(g.IntN(2) * g.IntN(3))
		}
		out = append(out, flow.Line{SKU: p.sku, Quantity: quantity, UnitPrice: currencies[code].price(p.cents)})
	}
	return out
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func pickWeighted[T any](r *rand.Rand, from []T, weight func(T) int) T {
	total := 0
	for _, v := range from {
		total += weight(v)
	}
	n := r.IntN(total)
	for _, v := range from {
		if n -= weight(v); n < 0 {
			return v
		}
	}
	panic("weights changed while they were summed")
}

func lines[T any](values []T) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			panic(err) // plain structs: cannot happen
		}
	}
	return buf.Bytes()
}

func itoa(n int) string { return strconv.Itoa(n) }
