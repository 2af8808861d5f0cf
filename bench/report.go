package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// figure is one measured value.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// report collects the figures in the order in which they were measured.
type report struct {
	figures []figure
	index   map[string]int
}

func newReport() *report { return &report{index: map[string]int{}} }

// set records a figure; a second time replaces it.
func (r *report) set(name string, value float64, unit string) {
	f := figure{Name: name, Value: rounded(value), Unit: unit}
	if i, ok := r.index[name]; ok {
		r.figures[i] = f
		return
	}
	r.index[name] = len(r.figures)
	r.figures = append(r.figures, f)
}

func (r *report) get(name string) (float64, bool) {
	i, ok := r.index[name]
	if !ok {
		return 0, false
	}
	return r.figures[i].Value, true
}

// rounded keeps four significant digits: more would be noise.
func rounded(v float64) float64 {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	if scale < 1 {
		return math.Round(v)
	}
	return math.Round(v*scale) / scale
}

// setCeilings sets what so many round trips per second allow for, and what was
// reached of that.
func (r *report) setCeilings(roundTrips float64) {
	for _, of := range []struct {
		name  string
		trips float64 // of a run
	}{{"saga", tripsPerSaga}, {"tcc", tripsPerTransaction}, {"twophase", tripsPerTransaction}} {
		r.set(of.name+".ceiling_per_s", roundTrips/of.trips, "1/s")
		if _, ok := r.get(of.name + ".ratio_to_ceiling"); ok {
			r.setRatio(of.name)
		}
	}
}

// setRatio sets what was reached of a ceiling, where that was measured.
func (r *report) setRatio(name string) {
	reached, _ := r.get(name + ".per_s")
	if ceiling, ok := r.get(name + ".ceiling_per_s"); ok {
		r.set(name+".ratio_to_ceiling", reached/ceiling, "")
	}
}

// bar is what a figure has to reach.
type bar struct {
	atLeast bool // else at most
	factor  float64
	of      string // another figure; empty: factor is the value itself
}

var bars = map[string]bar{
	"saga.ratio_to_ceiling":       {atLeast: true, factor: 0.35},
	"tcc.ratio_to_ceiling":        {atLeast: true, factor: 0.3},
	"saga.failing.per_s":          {atLeast: true, factor: 0.5, of: "saga.per_s"},
	"saga.postgres.per_s":         {atLeast: true, factor: 1700.0 / 3000, of: "saga.per_s"},
	"takeover.ms":                 {factor: 6000}, // the default lease's time, and a second
	"saga.light.p50_ms":           {factor: 2, of: "saga.floor.p50_ms"},
	"saga.light.p99_ms":           {factor: 4, of: "saga.floor.p50_ms"},
	"saga.load80.p99_ms":          {factor: 20},
	"orchestrator.cpu_s_per_1000": {factor: 0.2},
	"history.bytes_per_run":       {factor: 1000},
	"orchestrator.rss_mb.100k":    {factor: 1.2, of: "orchestrator.rss_mb.10k"},
	"recovery.resume_ms":          {factor: 1000},

	"workers.1000.dispatch.p50_ms":        {factor: 2, of: "workers.2.dispatch.p50_ms"},
	"workers.1000.heartbeat_cpu_ms_per_s": {factor: 100},
	"workers.1000.rebuild_ms":             {factor: 20},
}

// verdict says whether a figure reaches its bar, and what that is.
func (r *report) verdict(f figure) (text string, pass, has bool) {
	b, has := bars[f.Name]
	if !has {
		return "", false, false
	}
	limit := b.factor
	if b.of != "" {
		other, ok := r.get(b.of)
		if !ok {
			return "", false, false
		}
		limit *= other
	}
	sign, pass := "<=", f.Value <= limit
	if b.atLeast {
		sign, pass = ">=", f.Value >= limit
	}
	text = fmt.Sprintf("%s %.4g", sign, limit)
	if b.of != "" {
		text += fmt.Sprintf(" (%g x %s)", b.factor, b.of)
	}
	return text, pass, true
}

// rows makes the table; missed is how many bars were.
func (r *report) rows() (t table.Writer, missed int) {
	t = table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"figure", "value", "unit", "bar", ""})
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}})
	for _, f := range r.figures {
		bar, pass, has := r.verdict(f)
		word := ""
		switch {
		case has && pass:
			word = "pass"
		case has:
			word = "MISSED"
			missed++
		}
		t.AppendRow(table.Row{f.Name, fmt.Sprint(f.Value), f.Unit, bar, word})
	}
	return t, missed
}

// print shows the table to people.
func (r *report) print(w io.Writer) {
	t, missed := r.rows()
	fmt.Fprintf(w, "\n%s\n", t.Render())
	if missed > 0 {
		fmt.Fprintf(w, "%d bars missed. Figures of a machine that does something else besides say little.\n", missed)
	}
}

// write writes the figures as JSON and the table as Markdown, where there is a
// path for them.
func (r *report) write(figures, markdown string) error {
	if figures != "" {
		b, err := json.MarshalIndent(r.figures, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(figures, append(b, '\n'), 0o644); err != nil {
			return fmt.Errorf("write the figures: %w", err)
		}
	}
	if markdown != "" {
		t, _ := r.rows()
		if err := os.WriteFile(markdown, []byte(machineFacts()+"\n\n"+t.RenderMarkdown()+"\n"), 0o644); err != nil {
			return fmt.Errorf("write the table: %w", err)
		}
	}
	return nil
}
