package flow

import "time"

// Order is the workflow's input and the input of its first step.
type Order struct {
	ID       string    `json:"id"` // also the id of its run
	PlacedAt time.Time `json:"placed_at"`
	Customer Customer  `json:"customer"`
	Address  Address   `json:"address"`
	Currency string    `json:"currency"` // ISO 4217
	Lines    []Line    `json:"lines"`
	Card     string    `json:"card"` // token of the card that pays
}

// Customer is who ordered.
type Customer struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// Address is where the parcel goes.
type Address struct {
	Street   string `json:"street"`
	Postcode string `json:"postcode,omitempty"`
	City     string `json:"city"`
	Country  string `json:"country"` // ISO 3166-1 alpha-2
}

// Line is a quantity of one item at the price the customer was shown.
type Line struct {
	SKU       string `json:"sku"`
	Quantity  int64  `json:"quantity"`
	UnitPrice int64  `json:"unit_price"` // in minor units of the order's currency
}

// Total is the price of the order in minor units of its currency.
func (o Order) Total() int64 {
	var total int64
	for _, l := range o.Lines {
		total += l.Quantity * l.UnitPrice
	}
	return total
}

// Pieces is the number of things in the parcel.
func (o Order) Pieces() int64 {
	var pieces int64
	for _, l := range o.Lines {
		pieces += l.Quantity
	}
	return pieces
}

// Receipt is the workflow's output.
type Receipt struct {
	Order    string `json:"order"`
	Currency string `json:"currency"`
	Total    int64  `json:"total"` // minor units
	Tracking string `json:"tracking"`
}

// Placed is the output of [CreateOrder].
type Placed struct {
	Total  int64 `json:"total"` // minor units
	Pieces int64 `json:"pieces"`
}

// Payment is the input of [Charge] and of [Refund].
type Payment struct {
	Order    string `json:"order"`
	Card     string `json:"card"`
	Currency string `json:"currency"`
	Amount   int64  `json:"amount"` // minor units
}

// Charged is the output of [Charge].
type Charged struct {
	Authorization string `json:"authorization"`
}

// Parcel is the input of [Ship].
type Parcel struct {
	Order   string  `json:"order"`
	Name    string  `json:"name"`
	Address Address `json:"address"`
	Pieces  int64   `json:"pieces"`
}

// Shipped is the output of [Ship].
type Shipped struct {
	Carrier  string `json:"carrier"`
	Tracking string `json:"tracking"`
}

// Notice is the input of [Notify].
type Notice struct {
	Order    string `json:"order"`
	Email    string `json:"email"`
	Tracking string `json:"tracking"`
}

// Done is the output of tasks that have nothing to say.
type Done struct{}
