package load

import (
	"strings"
	"testing"
)

func TestDayHoldsEveryKindOfOrder(t *testing.T) {
	orders, err := Orders()
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := Accounts()
	if err != nil {
		t.Fatal(err)
	}
	items, err := Items()
	if err != nil {
		t.Fatal(err)
	}
	stock := map[string]int64{}
	for _, i := range items {
		stock[i.SKU] = i.Opening
	}
	type card struct{ token, currency string }
	decline, outages := map[card]bool{}, map[card]bool{}
	for _, a := range accounts {
		decline[card{a.Card, a.Currency}] = a.Decline != ""
		outages[card{a.Card, a.Currency}] = a.Outages > 0
	}
	ids, customers, currencies, kinds := map[string]bool{}, map[string]int{}, map[string]bool{}, map[string]int{}
	for _, o := range orders {
		ids[o.ID] = true
		customers[o.Customer.ID]++
		currencies[o.Currency] = true
		count := func(kind string, is bool) {
			if is {
				kinds[kind]++
			}
		}
		count("declined card", decline[card{o.Card, o.Currency}])
		count("issuer that does not answer at first", outages[card{o.Card, o.Currency}])
		count("address nobody delivers to", o.Address.Postcode == "")
		count("second order of a customer", customers[o.Customer.ID] == 2)
		count("name beyond ASCII", strings.ContainsFunc(o.Customer.Name, func(r rune) bool { return r > 127 }))
		for _, l := range o.Lines {
			count("sold out", stock[l.SKU] == 0)
			if _, known := stock[l.SKU]; !known || l.Quantity < 1 || l.UnitPrice < 1 {
				t.Errorf("order %s: bad line %+v", o.ID, l)
			}
		}
		if _, known := decline[card{o.Card, o.Currency}]; !known {
			t.Errorf("order %s: there is no card %s in %s", o.ID, o.Card, o.Currency)
		}
	}
	if len(ids) != 300 || len(orders) != 300 {
		t.Errorf("%d orders with %d ids, want 300", len(orders), len(ids))
	}
	if len(currencies) < 8 {
		t.Errorf("%d currencies, want several", len(currencies))
	}
	for _, kind := range []string{
		"declined card", "issuer that does not answer at first", "address nobody delivers to",
		"second order of a customer", "name beyond ASCII", "sold out",
	} {
		if kinds[kind] < 10 {
			t.Errorf("%s: %d orders, want at least 10", kind, kinds[kind])
		}
	}
}

func TestBadOrdersFileIsReportedWithItsLine(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"not JSON", "{\"id\":\"a\"}\n\n{", "day.jsonl:3: "},
		{"unknown field", "{\"id\":\"a\"}\n{\"ids\":\"b\"}\n", `day.jsonl:2: json: unknown field "ids"`},
		{"wrong type", "{\"id\":7}\n", "day.jsonl:1: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ReadOrders("day.jsonl", strings.NewReader(tt.text))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}
