package archive_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/archive"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

const header = `{"ringmaster":{"format":1,"kind":"archive","written":"2026-03-04T05:06:07Z"}}` + "\n"

func TestMalformedFilesAreRefusedWithTheLineAndTheRule(t *testing.T) {
	good := strings.Split(strings.TrimSpace(export(t, filled(t, 1, runOf(t, "n-1", []byte("1"), true)), archive.Filter{})), "\n")
	workflow, run := good[1], good[2]
	first := regexp.MustCompile(`"seq":1,"data":"[^"]*"`).FindStringSubmatch(run)
	change := func(line, from, to string) string {
		if !strings.Contains(line, from) {
			t.Fatalf("%q is not in %s", from, line)
		}
		return header + workflow + "\n" + strings.Replace(line, from, to, 1) + "\n"
	}
	for says, file := range map[string]string{
		"line 1: expected a header":                        "",
		"line 1: is not a line of format 1":                "id,status\n",
		"line 1: ringmaster.format: 2 is not known":        strings.Replace(header, `"format":1`, `"format":2`, 1),
		"line 1: ringmaster.kind":                          strings.Replace(header, "archive", "memoir", 1),
		"line 2: expected exactly one of":                  header + "{}\n",
		"line 2: is not a line of format 1: json: unknown": header + `{"runs":[]}` + "\n",
		"line 2: has more than one JSON object":            header + workflow + workflow + "\n",
		"line 2: is not UTF-8":                             header + "\xff\n",
		"line 2: run.workflow: version":                    header + run + "\n",
		"run.status: \"done\" is not one":                  change(run, `"status":"succeeded"`, `"status":"done"`),
		"run.status: is compensated, and the history":      change(run, `"status":"succeeded"`, `"status":"compensated"`),
		"run.ended: is there if and only if":               change(run, `"ended":`, `"wake":`),
		"run.id: must have 1 to 200 bytes":                 change(run, `"id":"n-1"`, `"id":""`),
		"run.id: must be printable":                        change(run, `"id":"n-1"`, `"id":"n\n1"`),
		"run.history: is that of run \"n-1\"":              change(run, `"id":"n-1"`, `"id":"n-2"`),
		"run.key: is \"k\", and the history":               change(run, `"key":"n-1"`, `"key":"k"`),
		"run.input_hash: expected 32":                      change(run, `"input_hash":"`, `"input_hash":"x`),
		"run.created: must be in full milliseconds":        change(run, `"created":"2026-03-04T05:06:07Z"`, `"created":"2026-03-04T05:06:07.0001Z"`),
		"run.history: begins with record 2":                change(run, `"seq":1,`, `"seq":2,`),
		"numbers must grow":                                change(run, `"history":[`, `"history":[{"seq":1,"data":""},`),
		"run.history: record 1: corrupt history":           change(run, first[0], `"seq":1,"data":""`),
		"workflow: the definition is that of note":         header + strings.Replace(workflow, `"name":"note"`, `"name":"other"`, 1) + "\n",
		"workflow.definition":                              header + strings.Replace(workflow, `"kind":"saga","name"`, `"kind":"sage","name"`, 1) + "\n",
		"tombstone.status":                                 header + `{"tombstone":{"id":"a","status":"running","buried":"2026-03-04T05:06:07Z"}}` + "\n",
		"tombstone.workflow: is missing":                   header + `{"tombstone":{"id":"a","status":"aborted","buried":"2026-03-04T05:06:07Z","version":"1"}}` + "\n",
		"line 3: a line after the end":                     header + `{"end":{"workflows":0,"runs":0,"tombstones":0}}` + "\n" + workflow + "\n",
		"the end names 0 workflows, 1 runs":                header + `{"end":{"workflows":0,"runs":1,"tombstones":0}}` + "\n",
		"line 3: the file is cut off: it has no end line":  strings.Join(good[:3], "\n") + "\n",
		"line 3: the file is cut off in the middle":        good[0] + "\n" + workflow + "\n" + run[:50],
		"line 2: a second header":                          good[0] + "\n" + good[0] + "\n",
	} {
		_, _, err := importAll(storetest.NewModel(2), file)
		var at *archive.LineError
		if !errors.As(err, &at) || !strings.Contains(err.Error(), says) {
			t.Errorf("the error is %v, not %q", err, says)
		}
	}
}

func TestLongLinesAreRefused(t *testing.T) {
	err := archive.Each(context.Background(), strings.NewReader(header+strings.Repeat("x", 5000)+"\n"), 1000, func(*archive.Line, int) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "line 2: is longer than 1000 bytes") {
		t.Errorf("the error is %v", err)
	}
}

// FuzzReader reads what may come from anywhere: it answers with lines, or with an
// error that names the line.
func FuzzReader(f *testing.F) {
	f.Add(export(f, filled(f, 1, runOf(f, "n-1", []byte("1"), true)), archive.Filter{}))
	f.Add(header + `{"tombstone":{"id":"a","status":"aborted","buried":"2026-03-04T05:06:07Z"}}` + "\n")
	f.Add(header + `{"run":{"history":[{"seq":1,"data":"` + base64.StdEncoding.EncodeToString([]byte{1, 2, 3}) + `"}]}}`)
	f.Fuzz(func(t *testing.T, file string) {
		r := archive.NewReader(strings.NewReader(file), 1<<16)
		for {
			_, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			var at *archive.LineError
			if err != nil && (!errors.As(err, &at) || at.Line < 1) {
				t.Fatalf("the error is %v", err)
			}
			if err != nil {
				break
			}
		}
		_, _, err := importAll(storetest.NewModel(2), file)
		var at *archive.LineError
		if err != nil && !errors.As(err, &at) {
			t.Fatalf("an import's error is %v", err)
		}
	})
}
