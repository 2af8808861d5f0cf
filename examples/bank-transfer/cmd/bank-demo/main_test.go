package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/examples/bank-transfer/transfer"
	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

func defaults() options {
	return options{kind: "2pc", transfers: 40, accounts: 5, clients: 20, seed: 7, timeout: 5 * time.Minute}
}

// The whole demo but for the kills, which take their time; `make demo-bank` has
// them.
func TestTransfersBetweenTwoDatabases(t *testing.T) {
	o := defaults()
	o.dir = filepath.Join(t.TempDir(), "demo")
	screen, err := os.Create(filepath.Join(t.TempDir(), "screen"))
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	err = run(t.Context(), o, stage.NewScreen(screen))
	text, _ := os.ReadFile(screen.Name())
	if err != nil || !strings.Contains(string(text), "all audits passed") {
		logs, _ := filepath.Glob(filepath.Join(o.dir, "2pc", "*.log"))
		for _, name := range logs {
			log, _ := os.ReadFile(name)
			t.Logf("%s:\n%s", filepath.Base(name), log)
		}
		t.Fatalf("%v\n%s", err, text)
	}
}

// A seed says everything: who pays whom, and who is killed when.
func TestASeedSaysEverything(t *testing.T) {
	o := defaults()
	o.kills = 3
	among := []victim{{name: "a"}, {name: "b"}, {name: "c"}}
	draw := func(seed uint64) ([]wish, []strike) {
		o.seed = seed
		return newTown(o, transfer.KindTCC, nil, nil).all, newChaos(o, among, nil).strikes
	}
	wishes, strikes := draw(1)
	again, strikesAgain := draw(1)
	if !reflect.DeepEqual(wishes, again) || !reflect.DeepEqual(strikes, strikesAgain) {
		t.Error("the same seed gives two days")
	}
	others, otherStrikes := draw(2)
	if reflect.DeepEqual(wishes, others) || reflect.DeepEqual(strikes, otherStrikes) {
		t.Error("another seed gives the same day")
	}
}

func TestEveryVictimIsKilledAsOftenAsAsked(t *testing.T) {
	o := defaults()
	o.kills = 5
	among := []victim{{name: "a"}, {name: "b"}, {name: "c"}}
	killed, last := map[string]int{}, 0
	for _, s := range newChaos(o, among, nil).strikes {
		names := map[string]bool{}
		for _, v := range s.victims {
			killed[v.name]++
			names[v.name] = true
		}
		if len(names) != len(s.victims) || len(names) > 2 || s.after < last || s.after >= o.transfers {
			t.Errorf("strike %+v after one at %d", s, last)
		}
		last = s.after
	}
	if want := map[string]int{"a": 5, "b": 5, "c": 5}; !reflect.DeepEqual(killed, want) {
		t.Errorf("killed %v", killed)
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	for _, tt := range []struct {
		change func(*options)
		want   string
	}{
		{func(o *options) { o.kind = "3pc" }, "--kind: must be 2pc, tcc, saga or all"},
		{func(o *options) { o.transfers = 0 }, "--transfers: must be from 1"},
		{func(o *options) { o.accounts = 1 }, "--accounts: must be from 2"},
		{func(o *options) { o.clients = 0 }, "--clients: must be from 1"},
		{func(o *options) { o.kills = -1 }, "--kills: must be from 0"},
		{func(o *options) { o.timeout = 0 }, "--timeout: must be positive"},
		{func(o *options) { o.dir = os.TempDir() }, "--dir: "},
	} {
		o := defaults()
		tt.change(&o)
		if err := run(t.Context(), o, stage.NewScreen(os.Stdout)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error %v, want %q", err, tt.want)
		}
	}
}
