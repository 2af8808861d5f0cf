package report

import (
	"testing"
	"time"
)

var zero = time.Unix(1_000_000, 0)

func at(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }

// steady is runs that take 10 ms each, one every 25 ms, but for a pause in which
// those that begin do not end before it is over.
func steady(total, pauseFrom, pauseTo int) (runs []Run) {
	for ms := 0; ms < total; ms += 25 {
		end := ms + 10
		if end > pauseFrom && end < pauseTo {
			end = pauseTo
		}
		runs = append(runs, Run{at(ms), at(end)})
	}
	return runs
}

func TestThroughputThatNeverFallsIsBackAtOnce(t *testing.T) {
	line := NewTimeline(steady(10_000, 0, 0))
	if m := line.Median(at(0), at(5000)); m != 10 {
		t.Errorf("median %v", m)
	}
	back, ok := line.Back(at(5000), at(9000), 10)
	if back != 0 || !ok {
		t.Errorf("back after %v, %v", back, ok)
	}
	if gap, _ := line.Gap(at(1000), at(9000)); gap > 25*time.Millisecond {
		t.Errorf("a gap of %v", gap)
	}
}

func TestThroughputIsBackWhenThePauseIsOver(t *testing.T) {
	line := NewTimeline(steady(10_000, 5000, 7000))
	back, ok := line.Back(at(5000), at(9900), line.Median(at(0), at(5000)))
	if !ok || back < 1250*time.Millisecond || back > 2*time.Second {
		t.Errorf("back after %v, %v", back, ok)
	}
	gap, began := line.Gap(at(4000), at(9000))
	if gap < 1980*time.Millisecond || gap > 2*time.Second || began.After(at(5011)) {
		t.Errorf("a gap of %v from %v", gap, began.Sub(zero))
	}
	// Only what lies in the window counts.
	if gap, _ := line.Gap(at(6000), at(6500)); gap != 500*time.Millisecond {
		t.Errorf("a gap of %v in half a second of it", gap)
	}
}

func TestThroughputThatDoesNotComeBack(t *testing.T) {
	line := NewTimeline(steady(10_000, 5000, 20_000))
	if back, ok := line.Back(at(5000), at(9000), 10); ok || back != 4*time.Second {
		t.Errorf("back after %v, %v", back, ok)
	}
	if gap, _ := line.Gap(at(0), at(9000)); gap < 3980*time.Millisecond {
		t.Errorf("a gap of %v", gap)
	}
}

func TestNoGapWhileNothingIsUnderWay(t *testing.T) {
	line := NewTimeline([]Run{{at(0), at(100)}, {at(5000), at(5300)}, {at(6000), time.Time{}}})
	gap, began := line.Gap(at(0), at(6200))
	if gap != 300*time.Millisecond || !began.Equal(at(5000)) {
		t.Errorf("a gap of %v from %v", gap, began.Sub(zero))
	}
	if gap, _ := line.Gap(at(6000), at(9000)); gap != 3*time.Second {
		t.Errorf("the run that has not ended makes a gap of %v", gap)
	}
	if gap, _ := NewTimeline(nil).Gap(at(0), at(1)); gap != 0 {
		t.Errorf("nothing at all makes a gap of %v", gap)
	}
}
