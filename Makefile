# The verbs. Each sets up what it needs in ./.venv (tools/bootstrap) and ends with the status of what it ran.
.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)

COVERAGE_PERCENT_MIN ?= 92
FUZZ_SECONDS ?= 60
CRASH_ROUNDS ?= 100
SOAK_HOURS ?= 0.34
ROUNDS ?= 50
IMAGES ?= 2000
PYTEST ?= python -m pytest
MESON_TEST := meson test --print-errorlogs --no-suite slow -C
DEBUG := -Dpython=false -Dbuildtype=debugoptimized -Db_ndebug=false

.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## the service with TLS, log and dashboard; replays real flights through a client, checks them, goes on serving
	@tools/bootstrap demo
	python -W ignore examples/flights_service.py

.PHONY: test
test: ## build and run all tests: the core's with asserts through meson, then pytest
	@tools/bootstrap test
	@tools/meson-build build/debug $(DEBUG)
	$(MESON_TEST) build/debug
	$(PYTEST)

.PHONY: crash
crash: ## kill the service at random moments, CRASH_ROUNDS times over, and compare with a replay; a minute of overload (minutes)
	@tools/bootstrap test
	BITACTOR_CRASH_ROUNDS=$(CRASH_ROUNDS) BITACTOR_OVERLOAD_S=60 $(PYTEST) tests/test_crash.py tests/test_overload.py --timeout 3600

.PHONY: chaos
chaos: ## faults of all kinds, 500 kills and 12 rounds over NATS among them; chaos_report.html in build/chaos (half an hour)
	@tools/bootstrap test
	bitactor chaos --profile full --out build/chaos $(CHAOS)

.PHONY: chaos-cluster
chaos-cluster: ## ROUNDS faults of replicas, NATS servers and links under load, every lane judged (10 min)
	@tools/bootstrap test
	python -m bitactor.validation.rounds --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED)) --out build/chaos-cluster.json

.PHONY: soak
soak: ## a steady and bursty load for SOAK_HOURS (a third of an hour by default); soak_report.html in build/soak
	@tools/bootstrap test
	bitactor soak --hours $(SOAK_HOURS) --out build/soak

.PHONY: validate
validate: ## the whole campaign of bitactor validate, coverage and ThreadSanitizer included; report in build/validation (45 min)
	@tools/bootstrap test dev
	bitactor validate --profile full --out build/validation

.PHONY: publish
publish: ## copy what validate, chaos, soak and adversarial have written into docs/validation, if it passed at a commit
	python3 tools/publish_reports.py

.PHONY: lint
lint: ## formatters, linters, strict types, the compiler's static analyser
	@tools/bootstrap test dev
	tools/lint

.PHONY: audit
audit: ## static checks for security, of code, packages and what is built; AUDIT=--strict also asks that all tools are here (2 min)
	@tools/bootstrap test dev
	@PYTHONPATH=tools python -m audit --install
	@PYTHONPATH=tools python -m audit $(AUDIT)

.PHONY: sanitize
sanitize: ## the core's tests under ThreadSanitizer, then under AddressSanitizer with UBSan
	@tools/bootstrap --no-package
	@tools/meson-build build/tsan $(DEBUG) -Db_sanitize=thread
	TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 $(MESON_TEST) build/tsan -t 10
	@tools/meson-build build/asan $(DEBUG) -Db_sanitize=address,undefined
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $(MESON_TEST) build/asan -t 10

.PHONY: powerloss
powerloss: ## 2,000 disks as a power cut may leave them, of a log and of a service; each recovered and checked (minutes)
	@tools/bootstrap test
	python -m tests.powerloss.campaign $(IMAGES)
	python -m tests.powerloss.service_campaign $(IMAGES)

.PHONY: adversarial
adversarial: ## every attack of the adversarial suite on a service of its own, then the weakened variants (minutes)
	@tools/bootstrap test
	bitactor adversarial --out build/adversarial_retest_report.json $(ADVERSARIAL)

.PHONY: cross
cross: ## the core's tests on aarch64 and the codec's on s390x, under qemu-user
	@tools/bootstrap --no-package
	tools/cross

.PHONY: fuzz
fuzz: ## FUZZ_SECONDS for each target: libFuzzer on the core (clang), then codecs, session, files and HTTP in Python
	@tools/bootstrap test
	tools/fuzz $(FUZZ_SECONDS)

.PHONY: coverage
coverage: ## one report of Python and C, a number of at least COVERAGE_PERCENT_MIN, all branches of decoder and ring
	@tools/bootstrap test dev
	tools/coverage $(COVERAGE_PERCENT_MIN)

.PHONY: matrix
matrix: ## build and run a quick pytest on every Python 3.11 to 3.14 found on this machine
	tools/matrix

.PHONY: bench
bench: ## speed: one table, peers in the same run; BENCH="--only send --rounds 3" chooses (half an hour for all)
	@tools/bootstrap
	python -m benchmarks $(BENCH)

.PHONY: bench-service
bench-service: ## the service from outside: rates, acks, recovery, memory beside the raw machine; BENCH="--full" for 30 s runs
	@tools/bootstrap
	@tools/bootstrap test
	python -m benchmarks.service $(BENCH)

.PHONY: bench-cluster
bench-cluster: ## replicas over real NATS servers beside nats-py alone on the same servers, and failovers (minutes)
	@tools/bootstrap
	@tools/bootstrap test
	python -m benchmarks.cluster $(BENCH)

.PHONY: bench-peers
bench-peers: ## the engine and its rings beside peers in Rust and Java, where cargo and Maven are installed
	@tools/bootstrap
	python -m benchmarks --peers $(BENCH)

.PHONY: image
image: ## the container image, with docker or buildah; IMAGE=name:tag BASE=image BASE_DIGEST=sha256:... choose
	k8s/image/build

.PHONY: k8s-check
k8s-check: ## the chart, the Dockerfile and the Terraform module over the full matrix, and checkov on all of it (minutes)
	@tools/bootstrap test
	@tools/checkov --install
	K8S_MATRIX=full $(PYTEST) tests/test_k8s_*.py

.PHONY: k8s-e2e
k8s-e2e: ## all of it on a real cluster: KUBECONFIG's, or one that it starts; E2E="--only 1,2" chooses (half an hour)
	@tools/bootstrap test
	python k8s/e2e/run.py $(E2E)

.PHONY: clean
clean: ## remove what the verbs made: .venv, build, coverage
	rm -rf .venv build coverage dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
