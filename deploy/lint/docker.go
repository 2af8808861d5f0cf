package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/opencontainers/go-digest"
)

// lintDockerfile runs BuildKit's linter, which also notices what could not be
// built, and looks at what the images are made of.
func lintDockerfile(ctx context.Context, dir string) (problems []problem, err error) {
	path := filepath.Join(dir, "Dockerfile")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	source := llb.NewSourceMap(nil, path, "Dockerfile", text)
	source.Definition = &llb.Definition{} // it comes from nowhere
	results, err := dockerfile2llb.DockerfileLint(ctx, text, dockerfile2llb.ConvertOpt{
		MetaResolver: knownImages{},
		SourceMap:    source,
		Config:       dockerui.Config{},
	})
	if err != nil {
		return nil, err
	}
	if results.Error != nil {
		problems = append(problems, problem{path, results.Error.Message})
	}
	for _, w := range results.Warnings {
		problems = append(problems, problem{path, w.RuleName + ": " + w.Detail})
	}
	if results.Error != nil {
		return problems, nil
	}
	more, err := ownDockerRules(text)
	for _, m := range more {
		problems = append(problems, problem{path, m})
	}
	return problems, err
}

// knownImages answers for every image, so that no registry is asked.
type knownImages struct{}

func (knownImages) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return ref, "", []byte(`{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/bin:/usr/bin:/bin"]}}`), nil
}

// ownDockerRules: every image but those that only build is made from nothing
// or from one whose version is said, is run by nobody in particular, and says
// what it starts.
func ownDockerRules(text []byte) (problems []string, err error) {
	parsed, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return nil, err
	}
	users, named := map[string]string{"scratch": ""}, map[string]bool{"scratch": true}
	for i, s := range stages {
		if !named[s.BaseName] && !strings.Contains(s.BaseName, ":") {
			problems = append(problems, fmt.Sprintf("the image %s has no version", s.BaseName))
		}
		user, starts := users[s.BaseName], false
		for _, c := range s.Commands {
			switch c := c.(type) {
			case *instructions.UserCommand:
				user = c.User
			case *instructions.EntrypointCommand:
				starts = true
			}
		}
		named[s.Name], users[s.Name] = true, user
		if starts || i == len(stages)-1 {
			if id, _, _ := strings.Cut(user, ":"); id == "" || id == "root" || strings.Trim(id, "0123456789") != "" || id == "0" {
				problems = append(problems, fmt.Sprintf("the image %s runs as %q: give a number other than 0, which Kubernetes can check", s.Name, user))
			}
		}
	}
	return problems, nil
}
