package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/template"

	"github.com/spf13/cobra"
)

// projectFiles are the templates of a first project, in the folder "project".
//
//go:embed project
var projectFiles embed.FS

// modulePath is this module.
const modulePath = "github.com/ringmaster-dev/ringmaster"

// project is what the templates of a first project are filled with.
type project struct {
	Name    string // of the folder
	Module  string // its module path
	Go      string // the go line of go.mod
	Version string // of this module
	Source  string // where this module's source is, if it is not to be fetched
}

func newInit(c *cli) *cobra.Command {
	var p project
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Write a first project: a workflow, its worker and its tests",
		Long: `Writes a first project into a new or empty folder: a workflow with its tasks, the
handlers that perform them, tests, and a program that runs it all in one process
("go run .") or as a worker for an orchestrator of its own. Its README says what to
do next. Nothing that exists is overwritten.

The project is built with the release of Ringmaster that this program is of. A
program that was built from a checkout names that checkout in the project's go.mod;
--source names another.`,
		Example: "  orchestrator init shop && cd shop && go mod tidy && go run .\n  orchestrator init shop --module example.com/acme/shop",
		Args:    args("DIR"),
		RunE: func(_ *cobra.Command, given []string) error {
			dir, err := filepath.Abs(given[0])
			if err != nil {
				return fmt.Errorf("init %s: %w", given[0], err)
			}
			if err := checkFolder(dir); err != nil {
				return err
			}
			if err := p.complete(dir); err != nil {
				return err
			}
			files, err := p.files()
			if err != nil {
				return err
			}
			if err := writeProject(dir, files); err != nil {
				return err
			}
			c.welcomeProject(given[0], files, p)
			return nil
		},
	}
	cmd.Flags().StringVar(&p.Module, "module", "", "module path of the project; by default the folder's name")
	cmd.Flags().StringVar(&p.Source, "source", "", "build with this checkout of Ringmaster rather than with a release")
	return cmd
}

var (
	plainName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)
	modName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]*(/[A-Za-z0-9][A-Za-z0-9._~-]*)*$`)
	release   = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+$`)
)

// complete fills in what was not said.
func (p *project) complete(dir string) error {
	p.Name = filepath.Base(dir)
	if p.Module == "" {
		if p.Module = strings.ToLower(p.Name); !plainName.MatchString(p.Module) {
			return usage("--module is missing: the folder's name %q cannot be the name of a Go module", p.Name)
		}
	}
	if !modName.MatchString(p.Module) {
		return usage("--module %q: expected a Go module path, such as example.com/acme/shop", p.Module)
	}
	p.Name = p.Module[strings.LastIndex(p.Module, "/")+1:]
	p.Go = "1.26.0"
	if fields := strings.Split(strings.TrimPrefix(runtime.Version(), "go"), "."); len(fields) > 1 && fields[0] == "1" {
		p.Go = "1." + fields[1]
	}
	p.Version = buildInfo().Version
	if p.Source != "" {
		return p.useSource(p.Source)
	}
	if release.MatchString(p.Version) {
		return nil
	}
	for _, from := range startingPoints() {
		if root := checkoutAbove(from); root != "" {
			return p.useSource(root)
		}
	}
	return usage("--source is missing: this program is of no release (its version is %s), so say where a checkout of %s is", p.Version, modulePath)
}

// useSource builds the project with a checkout.
func (p *project) useSource(dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil || !isCheckout(abs) {
		return usage("--source %s: there is no go.mod of %s in it", dir, modulePath)
	}
	if strings.ContainsAny(abs, " \t\"'`()") {
		return usage("--source %s: the path must not have blanks, quotes or brackets", dir)
	}
	p.Source, p.Version = filepath.ToSlash(abs), "v0.0.0"
	return nil
}

// startingPoints are where a checkout is looked for: around this program, and
// around the current folder.
func startingPoints() []string {
	var from []string
	if program, err := os.Executable(); err == nil {
		from = append(from, filepath.Dir(program))
	}
	if here, err := os.Getwd(); err == nil {
		from = append(from, here)
	}
	return from
}

func checkoutAbove(dir string) string {
	for {
		if isCheckout(dir) {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}

func isCheckout(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	first, _, _ := bytes.Cut(b, []byte("\n"))
	return err == nil && strings.TrimSpace(string(first)) == "module "+modulePath
}

// projectFile is a file of a project to be.
type projectFile struct {
	name string
	text []byte
}

func (p *project) files() ([]projectFile, error) {
	var files []projectFile
	err := fs.WalkDir(projectFiles, "project", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		t, err := template.ParseFS(projectFiles, path)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, p); err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(path), ".tmpl")
		if name == "gitignore" {
			name = ".gitignore"
		}
		files = append(files, projectFile{name, b.Bytes()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("fill in the templates: %w", err)
	}
	return files, nil
}

// checkFolder refuses a folder that holds something already.
func checkFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return usage("%s is no folder; give a new one", dir)
	case err != nil:
		return fmt.Errorf("init: %w", err)
	}
	// A repository that has just been made may have these.
	harmless := []string{".git", ".gitignore", "LICENSE"}
	for _, e := range entries {
		if !slices.Contains(harmless, e.Name()) {
			return usage("%s is not empty (it has %s); give a new folder", dir, e.Name())
		}
	}
	return nil
}

// writeProject writes files into a folder that checkFolder has allowed.
func writeProject(dir string, files []projectFile) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if _, err := os.Lstat(path); err == nil {
			continue // one of the harmless ones
		}
		if err := os.WriteFile(path, f.text, 0o644); err != nil {
			return fmt.Errorf("init: %w", err)
		}
	}
	return nil
}

func (c *cli) welcomeProject(dir string, files []projectFile, p project) {
	var names []string
	for _, f := range files {
		names = append(names, f.name)
	}
	fmt.Fprintf(c.out, "%s is ready: %s\n", c.style.Bold(dir), strings.Join(names, ", "))
	if p.Source != "" {
		fmt.Fprintf(c.out, "It is built with the checkout at %s.\n", p.Source)
	}
	fmt.Fprintf(c.out, "\nTry:  cd %s\n      go mod tidy\n      go run .\n      go test .\nIts README.md says more; begin to read at order.go.\n", shellQuote(dir))
}
