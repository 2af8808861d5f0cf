package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// copied returns a copy of the folder deploy.
func copied(t *testing.T) string {
	t.Helper()
	top := t.TempDir() // stands for the top of the repository
	dir := filepath.Join(top, "deploy")
	for _, part := range []string{"systemd", "docker", "compose", "kubernetes"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(filepath.Join("..", part))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFilesAreGood(t *testing.T) {
	problems, err := lintAll(t.Context(), copied(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

// Every linter fails where it should: each case breaks one file in one place.
func TestFaultsAreFound(t *testing.T) {
	const unit, worker = "systemd/ringmaster-orchestrator.service", "systemd/ringmaster-worker@.service"
	const image, compose = "docker/Dockerfile", "compose/compose.yaml"
	const orchestrator, network = "kubernetes/orchestrator.yaml", "kubernetes/network.yaml"
	for _, tt := range []struct{ file, from, to, want string }{
		{unit, "LimitNOFILE=65536", "LimitNoFile=65536", "Unknown key"},
		{unit, "RestartSec=1s", "RestartSec=soon", "Failed to parse"},
		{unit, "ExecStart=/usr/local/bin/orchestrator", "ExecStart=/usr/local/bin/9", "not executable"},
		{worker, "CapabilityBoundingSet=\n", "", "more exposed"},

		{image, "AS build", "as build", "FromAsCasing"},
		{image, "COPY . .", "CPY . .", "unknown instruction"},
		{image, "ENTRYPOINT [\"/usr/local/bin/worker\"]", "ENTRYPOINT /usr/local/bin/worker", "JSONArgsRecommended"},
		{image, "FROM golang:1.26 AS", "FROM golang AS", "golang has no version"},
		{image, "USER 65532:65532", "USER root", "runs as \"root\""},
		{image, "FROM base AS worker", "FROM bose AS worker", "bose has no version"},
		{image, "ARG VERSION=dev", "ARG DB_PASSWORD=dev", "SecretsUsedInArgOrEnv"},

		{compose, "stop_grace_period: 30s", "stop_grace: 30s", "stop_grace"},
		{compose, "interval: 10s", "interval: ten", "ten"},
		{compose, "postgres: {condition: service_healthy}", "postgre: {condition: service_healthy}", "undefined service"},
		{compose, "127.0.0.1:7070-7072:7070", "7070-7072:7070", "published to other machines"},
		{compose, "read_only: true", "read_only: false", "its root can be written"},
		{compose, "cap_drop: [ALL]\n  security", "security", "it keeps capabilities"},
		{compose, "image: postgres:17", "image: postgres", "its image has no version"},
		{compose, "target: worker", "target: wroker", "no target wroker"},
		{compose, "./rabbitmq.conf", "./rabbit.conf", "rabbit.conf"},
		{compose, "${POSTGRES_ADMIN_PASSWORD:?set it in .env}", "change-me-postgres", "holds the value of POSTGRES_ADMIN_PASSWORD"},
		{compose, "networks: [store]", "networks: [shop]", "undefined network"},

		{orchestrator, "replicas: 3", "replica: 3", `unknown field "spec.replica"`},
		{orchestrator, "replicas: 3", "replicas: three", "cannot unmarshal"},
		{orchestrator, "replicas: 3", "replicas: 1", "fewer than two replicas"},
		{orchestrator, "runAsNonRoot: true", "runAsNonRoot: false", "restricted: runAsNonRoot"},
		{orchestrator, "drop: [ALL]", "drop: []", "restricted: unrestricted capabilities"},
		{orchestrator, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "its root can be written"},
		{orchestrator, "path: /healthz\n              port: api", "path: /healthz\n              port: apo", "liveness probe asks a port apo"},
		{orchestrator, "maxUnavailable: 1\n  selector", "minAvailable: 9\n  selector", "sets no maxUnavailable"},
		{orchestrator, "targetPort: api", "targetPort: apis", "leads to a port apis"},
		{orchestrator, "key: db", "key: dv", "Secret that no example shows"},
		{orchestrator, "ringmaster-orchestrator:v1", "ringmaster-orchestrator", "has no version"},
		{orchestrator, "enableServiceLinks: false", "enableServiceLinks: true", "given variables of services"},
		{network, "app.kubernetes.io/component: worker", "app.kubernetes.io/component: wroker", "selects no pods"},
		{network, "port: metrics", "port: metric", "opens a port metric"},
		{"kubernetes/namespace.yaml", "enforce: restricted", "enforce: baseline", "does not enforce"},
		{"kubernetes/servicemonitor.yaml", "port: api", "port: apo", "asks a port apo"},
		{"kubernetes/kustomization.yaml", "  - network.yaml\n", "", "does not name network.yaml"},
	} {
		t.Run(filepath.Base(tt.file)+" "+tt.to, func(t *testing.T) {
			dir := copied(t)
			path := filepath.Join(dir, tt.file)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), tt.from) {
				t.Fatalf("%s does not contain %q", tt.file, tt.from)
			}
			if err := os.WriteFile(path, []byte(strings.Replace(string(text), tt.from, tt.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			problems, err := lintPart(t.Context(), dir, filepath.Dir(tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(problems, func(p problem) bool { return strings.Contains(p.text, tt.want) }) {
				t.Errorf("found %q; want %q among them", problems, tt.want)
			}
		})
	}
}
