package mailbox_test

import (
	"testing"

	"github.com/ringmaster-dev/ringmaster/broker/internal/mailbox"
)

func TestValuesArriveInOrderAndNoneIsLeftBehind(t *testing.T) {
	var got []int
	enter := make(chan struct{})
	m := mailbox.New(func(v int) {
		<-enter
		got = append(got, v)
	})
	for v := range 1000 {
		m.Put(v) // does not block, though nothing is taken yet
	}
	m.Close()
	m.Put(1000) // too late
	close(enter)
	<-m.Done()
	if len(got) != 1000 {
		t.Fatalf("%d values arrived, want 1000", len(got))
	}
	for i, v := range got {
		if v != i {
			t.Fatalf("value %d is %d", i, v)
		}
	}
}
