package main

// region is where customers live: names, streets and towns that go together.
type region struct {
	country, currency string
	weight            int
	given, family     []string
	familyFirst       bool
	street            func(name string, number int) string
	streets           []string
	towns             [][2]string // postcode, town
}

func numberLast(name string, number int) string  { return name + " " + itoa(number) }
func numberFirst(name string, number int) string { return itoa(number) + " " + name }
func numberComma(name string, number int) string { return itoa(number) + ", " + name }

var regions = []region{
	{
		country: "DE", currency: "EUR", weight: 14, street: numberLast,
		given:   []string{"Jürgen", "Sabine", "Björn", "Annegret", "Käthe", "Matthias", "Leonie", "Özlem"},
		family:  []string{"Müller", "Weiß", "Schröder", "Vogel", "Böhm", "Yıldız", "Krüger", "Lindner"},
		streets: []string{"Lindenstraße", "Am Mühlbach", "Goethestraße", "Schloßallee", "Hafenweg"},
		towns:   [][2]string{{"10969", "Berlin"}, {"80331", "München"}, {"50667", "Köln"}, {"90402", "Nürnberg"}, {"24103", "Kiel"}},
	}, {
		country: "FR", currency: "EUR", weight: 10, street: numberComma,
		given:   []string{"Éloïse", "François", "Maëlle", "Cédric", "Anaïs", "Théo", "Hélène"},
		family:  []string{"Lefèvre", "Gauthier", "Béranger", "Dupré", "N'Diaye", "Chaput"},
		streets: []string{"rue de la Forêt", "avenue Jean-Jaurès", "quai des Chartrons", "place du Marché"},
		towns:   [][2]string{{"75011", "Paris"}, {"69002", "Lyon"}, {"33000", "Bordeaux"}, {"38000", "Grenoble"}},
	}, {
		country: "IT", currency: "EUR", weight: 6, street: numberLast,
		given:   []string{"Niccolò", "Chiara", "Matteo", "Giulia"},
		family:  []string{"D'Angelo", "Ferrara", "Cantù", "Moretti"},
		streets: []string{"via Garibaldi", "corso Umberto I", "via dei Mille"},
		towns:   [][2]string{{"40121", "Bologna"}, {"10121", "Torino"}, {"80132", "Napoli"}},
	}, {
		country: "ES", currency: "EUR", weight: 5, street: numberLast,
		given:   []string{"Íñigo", "Begoña", "José María", "Lucía"},
		family:  []string{"Núñez Ibáñez", "García Peña", "Etxeberria Ugarte", "Muñoz Castaño"},
		streets: []string{"calle Mayor,", "paseo del Prado,", "calle de la Peña,"},
		towns:   [][2]string{{"28014", "Madrid"}, {"48005", "Bilbao"}, {"41004", "Sevilla"}},
	}, {
		country: "FI", currency: "EUR", weight: 4, street: numberLast,
		given:   []string{"Päivi", "Väinö", "Sanna", "Jyrki"},
		family:  []string{"Mäkelä", "Hämäläinen", "Korhonen", "Åberg"},
		streets: []string{"Hämeentie", "Kirkkokatu", "Rantapolku"},
		towns:   [][2]string{{"00500", "Helsinki"}, {"33100", "Tampere"}, {"90100", "Oulu"}},
	}, {
		country: "US", currency: "USD", weight: 12, street: numberFirst,
		given:   []string{"Siobhán", "Marcus", "Guadalupe", "Xiomara", "Tyler", "Nguyệt", "Renée"},
		family:  []string{"O'Connell", "Washington", "Hernández", "Trần", "Kowalczyk", "Begay"},
		streets: []string{"Juniper Ave", "N Halsted St", "Old Mill Rd", "E 3rd St, Apt 4B"},
		towns:   [][2]string{{"60614", "Chicago, IL"}, {"97202", "Portland, OR"}, {"78704", "Austin, TX"}, {"04101", "Portland, ME"}},
	}, {
		country: "GB", currency: "GBP", weight: 10, street: numberFirst,
		given:   []string{"Niamh", "Rhŷs", "Zadie", "Alasdair", "Priya", "Oluwaseun"},
		family:  []string{"Featherstonehaugh", "ap Gwilym", "MacLeòid", "Chaudhry", "Adébáyọ̀", "Smith"},
		streets: []string{"Station Road", "Heol y Bont", "Canongate", "Mill Lane"},
		towns:   [][2]string{{"EH8 8BN", "Edinburgh"}, {"CF10 1EP", "Cardiff"}, {"LS1 4AP", "Leeds"}, {"N1 9GU", "London"}},
	}, {
		country: "JP", currency: "JPY", weight: 10, street: numberLast, familyFirst: true,
		given:   []string{"さくら", "大輔", "陽子", "健一", "みどり"},
		family:  []string{"渡邉", "髙橋", "佐藤", "小野寺", "吉田"},
		streets: []string{"神宮前三丁目", "中京区寺町通", "本町二丁目"},
		towns:   [][2]string{{"150-0001", "東京都渋谷区"}, {"604-8091", "京都市"}, {"541-0053", "大阪市"}},
	}, {
		country: "CH", currency: "CHF", weight: 6, street: numberLast,
		given:   []string{"Urs", "Flurina", "Gian-Andrea", "Léa"},
		family:  []string{"Zürcher", "Cadruvi", "Bänziger", "Grünenfelder"},
		streets: []string{"Rämistrasse", "Via Sura", "Rue du Rhône"},
		towns:   [][2]string{{"8001", "Zürich"}, {"7500", "St. Moritz"}, {"1204", "Genève"}},
	}, {
		country: "SE", currency: "SEK", weight: 6, street: numberLast,
		given:   []string{"Åsa", "Göran", "Ebba", "Nils"},
		family:  []string{"Sjöström", "Öberg", "Nyström", "Lindqvist"},
		streets: []string{"Storgatan", "Södra vägen", "Drottninggatan"},
		towns:   [][2]string{{"411 35", "Göteborg"}, {"111 51", "Stockholm"}, {"903 26", "Umeå"}},
	}, {
		country: "PL", currency: "PLN", weight: 5, street: numberLast,
		given:   []string{"Łukasz", "Małgorzata", "Żaneta", "Michał"},
		family:  []string{"Wiśniewski", "Dąbrowska", "Wójcik", "Brzęczyszczykiewicz"},
		streets: []string{"ul. Świętojańska", "ul. Floriańska", "al. Róż"},
		towns:   [][2]string{{"81-368", "Gdynia"}, {"31-021", "Kraków"}, {"50-107", "Wrocław"}},
	}, {
		country: "CZ", currency: "CZK", weight: 4, street: numberLast,
		given:   []string{"Jiří", "Tereza", "Zdeněk", "Kateřina"},
		family:  []string{"Dvořák", "Černá", "Říha", "Novotná"},
		streets: []string{"Dlouhá", "Náměstí Míru", "Křížová"},
		towns:   [][2]string{{"110 00", "Praha"}, {"602 00", "Brno"}},
	}, {
		country: "IS", currency: "ISK", weight: 2, street: numberLast,
		given:   []string{"Þórunn", "Guðmundur", "Sæunn"},
		family:  []string{"Ægisdóttir", "Þorsteinsson", "Björnsdóttir"},
		streets: []string{"Laugavegur", "Skólavörðustígur"},
		towns:   [][2]string{{"101", "Reykjavík"}, {"600", "Akureyri"}},
	}, {
		country: "KW", currency: "KWD", weight: 3, street: numberLast,
		given:   []string{"نورة", "خالد", "فاطمة"},
		family:  []string{"الصباح", "العنزي", "المطيري"},
		streets: []string{"شارع سالم المبارك", "شارع فهد السالم"},
		towns:   [][2]string{{"22001", "السالمية"}, {"13001", "مدينة الكويت"}},
	},
}

// outposts are places that no carrier goes to, with the currency of whoever
// orders from there.
var outposts = []struct {
	name, email, street, city, country, currency string
}{
	{"Dr. Solveig Hauge", "s.hauge", "Trollheimen, hut 3", "Troll Station", "AQ", "EUR"},
	{"Amelia Green", "amelia.green", "Settlement 17", "Edinburgh of the Seven Seas", "SH", "GBP"},
	{"Renaud Kerguélec", "r.kerguelec", "Base Port-aux-Français", "Kerguelen", "TF", "EUR"},
	{"Cmdr. Walt Ostrowski", "w.ostrowski", "Amundsen–Scott Station, B2", "South Pole", "AQ", "USD"},
	{"Mele Young-Christian", "mele.yc", "The Hill of Difficulty", "Adamstown", "PN", "GBP"},
}
