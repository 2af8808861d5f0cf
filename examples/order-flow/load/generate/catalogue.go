package main

// product is an item with its price in euro cents; other currencies follow from
// a fixed rate, rounded the way shops round.
type product struct {
	sku, name string
	stock     int64
	cents     int64
	wanted    int // how often it is picked, relative to the others
}

var products = []product{
	{"TEA-SENCHA-100", "Sencha Uji, 100 g", 180, 1490, 10},
	{"TEA-DARJ-FF-100", "Darjeeling First Flush, 100 g", 120, 2250, 8},
	{"TEA-ASSAM-250", "Assam Mokalbari, 250 g", 160, 1690, 9},
	{"TEA-LAPSANG-100", "Lapsang Souchong, 100 g", 140, 1190, 5},
	{"TEA-ROOIBOS-250", "Rooibos, 250 g", 150, 990, 7},
	{"TEA-MATCHA-30", "Matcha Yame, tin of 30 g", 110, 3490, 6},
	{"COF-YIRGA-250", "Yirgacheffe, whole beans, 250 g", 170, 1390, 10},
	{"COF-HUILA-1000", "Huila, whole beans, 1 kg", 90, 3990, 6},
	{"POT-KYUSU-280", "Kyūsu teapot, Tokoname clay, 280 ml", 70, 6800, 4},
	{"POT-GLASS-1200", "Glass teapot with strainer, 1.2 l", 80, 3450, 4},
	{"CUP-ARITA-2", "Arita porcelain cups, pair", 75, 4200, 4},
	{"CHASEN-80", "Bamboo whisk, 80 prongs", 85, 2190, 4},
	{"KETTLE-GOOSE-900", "Gooseneck kettle, 0.9 l", 60, 11900, 3},
	{"GRIND-HAND-40", "Hand grinder, 40 g", 65, 8990, 3},
	{"FILT-V60-100", "Paper filters, size 02, 100 pieces", 300, 650, 9},
	{"HONEY-LINDEN-500", "Linden blossom honey, 500 g", 100, 1150, 5},
	{"GIFT-WRAP", "Gift wrapping", 400, 300, 5},
	// A few pieces, wanted by more customers than there are pieces.
	{"TEA-PUERH-1998", "Pu-erh cake of 1998, 357 g", 4, 28900, 2},
	{"BOWL-RAKU-ONE", "Raku tea bowl, signed", 3, 34500, 2},
	// Sold out, still in the catalogue.
	{"TEA-GYOKURO-50", "Gyokuro Asahi, 50 g", 0, 4490, 3},
	{"POT-CAST-800", "Cast-iron teapot, 0.8 l", 0, 9900, 2},
}

// currency turns euro cents into a price in minor units.
type currency struct {
	rate  float64 // minor units for one euro cent
	round int64   // prices are multiples of this
}

var currencies = map[string]currency{
	"EUR": {1, 5},
	"USD": {1.09, 5},
	"GBP": {0.86, 5},
	"CHF": {0.95, 5},
	"SEK": {11.4, 100},
	"PLN": {4.32, 10},
	"CZK": {25.2, 100},
	"ISK": {1.5, 10},   // no minor unit
	"JPY": {1.63, 10},  // no minor unit
	"KWD": {3.34, 250}, // a thousand fils to the dinar
}

func (c currency) price(cents int64) int64 {
	steps := int64(float64(cents)*c.rate/float64(c.round) + 0.5)
	return max(steps, 1) * c.round
}
