# Ringmaster. `make help` lists what there is.
GO       ?= go
BIN      := bin
TESTENV  := $(GO) run ./internal/testenv/cmd exec --
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -X main.version=$(VERSION)
VULN     := golang.org/x/vuln/cmd/govulncheck@v1.9.0
LINT     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: help build demo demo-rabbit demo-bank test test-race bench bench-quick chaos chaos-short lint lint-deploy vuln fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

build: ## build the binaries into bin/
	@mkdir -p $(BIN)
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/... ./examples/order-flow/cmd/... ./examples/bank-transfer/cmd/... ./chaos

demo: ## orders flow, fail and are compensated, in one process; nothing to install
	$(GO) run ./examples/order-flow/cmd/demo

demo-rabbit: build ## the same as separate processes over RabbitMQ, two of which are killed
	$(TESTENV) $(BIN)/demo --mode rabbit --bin $(BIN)

demo-bank: build ## money moves between PostgreSQL and MariaDB, by 2PC, TCC and saga, while everything is killed
	$(BIN)/bank-demo --bin $(BIN) $(DEMO_BANK)

test: ## everything, on real services, which are installed and started where they are missing
	$(TESTENV) $(GO) test ./...

test-race: ## the same under the race detector
	$(TESTENV) $(GO) test -race ./...

bench: build ## measure against the broker's and the disk's own ceiling; writes bench/latest.json
	$(GO) run ./bench --bin $(BIN)

bench-quick: build ## the same with shorter phases, in about three minutes
	$(GO) run ./bench --bin $(BIN) --quick

chaos: build ## break every part of a whole deployment while 20,000 orders run through it; CHAOS='--seed N' repeats a plan
	$(BIN)/chaos --bin $(BIN) $(CHAOS)

chaos-short: build ## the same in less than three minutes, with the same plan each time
	$(BIN)/chaos --bin $(BIN) --short --seed 1 $(CHAOS)

vuln: ## known vulnerabilities of what is used; needs govulncheck's database
	$(GO) run $(VULN) ./...

lint: ## gofmt, go vet, golangci-lint
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'gofmt -w the files above'; exit 1; }
	$(GO) vet ./...
	$(GO) run $(LINT) run ./...

lint-deploy: ## units, Compose file, Dockerfile and manifests, by linters of their own
	@command -v systemd-analyze >/dev/null || { apt-get -qq update && apt-get -qq install -y --no-install-recommends systemd; }
	cd deploy/lint && $(GO) vet ./... && $(GO) test ./... && $(GO) run . ..

fuzz: ## run every fuzz target for a short while
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$(grep -hoE 'func Fuzz[A-Za-z0-9_]+' $$($(GO) list -f '{{.Dir}}' $$pkg)/*_test.go 2>/dev/null | awk '{print $$2}'); do \
	    echo "$$pkg $$target"; $(GO) test $$pkg -run '^$$' -fuzz "^$$target$$" -fuzztime 10s || exit 1; \
	  done; \
	done

clean: ## remove what was built
	rm -rf $(BIN) .ringmaster
