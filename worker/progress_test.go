package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestProgressIsRefusedWithAReason(t *testing.T) {
	var p progress
	ctx := context.WithValue(context.Background(), progressKey{}, &p)
	if err := Progress(context.Background(), 1); !errors.Is(err, ErrNoTask) {
		t.Errorf("without a task: %v", err)
	}
	if err := Progress(ctx, make(chan int)); err == nil {
		t.Error("a channel was accepted")
	}
	if err := Progress(ctx, strings.Repeat("x", MaxProgressBytes)); err == nil || !strings.Contains(err.Error(), "2048") {
		t.Errorf("too long: %v", err)
	}
	if p.last() != nil {
		t.Errorf("refused, and kept: %s", p.last())
	}
	if err := Progress(ctx, "half"); err != nil || string(p.last()) != `"half"` {
		t.Errorf("%s, %v", p.last(), err)
	}
}
