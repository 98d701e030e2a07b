# `make` alone lists the commands. Each of them makes .venv on its first run and is quick after it.
#   PYTHON=python3.12   the interpreter that .venv is made from (3.10 to 3.13)
#   CONSTRAINTS=FILE    the versions in .venv: constraints/oldest.txt, constraints/image.txt; others
#                       than before make it anew
#   OUT=DIR ARGS='...'  for compare: where the page goes, and more options for `actprune compare`
#                       for nightly: the night's folder, and more options for `actprune-ci nightly`
#   JOBS=2              for test: so many processes at once; a file's tests stay in one
#   ARGS='...'          for test and bench: more options for pytest or the script of targets
#   BENCH='...'         for bench: more options for pytest-benchmark

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSTRAINTS ?= constraints.txt
JOBS ?= 2
PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10)
FITS := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
NIGHT := $(or $(OUT),results/nights/$(shell date -u +%Y-%m-%d)-$(shell git rev-parse --short HEAD 2>/dev/null))
ifndef OUT
OUT := results/$(shell date -u +%Y-%m-%dT%H%M%SZ)
endif

say = @printf '==> %s\n'

.PHONY: help compare test check lint types format bench nightly clean python
.DELETE_ON_ERROR:

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile

compare: $(STAMP) ## compare the formats, as kernels and as training: a table here and a page in OUT
	$(say) 'comparing the formats (some minutes): $(OUT)'
	@$(BIN)/actprune compare --out '$(OUT)' $(ARGS)
	$(say) 'the page: $(OUT)/index.html'

test: $(STAMP) ## run the tests
	$(say) 'tests'
	@$(BIN)/python -m pytest $(if $(findstring no:xdist,$(ARGS)),,-n $(JOBS) --dist loadfile --no-loadscope-reorder) $(ARGS)

check: lint types test ## format, lint, strict types, tests: what must be green before a commit

lint: $(STAMP)
	$(say) 'format'
	@$(BIN)/ruff format --check --quiet . || { echo 'to mend: make format'; exit 1; }
	$(say) 'lint'
	@$(BIN)/ruff check --quiet .

types: $(STAMP)
	$(say) 'types (strict)'
	@$(BIN)/mypy

format: $(STAMP) ## write the format and the lint's safe corrections
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format .

bench: $(STAMP) ## pytest-benchmark over the table of cases, then the targets of docs/measuring.md
	$(say) 'kernels (BENCH=... for pytest, such as -k grad_weight)'
	@$(BIN)/python -m pytest tests/bench/bench_*.py --benchmark-columns=median,iqr,rounds $(BENCH)
	$(say) 'speed and memory targets'
	@$(BIN)/python -m benchmarks.scripts.targets $(ARGS)

nightly: $(STAMP) ## a small night: tests, benchmarks, training, A/B with the last night, gate, pages
	$(say) 'the night (about ten minutes; the same command goes on where it stopped): $(NIGHT)'
	@$(BIN)/actprune-ci nightly --config ci/nightly-small.yml --out '$(NIGHT)' --resume $(ARGS)

clean: ## remove .venv and the caches; results stay
	$(say) 'removing .venv and the caches (results stay)'
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks .asv/env
	@find impl kernels ci benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +

python: ## print the Python that .venv would be made from
	@for p in $(PYTHONS); do \
	  if "$$p" -c '$(FITS)' 2>/dev/null; then command -v "$$p"; exit 0; fi; \
	done; \
	echo 'no usable Python: need 3.10 to 3.13 with venv and pip (Debian: apt-get install python3-venv).' >&2; \
	echo 'tried: $(PYTHONS). Name another with PYTHON=/path/to/python.' >&2; exit 1

# The stamp is written last and says where and with what: an installation that was interrupted, has
# other versions, or lies in a folder that was moved or copied (its scripts would run the old place's
# code), is made anew by the next command.
MADE := $(CURDIR) $(CONSTRAINTS)
MOVED := $(shell test -e $(STAMP) && ! grep -qxF '$(MADE)' $(STAMP) && echo moved)
.PHONY: moved

$(STAMP): pyproject.toml $(CONSTRAINTS) $(MOVED)
	@if ! { grep -qsxF '$(MADE)' $@ && $(BIN)/python -m pip --version >/dev/null 2>&1; }; then \
	  p=$$($(MAKE) --silent --no-print-directory python) || exit 1; \
	  printf '==> making %s with %s (%s)\n' '$(VENV)' "$$p" "$$("$$p" --version)"; \
	  "$$p" -m venv --clear $(VENV) || exit 1; \
	fi
	$(say) 'installing the requirements into $(VENV) (some minutes the first time)'
	@$(INSTALL) -c $(CONSTRAINTS) -e '.[dev]'
	@echo '$(MADE)' > $@
