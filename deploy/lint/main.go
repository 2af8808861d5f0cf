// Command lint checks the files for deployments: systemd's units by systemd's own
// verification and assessment, the Compose file by the loader of Compose, the
// Dockerfile by BuildKit's linter, and the Kubernetes manifests by strict
// decoding into Kubernetes' own types and by its pod security standards. Besides,
// it holds them to rules of this project.
//
//	go run . ..      # the folder deploy, from deploy/lint
//
// It is a module of its own, so that the tools' dependencies are not those of
// Ringmaster. Exit status 1 if anything was found, 2 if it could not look.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
)

// problem is something that was found in a file.
type problem struct{ file, text string }

func (p problem) String() string { return p.file + ": " + p.text }

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: lint DIR")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	problems, err := lintAll(ctx, os.Args[1])
	for _, p := range problems {
		fmt.Println(p)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(2)
	case len(problems) > 0:
		os.Exit(1)
	}
	fmt.Println("deploy: units, Compose file, Dockerfile and manifests are good")
}

// lintAll checks everything below a folder such as deploy.
func lintAll(ctx context.Context, dir string) (problems []problem, err error) {
	for _, part := range []string{"systemd", "docker", "compose", "kubernetes"} {
		found, err := lintPart(ctx, dir, part)
		if err != nil {
			return problems, fmt.Errorf("%s: %w", part, err)
		}
		problems = append(problems, found...)
	}
	return problems, nil
}

func lintPart(ctx context.Context, dir, part string) ([]problem, error) {
	folder := filepath.Join(dir, part)
	switch part {
	case "systemd":
		return lintUnits(ctx, folder)
	case "docker":
		return lintDockerfile(ctx, folder)
	case "compose":
		return lintCompose(ctx, folder)
	}
	return lintManifests(folder)
}
