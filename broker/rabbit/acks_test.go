package rabbit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// idle makes an acker that is never told to tell.
func idle() *acker { return &acker{base: 1, wake: make(chan struct{}, 1)} }

func TestAcknowledgementsTakeAsFewFramesAsTheirOrderAllows(t *testing.T) {
	type settle struct {
		tags []uint64
		ok   bool
		want string // of the orders taken then: upTo, single, refused
	}
	for name, steps := range map[string][]settle{
		"in order":          {{[]uint64{1, 2, 3}, true, "3 [] []"}, {[]uint64{4}, true, "4 [] []"}},
		"in reverse":        {{[]uint64{3, 2}, true, "0 [2 3] []"}, {[]uint64{1}, true, "1 [] []"}},
		"the first is last": {{[]uint64{2}, true, "0 [2] []"}, {[]uint64{4}, true, "0 [4] []"}, {[]uint64{1, 3}, true, "3 [] []"}},
		// A multiple acknowledgement must name a tag that is outstanding: 1,
		// not 2, which was acknowledged before.
		"never names one twice":     {{[]uint64{2}, true, "0 [2] []"}, {[]uint64{1}, true, "1 [] []"}, {[]uint64{3}, true, "3 [] []"}},
		"given back":                {{[]uint64{2}, false, "0 [] [2]"}, {[]uint64{1, 3}, true, "3 [] []"}},
		"given back at the end":     {{[]uint64{1, 2}, true, "2 [] []"}, {[]uint64{3}, false, "0 [] [3]"}, {[]uint64{4}, true, "4 [] []"}},
		"twice settles once":        {{[]uint64{1, 1, 1}, true, "1 [] []"}, {[]uint64{1}, false, "0 [] []"}, {[]uint64{2}, true, "2 [] []"}},
		"what was said first holds": {{[]uint64{1, 1}, false, "0 [] [1]"}, {[]uint64{1}, true, "0 [] []"}},
	} {
		t.Run(name, func(t *testing.T) {
			a := idle()
			for i, s := range steps {
				for _, tag := range s.tags {
					a.settle(tag, s.ok)
				}
				o := a.take()
				if got := fmt.Sprint(o.upTo, o.single, o.refused); got != s.want {
					t.Errorf("step %d: got %s, want %s", i+1, got, s.want)
				}
			}
		})
	}
}

// The orders, carried out by a broker that knows only what AMQP says, settle
// every delivery as it was settled here, whatever the order.
func TestAcknowledgementsSettleEachDeliveryOnce(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		a := idle()
		n := 1 + r.IntN(200)
		fate := map[uint64]bool{}
		outstanding := map[uint64]bool{}
		for tag := range uint64(n) {
			outstanding[tag+1] = true
		}
		check := func(tag uint64, ok bool) {
			if !outstanding[tag] {
				t.Fatalf("seed %d: %d is not outstanding", seed, tag)
			}
			if want, settled := fate[tag]; !settled || want != ok {
				t.Fatalf("seed %d: %d was told %v, settled %v as %v", seed, tag, ok, settled, want)
			}
			delete(outstanding, tag)
		}
		carryOut := func(o orders) {
			for _, tag := range o.refused {
				check(tag, false)
			}
			if o.upTo > 0 {
				if !outstanding[o.upTo] {
					t.Fatalf("seed %d: up to %d, which is not outstanding", seed, o.upTo)
				}
				for tag := range o.upTo {
					if outstanding[tag+1] {
						check(tag+1, true)
					}
				}
			}
			for _, tag := range o.single {
				check(tag, true)
			}
		}
		order := r.Perm(n)
		if seed%2 == 0 { // nearly in order
			slices.Sort(order)
			for i := range order {
				j := min(n-1, i+r.IntN(5))
				order[i], order[j] = order[j], order[i]
			}
		}
		for _, i := range order {
			tag, ok := uint64(i)+1, r.IntN(5) > 0
			fate[tag] = ok
			a.settle(tag, ok)
			a.settle(tag, !ok)
			if r.IntN(4) == 0 {
				carryOut(a.take())
			}
		}
		carryOut(a.take())
		if len(outstanding) > 0 {
			t.Fatalf("seed %d: %d were never told", seed, len(outstanding))
		}
		if len(a.fate) != 0 {
			t.Fatalf("seed %d: %d fates are kept", seed, len(a.fate))
		}
	}
}
