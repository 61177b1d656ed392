# What a newcomer types: `make demo`, `make test`. Everything else is below, in the order in which one meets it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
PYTHON ?= python3
# Set up once per user, outside the checkout; an existing LIBTORCH is respected.
WITH_TORCH = LIBTORCH="$$($(PYTHON) scripts/libtorch.py)" && export LIBTORCH &&
BIN := target/release/delta-guard

# Keys of the command line: make demo SEED=7 DATA=../shared/data/cifar10 UNLEARN=cf OUT=/tmp/demo
SEED ?= 1
DATA ?=
UNLEARN ?= eu
OUT ?=
# make evaluate STORY=config/evaluate/demo-paper-augment.yaml SEEDS=11,12,13
STORY ?= config/evaluate/demo.yaml
SEEDS ?=
BENCH ?=
SHORT ?=
MODELS ?=
SOAK ?=
# make mutants MUTANTS=200 MUTANTS_SEED=1; make faults FAULTS=split
MUTANTS ?= 100
MUTANTS_SEED ?=
FAULTS ?=
# make fuzz MUTATIONS=100000 MUTATIONS_SEED=7
MUTATIONS ?= 1000000
MUTATIONS_SEED ?= 1
# make install PREFIX=/usr DESTDIR=/tmp/package
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: help setup build demo test fixtures fuzz faults faults-check mutants lint layering names data-cifar10 examples evaluate evaluate-cifar10 bench golden idle install models screenshots soak

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: ## libtorch, downloaded once and checked (everything else is built by cargo)
	@$(WITH_TORCH) echo "libtorch: $$LIBTORCH"

build: ## both binaries
	$(WITH_TORCH) $(CARGO) build --release --locked

demo: build ## poison a data set, train a victim, and let the daemon find and repair it (SEED, DATA, UNLEARN=eu|cf, OUT)
	@$(BIN) demo --seed $(SEED) --unlearn $(UNLEARN) $(if $(DATA),--data $(DATA)) $(if $(OUT),--out $(OUT))

test: ## all tests
	DELTA_GUARD_PYTHONPATH="$$($(PYTHON) scripts/pydeps.py)" && export DELTA_GUARD_PYTHONPATH && $(WITH_TORCH) $(CARGO) test --release --locked --workspace

