package docstest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the top of the repository, seen from here.
const root = "../.."

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// walk calls f with the path of every file of the repository, from its top.
func walk(t *testing.T, f func(path string)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "bin" || d.Name() == "testdata" || path != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case !d.IsDir():
			f(path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pages are all pages of documentation.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	walk(t, func(path string) {
		if filepath.Ext(path) == ".md" {
			found = append(found, path)
		}
	})
	if len(found) < 5 {
		t.Fatalf("there are only %d pages: %q", len(found), found)
	}
	return found
}

// fence is a block of code of a page.
type fence struct{ language, text string }

var fencePattern = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

func fences(page string) []fence {
	var found []fence
	for _, m := range fencePattern.FindAllStringSubmatch(page, -1) {
		found = append(found, fence{m[1], m[2]})
	}
	return found
}

var headingPattern = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)

// anchors are the names under which a page's headings can be linked to.
func anchors(page string) []string {
	var found []string
	for _, m := range headingPattern.FindAllStringSubmatch(fencePattern.ReplaceAllString(page, ""), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r > 127:
				return r
			}
			return -1
		}, strings.ToLower(m[1]))
		found = append(found, name)
	}
	return found
}

var linkPattern = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// Every link inside the repository leads somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	for _, path := range pages(t) {
		page := fencePattern.ReplaceAllString(read(t, path), "")
		for _, m := range linkPattern.FindAllStringSubmatch(page, -1) {
			link := m[1]
			if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(link, "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			info, err := os.Stat(filepath.Join(root, target))
			if err != nil {
				t.Errorf("%s: link to %s: there is no %s", path, link, target)
				continue
			}
			if anchor != "" && !info.IsDir() && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s: link to %s: %s has no such heading", path, link, target)
			}
		}
	}
}

var makePattern = regexp.MustCompile("`make ([a-z-]+)[^`]*`|(?m:^make ([a-z-]+))")

// Every target of make that a page names exists.
func TestMakeTargetsExist(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, path := range pages(t) {
		for _, m := range makePattern.FindAllStringSubmatch(read(t, path), -1) {
			target := m[1] + m[2]
			if !strings.Contains(makefile, "\n"+target+":") {
				t.Errorf("%s: there is no `make %s`", path, target)
			}
		}
	}
}
