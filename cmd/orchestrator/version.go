package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker (-X main.version=...) for releases.
var version string

// build says which program this is.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// buildInfo reads what the Go tool wrote into the program.
func buildInfo() build {
	b := build{Version: "dev", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	if version != "" {
		b.Version = version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func newVersion(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Long:    "Prints the version of this program, the commit that it was built from, and the Go version.",
		Example: "  orchestrator version\n  orchestrator version -o json",
		Args:    args(),
		RunE: func(*cobra.Command, []string) error {
			b := buildInfo()
			return c.print(b, func() error {
				fmt.Fprintf(c.out, "orchestrator %s\n", b.Version)
				c.pairs(c.out, "revision", b.Revision, "built", b.Time, "go", b.Go, "platform", b.Platform)
				return nil
			})
		},
	}
	c.outputFlag(cmd)
	return cmd
}