# Builds nothing: under sudo it would build as another user, with another cache.
install: ## what was built: programs, libtorch, systemd unit, user and folders (PREFIX, DESTDIR)
	@test -x target/release/delta-guard-worker || { echo "nothing is built yet: run make build first"; exit 1; }
	install -D -t $(DESTDIR)$(PREFIX)/bin target/release/delta-guard target/release/delta-guard-worker
	install -d $(DESTDIR)$(PREFIX)/lib/delta-guard
	cp -P "$$(dirname "$$(ldd target/release/delta-guard-worker | awk '/libtorch_cpu.so/ {print $$3}')")"/*.so* $(DESTDIR)$(PREFIX)/lib/delta-guard/
	install -D -m 644 systemd/delta-guard.service $(DESTDIR)$(PREFIX)/lib/systemd/system/delta-guard.service
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system systemd/delta-guard-drill.service systemd/delta-guard-drill.timer
	sed -i 's#/usr/bin/#$(PREFIX)/bin/#' $(DESTDIR)$(PREFIX)/lib/systemd/system/delta-guard.service $(DESTDIR)$(PREFIX)/lib/systemd/system/delta-guard-drill.service
	install -D -m 644 systemd/delta-guard.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/delta-guard.conf
	install -D -m 644 systemd/delta-guard.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/delta-guard.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/delta-guard README.md LICENSE-MIT LICENSE-APACHE config/delta-guard.yaml
	@echo "as root: systemd-sysusers, systemd-tmpfiles --create, systemctl daemon-reload; then write /etc/delta-guard/delta-guard.yaml and systemctl enable --now delta-guard"

fixtures: ## the EK-FAC fixtures only; more of the same make by EKFAC_FIXTURES=dir1:dir2
	$(WITH_TORCH) $(CARGO) test --release --locked -p delta-influence --test ekfac_fixtures -- --nocapture

fuzz: ## random changes to a small .pt2, a million of them (MUTATIONS, MUTATIONS_SEED): no panic, little memory
	MUTATIONS=$(MUTATIONS) MUTATIONS_SEED=$(MUTATIONS_SEED) && export MUTATIONS MUTATIONS_SEED && $(WITH_TORCH) $(CARGO) test --release --locked -p delta-influence --test import_mutated -- --nocapture

faults: ## plant faults in a scratch copy, one by one: a test must find each (FAULTS="word …")
	$(WITH_TORCH) $(PYTHON) scripts/faults.py $(FAULTS)

faults-check: ## whether the faults can still be planted (seconds)
	$(PYTHON) scripts/faults.py --check

mutants: ## mutation testing of a random sample; goes on with docs/mutants.csv; hours (MUTANTS, MUTANTS_SEED)
	$(WITH_TORCH) $(PYTHON) scripts/mutants.py --number $(MUTANTS) $(if $(MUTANTS_SEED),--seed $(MUTANTS_SEED))

lint: layering names faults-check ## rustfmt, clippy with warnings as errors, layering, names, sizes, can faults still be planted
	$(CARGO) fmt --all --check
	rustfmt --edition 2024 --check contract/src/method/*/*.rs ml/src/unlearn/*.rs # named by macros, which cargo fmt does not follow
	$(WITH_TORCH) $(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

layering: ## the guard knows no tensor, the contract knows nobody
	$(PYTHON) scripts/layering.py

names: ## one meaning per name; sizes of files and functions
	$(PYTHON) scripts/names.py
	$(PYTHON) scripts/sizes.py --check

data-cifar10: ## all of CIFAR-10, fetched, converted and checked, into data/cifar10
	$(PYTHON) scripts/cifar10.py

evaluate: build ## the README's table on the demo's data: three further seeds, EU and CF, the published rule, 20 natural errors, 20 placebos (STORY, SEEDS, OUT: goes on there)
	@$(BIN) evaluate $(STORY) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(DATA),--data $(DATA)) $(if $(OUT),--out $(OUT))

evaluate-cifar10: build ## the same on the CIFAR-10 subset (DATA, SEEDS, OUT)
	@$(BIN) evaluate config/evaluate/cifar10.yaml $(if $(SEEDS),--seeds $(SEEDS)) $(if $(DATA),--data $(DATA)) $(if $(OUT),--out $(OUT))

bench: ## what influence costs, as ratios to a plain pass, interleaved (DATA, BENCH="--rounds 5")
	$(WITH_TORCH) $(CARGO) bench --locked -p delta-influence --bench passes -- $(if $(DATA),--data $(abspath $(DATA))) $(BENCH)

golden: build ## what the guard found on kept victims, found again (DATA=<cifar10>: a third story, whose victim is trained first)
	@$(PYTHON) scripts/golden.py check $(if $(DATA),--data $(DATA))

models: build ## whether torchvision's and timm's models can be guarded, at their real size: docs/models.md (needs torch, torchvision, timm; goes on where it stopped; MODELS="resnet18 timm:levit_128s")
	$(PYTHON) -W ignore scripts/check_export.py
	$(WITH_TORCH) $(PYTHON) scripts/models.py $(MODELS)

idle: build ## what the daemon costs while nothing happens: time to ready, memory
	@$(PYTHON) scripts/idle.py $(BIN)

soak: build ## breaks a real daemon: kills, a hostile inbox, mail servers that lie (SHORT=1: some minutes, else hours; SOAK="kills --seed 2")
	@$(PYTHON) scripts/soak/soak.py $(if $(SHORT),--short) $(SOAK)

screenshots: ## the report's first screens, drawn again into docs/ (needs chromium)
	$(WITH_TORCH) $(PYTHON) scripts/screenshots.py

examples: ## build and run the programs in examples/
	$(WITH_TORCH) $(CARGO) run --release --locked -p delta-influence --example influence
	inbox=$$(mktemp -d) && examples/submit.py $$inbox tests/fixtures/pixel.png cat && test -f $$inbox/pixel.png && grep -q cat $$inbox/pixel.json
