package main

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestQuantiles(t *testing.T) {
	var hundred latencies
	for i := 100; i > 0; i-- {
		hundred = append(hundred, time.Duration(i)*time.Millisecond)
	}
	for _, c := range []struct {
		of   latencies
		q    float64
		want float64
	}{
		{nil, 0.5, 0},
		{latencies{7 * time.Millisecond}, 0.99, 7},
		{hundred, 0, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
	} {
		if got := c.of.quantile(c.q); got != c.want {
			t.Errorf("quantile %v of %d samples: %v, want %v", c.q, len(c.of), got, c.want)
		}
	}
}

func TestBarsThatDependOnOtherFigures(t *testing.T) {
	r := newReport()
	light := figure{Name: "saga.light.p50_ms", Value: 2.1}
	if _, _, has := r.verdict(light); has {
		t.Error("a bar without what it is measured by")
	}
	r.set("saga.floor.p50_ms", 1, "ms")
	if text, pass, has := r.verdict(light); !has || pass {
		t.Errorf("2.1 ms over a floor of 1 ms: bar %q, passed %v", text, pass)
	}
	r.set("saga.floor.p50_ms", 1.05, "ms")
	if text, pass, _ := r.verdict(light); !pass {
		t.Errorf("2.1 ms over a floor of 1.05 ms: bar %q, not passed", text)
	}
	for value, want := range map[float64]bool{0.34: false, 0.35: true, 2: true} {
		if _, pass, _ := r.verdict(figure{Name: "saga.ratio_to_ceiling", Value: value}); pass != want {
			t.Errorf("a ratio of %v: passed %v", value, pass)
		}
	}
}

func TestRatiosFollowTheBetterCeiling(t *testing.T) {
	r := newReport()
	r.set("tcc.per_s", 1500, "1/s")
	r.setRatio("tcc")
	if _, ok := r.get("tcc.ratio_to_ceiling"); ok {
		t.Error("a ratio to a ceiling that was not measured")
	}
	r.setCeilings(16_000)
	r.setRatio("tcc")
	r.setCeilings(20_000)
	for name, want := range map[string]float64{
		"saga.ceiling_per_s": 6667, "tcc.ceiling_per_s": 5000, "twophase.ceiling_per_s": 5000, "tcc.ratio_to_ceiling": 0.3,
	} {
		if got, _ := r.get(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if _, ok := r.get("twophase.ratio_to_ceiling"); ok {
		t.Error("a ratio of what was not measured")
	}
	if text, pass, has := r.verdict(figure{Name: "tcc.ratio_to_ceiling", Value: 0.3}); !has || !pass {
		t.Errorf("a TCC at 0.3 of its ceiling: bar %q, passed %v", text, pass)
	}
}

func TestFiguresAreAnArrayInTheOrderOfTheMeasurement(t *testing.T) {
	r := newReport()
	r.set("b", 12345.678, "1/s")
	r.set("a", 0.0123456, "ms")
	r.set("b", 54321.9, "1/s")
	path := filepath.Join(t.TempDir(), "figures.json")
	if err := r.write(path, ""); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []figure
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	want := []figure{{"b", 54322, "1/s"}, {"a", 0.01235, "ms"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("figures %v, want %v", got, want)
	}
}

func TestPhasesKeepTheirOrder(t *testing.T) {
	got, err := choosePhases("memory,broker")
	if err != nil || len(got) != 2 || got[0].name != "broker" || got[1].name != "memory" {
		t.Errorf("chosen: %v, %v", got, err)
	}
	if _, err := choosePhases("broker,speed"); err == nil {
		t.Error("an unknown phase was accepted")
	}
}

// The store's ceiling is that of its own settings.
func TestRowsAreCommittedSynchronously(t *testing.T) {
	table, err := openTable(filepath.Join(t.TempDir(), "rows.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := table.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, rows := range []int{1, rowsInBatch} {
		if _, _, err := table.commits(context.Background(), rows, time.Millisecond); err != nil {
			t.Fatalf("%d rows a commit: %v", rows, err)
		}
	}
	rows, err := table.conn.Query("SELECT (SELECT count(*) FROM history), synchronous, journal_mode FROM pragma_synchronous, pragma_journal_mode", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	got := make([]driver.Value, 3)
	if err := rows.Next(got); err != nil {
		t.Fatal(err)
	}
	if got[0] != table.next || got[1] != int64(2) || got[2] != "wal" {
		t.Errorf("rows, synchronous and journal mode: %v, want %d, 2 and wal", got, table.next)
	}
}
