package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// lintCompose loads the project as Compose does, with the variables of the
// example, and holds it to rules of ours.
func lintCompose(ctx context.Context, dir string) (problems []problem, err error) {
	path := filepath.Join(dir, "compose.yaml")
	found := func(format string, args ...any) {
		problems = append(problems, problem{path, fmt.Sprintf(format, args...)})
	}
	env, err := dotenv.Read(filepath.Join(dir, "example.env"))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	project, err := loader.LoadWithContext(ctx, types.ConfigDetails{
		WorkingDir: dir, Environment: env, ConfigFiles: []types.ConfigFile{{Filename: path, Content: text}},
	}, func(o *loader.Options) { o.SetProjectName("ringmaster", true) })
	if err != nil {
		found("%v", err)
		return problems, nil
	}
	for name, s := range project.Services {
		for _, text := range serviceFaults(project, s) {
			found("service %s: %s", name, text)
		}
		for _, text := range missingFiles(dir, s) {
			found("service %s: %s", name, text)
		}
	}
	for name, value := range env {
		if strings.HasPrefix(value, "change-me") && strings.Contains(string(text), value) {
			found("it holds the value of %s, which is a secret", name)
		}
	}
	slices.SortFunc(problems, func(a, b problem) int { return strings.Compare(a.text, b.text) })
	return problems, nil
}

func serviceFaults(project *types.Project, s types.ServiceConfig) (faults []string) {
	ours := s.Build != nil || strings.HasPrefix(s.Image, "ringmaster-")
	once := s.Restart == "on-failure" || s.Restart == "no"
	switch {
	case !slices.Contains(s.CapDrop, "ALL"):
		faults = append(faults, "it keeps capabilities: cap_drop: [ALL]")
	case !slices.Contains(s.SecurityOpt, "no-new-privileges:true"):
		faults = append(faults, "it may gain privileges: security_opt: [no-new-privileges:true]")
	case s.Privileged:
		faults = append(faults, "it is privileged")
	}
	if ours && (!s.ReadOnly || len(s.CapAdd) > 0) {
		faults = append(faults, "its root can be written, or it is given capabilities")
	}
	if !ours && !strings.Contains(s.Image, ":") {
		faults = append(faults, "its image has no version")
	}
	if s.HealthCheck == nil && !once {
		faults = append(faults, "it has no healthcheck, and does not say that it needs none")
	}
	if s.Restart == "" {
		faults = append(faults, "it is not started again")
	}
	for on, how := range s.DependsOn {
		other := project.Services[on]
		if how.Condition == types.ServiceConditionHealthy && (other.HealthCheck == nil || other.HealthCheck.Disable) {
			faults = append(faults, "it waits until "+on+" is healthy, which has no healthcheck")
		}
	}
	for _, p := range s.Ports {
		if p.HostIP != "127.0.0.1" {
			faults = append(faults, fmt.Sprintf("port %d is published to other machines", p.Target))
		}
	}
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeVolume {
			if _, ok := project.Volumes[v.Source]; !ok {
				faults = append(faults, "there is no volume "+v.Source)
			}
		}
	}
	return faults
}

// missingFiles are those that a service mounts or is built from and that are
// not there.
func missingFiles(dir string, s types.ServiceConfig) (faults []string) {
	var files []string
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeBind {
			files = append(files, v.Source)
		}
	}
	if s.Build != nil {
		context := s.Build.Context
		if !filepath.IsAbs(context) {
			context = filepath.Join(dir, context)
		}
		files = append(files, filepath.Join(context, s.Build.Dockerfile))
		text, err := os.ReadFile(filepath.Join(context, s.Build.Dockerfile))
		if err == nil && !strings.Contains(string(text), " AS "+s.Build.Target+"\n") {
			faults = append(faults, "the Dockerfile has no target "+s.Build.Target)
		}
	}
	for _, f := range files {
		if !filepath.IsAbs(f) {
			f = filepath.Join(dir, f)
		}
		if _, err := os.Stat(f); err != nil {
			faults = append(faults, err.Error())
		}
	}
	return faults
}
