package load

import (
	"reflect"
	"testing"
)

func TestASeedSaysWhichJobs(t *testing.T) {
	first, err := Jobs(3, 2000)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Jobs(3, 2000)
	other, _ := Jobs(4, 2000)
	if !reflect.DeepEqual(first, again) || reflect.DeepEqual(first, other) {
		t.Error("the seed does not say which jobs there are")
	}
	ids, kinds, cancels := map[string]bool{}, map[string]int{}, 0
	for _, j := range first {
		ids[j.Order.ID] = true
		kinds[j.Workflow]++
		if j.Cancel {
			cancels++
		}
	}
	if len(ids) != len(first) {
		t.Errorf("%d ids of %d jobs", len(ids), len(first))
	}
	for _, w := range Workflows() {
		if kinds[w.Name()] < 100 {
			t.Errorf("%d jobs of %s", kinds[w.Name()], w.Name())
		}
	}
	if len(kinds) != len(Workflows()) || cancels < 50 {
		t.Errorf("kinds %v, %d cancels", kinds, cancels)
	}
}

// Stock and money are as scarce for many days as they are for one, so that about
// the same part of the orders fails.
func TestTheShopIsStockedForAllJobs(t *testing.T) {
	one, err := Items(300)
	if err != nil {
		t.Fatal(err)
	}
	many, err := Items(20_000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range one {
		if many[i].Opening != 67*one[i].Opening {
			t.Errorf("%s: %d for one day, %d for 67", one[i].SKU, one[i].Opening, many[i].Opening)
		}
	}
	cards, err := Accounts(20_000)
	if err != nil || len(cards) == 0 {
		t.Errorf("%d cards, %v", len(cards), err)
	}
}
