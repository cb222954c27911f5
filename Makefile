# Two commands do everything on a fresh machine: `make demo` and `make test`. Each creates .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
KERNELS := $(wildcard src/foveate/kernels/cpu/*.cpp src/foveate/kernels/cpu/*.h)

.NOTPARALLEL:  # the rules share .venv

.PHONY: demo test test-all test-fast browser bench networks flowers evidence picture fuzz lint types docs dist check clean

demo: .venv/installed-demo
	$(BIN)/foveate compare --config recipes/demo.yaml --out runs/demo
	@$(BIN)/foveate report runs/demo

# One thread a process: the tests are many and small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
test: .venv/installed-dev browser
	$(PYTEST) -m "not exhaustive"

# Every network, size and type as well of which `make test` tries representatives: before a release.
test-all: .venv/installed-dev browser
	$(PYTEST)

# What a change is tried with while one works: all but the tests that take seconds each.
test-fast: .venv/installed-dev
	$(PYTEST) -m "not slow and not exhaustive"

# The web page is tested in Chromium: that of the system, else Debian's package, else playwright's own.
browser: .venv/installed-dev
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	then { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } || \
	$(BIN)/playwright install --with-deps chromium; \
	else $(BIN)/playwright install chromium; fi

# The figures of docs/cost.md, two hours or three on two cores where it repeats noisy cases. It ends with code 1 if a result was wrong,
# as CRAM's gradients on very large maps are in float32: the last suite.
BENCH = $(BIN)/python -m studies.bench --threads 2 --out results/bench
bench: .venv/installed-dev
	$(BENCH) gsa --mode both --rounds 15
	$(BENCH) networks --mode forward --compiled both --rounds 15
	$(BENCH) small --mode step --rounds 21 --threads 1
	$(BENCH) expatt --mode both --rounds 9 --max_seconds 10
	$(BENCH) cram --mode both --rounds 21
	$(BENCH) overhead --mode forward --rounds 31
	$(BENCH) large --mode both --rounds 5 --warmup 1 --repeats 1 --max_seconds 45 --max_memory 12
	$(BENCH) scaling --mode both --rounds 5 --max_seconds 4 --max_memory 6

# The networks that ship, about 10 minutes on two idle cores, and the scores of where they look.
SHIPPED := $(addsuffix _resnet_tiny.digits,conv expatt gsa positionwise cram)
networks: .venv/installed-dev
	$(BIN)/foveate compare --config recipes/shipped.yaml --out runs/shipped
	for run in runs/shipped/*/seed-0; do name=$$(basename $${run%/seed-0}); \
	$(BIN)/foveate export $$run --half --license apache-2.0 --name $${name%%+*}.digits --out src/foveate/models/weights \
	|| exit; done
	$(BIN)/foveate score $(SHIPPED) --out results/shipped/scores.json > results/shipped/scores.txt
	cp runs/shipped/compare.* results/shipped

# The network of flowers that ships, about 18 minutes on one core, and its counterparts, as long again, from the
# photographs in the folder FLOWERS (recipes/flowers/prepare.py says what lies there). Its file holds what differs from the
# weights in `foveate[photos]`.
FLOWERS ?= ../data/flowers
LOOKING := runs/flowers/looking
FLOWER := runs/flowers/cram_tf_efficientnet_lite0+equivariance=1,hidden=128/seed-0
flowers: .venv/installed-dev
	$(BIN)/python recipes/flowers/prepare.py $(FLOWERS) --out data/flowers
	$(BIN)/foveate compare --config recipes/flowers.yaml --out runs/flowers
# Then attention and classifier alone, at a high rate, so that the rectangle shrinks around the flower.
	test -f $(LOOKING)/result.json || $(BIN)/foveate train --config $(FLOWER)/config.yaml --checkpoint $(FLOWER) \
	--out $(LOOKING) $$(test ! -f $(LOOKING)/last.ckpt || echo --resume) --epochs 2 \
	--lr 0.01 --warmup_epochs 0.1 --equivariance 4 \
	--freeze '[conv_stem, bn1, blocks.0, blocks.1, blocks.2, blocks.3, blocks.4.0, blocks.4.1, blocks.4.2, blocks.5, blocks.6, conv_head, bn2]'
	$(BIN)/foveate export $(LOOKING) --half --difference --license LicenseRef-research-only \
	--name cram_tf_efficientnet_lite0.flowers --out src/foveate/models/weights
	mkdir -p results/flowers
	$(BIN)/foveate evaluate cram_tf_efficientnet_lite0.flowers --data data/flowers --split val \
	--json results/flowers/cram_tf_efficientnet_lite0.json

# The tables and figures of the experiments from the committed raw results, byte for byte. With RERUN=1 the experiments are made
# first, from their images: all, or those in ONLY. FROM names the folders of the images; what is missing is listed. What is
# finished is kept, so that the same command goes on after an interruption.
#   make evidence RERUN=1 ONLY=photographs FROM="--tiny-imagenet FOLDER"
CLASSIFIED := cifar100 flowers-compare
DENSE := streets streets-pretrained cells cells-pretrained
SEEDS = $(foreach run,$(1),$(foreach seed,0 1 2,runs/photographs/$(run)_resnet_tiny$(2)/seed-$(seed)))
evidence: $(if $(RERUN),.venv/installed-dev,.venv/installed-demo)
ifdef RERUN
	$(BIN)/python -m studies.rerun $(ONLY) $(FROM)
ifneq (,$(filter photographs,$(or $(ONLY),photographs)))
	for run in expatt_resnet_tiny gsa_resnet_tiny cram_resnet_tiny+equivariance=1; do \
	$(BIN)/foveate export runs/photographs/$$run/seed-0 --half --license LicenseRef-research-only \
	--name $${run%%+*}.photographs --out src/foveate/models/weights || exit; done
	$(BIN)/foveate score $(call SEEDS,cram) $(call SEEDS,cram,+equivariance=1) $(call SEEDS,positionwise) \
	$(call SEEDS,positionwise,+equivariance=1) $(call SEEDS,conv) --data data/photographs --images 1000 \
	--faithful_images 0 --out results/photographs/scores.json > results/photographs/scores.txt
	$(BIN)/python -m studies.stability $(call SEEDS,cram,+at=1) $(call SEEDS,cram,+at=2) $(call SEEDS,cram) \
	$(call SEEDS,positionwise,+at=1) $(call SEEDS,positionwise,+at=2) $(call SEEDS,positionwise) \
	--out results/photographs/stability
endif
ifneq (,$(filter streets,$(or $(ONLY),streets)))
	OMP_NUM_THREADS=1 $(BIN)/foveate score $(foreach run,expatt gsa aa cram positionwise,$(foreach seed,0 1 2,runs/streets/$(run)_resnet_tiny/seed-$(seed))) \
	--data data/streets --device cpu --out results/streets/scores.json > results/streets/scores.txt
endif
	$(BIN)/python -m studies.claims
else
	$(BIN)/python -m studies.evidence --config recipes/evidence.yaml
	for name in $(CLASSIFIED); do $(BIN)/python -m studies.evidence --config recipes/evidence-$$name.yaml || exit; done
	for name in $(DENSE); do $(BIN)/python -m studies.dense --config recipes/evidence-$$name.yaml || exit; done
	$(BIN)/python -m studies.claims
endif

# The picture at the top of the README, docs/assets/where.jpg.
picture: .venv/installed-dev
	$(BIN)/python -m studies.picture

# Faults and noise, the figures of docs/trust.md, about an hour and a half on two cores. It ends with code 1 if a bound is broken.
fuzz: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seed 0 --out results/fuzz

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(KERNELS)

types: .venv/installed-dev
	$(BIN)/mypy

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A source distribution and a wheel for every Python 3 in dist/, checked as an index would. The wheel shares PyTorch's
# OpenMP: a second one beside it would have threads of its own.
DIST := .venv-dist/bin
dist: .venv-dist/installed
	rm -rf build dist
	$(DIST)/python -m build --outdir build/dist
	PATH="$(CURDIR)/$(DIST):$$PATH" $(DIST)/auditwheel repair --exclude libgomp.so.1 --wheel-dir dist build/dist/*.whl
	mv build/dist/*.tar.gz dist
	$(DIST)/twine check --strict dist/*

.venv-dist/installed: pyproject.toml
	$(PYTHON) -m venv .venv-dist
	$(DIST)/python -m pip install --quiet --upgrade pip
	$(DIST)/python -m pip install --quiet --group dist
	touch $@

check: lint types test-all docs

.venv/installed-%: pyproject.toml setup.py $(KERNELS)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "foveate needs Python 3.11 or newer; \
	name one with `make PYTHON=python3.12 …`")'
	$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv .venv-dist build dist site  # not runs/, which hours went into
