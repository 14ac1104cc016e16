# Two commands do everything: `make demo` and `make test`. Both set up .venv first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .stamps
SUDO := $(shell if [ "$$(id -u)" = 0 ]; then true; elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then echo sudo -n; else echo none; fi)
DEBIAN_RUN := pcscd vsmartcard-vpcd libpcsclite-dev swig gcc libc6-dev make fonts-wqy-microhei
DEBIAN_TEST := opensc softhsm2 valgrind gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user poppler-utils
# what Debian's own python3 lacks until python3-venv and python3-dev are there
HAS_VENV := import ensurepip, os, sysconfig as s; raise SystemExit(not os.path.exists(s.get_path('include') + '/Python.h'))
SOURCES := $(wildcard cext/*.pyx cext/*.pxi cext/src/*.c cext/src/*.h) cext/integrity.py cext/selftest.json setup.py pyproject.toml requirements.txt

# Tests run side by side, one more than there are cores, because many of them wait. `python -m pytest` alone runs them one by one.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 3); echo $$(( n < 7 ? n + 1 : 8 )))
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal
# they start hundreds of processes, each of which would compile the whole project anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check unit levels kernels c-test arm64-test ct-ttest ct-valgrind ct-trace bench proto clean venv
.NOTPARALLEL:

demo: $(STAMPS)/run
	$(BIN)/citycard demo

# The t-test measures time: it comes last, and alone.
test: check unit levels kernels
	$(MAKE) ct-ttest TRACES=2000

# Types, style, import directions, and stubs that match their .proto files.
check: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python proto/generate.py --check

unit: $(STAMPS)/test
	$(PYTEST) --durations=10

# The key system again at the levels that this machine would not choose.
levels: $(STAMPS)/test
	for level in portable avx2; do \
	    if $(BIN)/python -c "import cext, sys; sys.exit('$$level' not in cext.available_levels())"; then \
	        CITYCARD_CPU=$$level $(PYTEST) tests/cext tests/keys; \
	    else echo "this machine has no level $$level"; fi; \
	done

# The kernels under tools that see only C: AddressSanitizer and UBSan; arm64 in an emulator; and three checks of constant time, by statistics
# (TRACES), by valgrind with keys marked undefined, and above AVX2, which valgrind cannot run, by comparing traces of execution.
CTESTS := $(MAKE) -C tests/ctests --no-print-directory --output-sync=target PYTHON=$(CURDIR)/$(BIN)/python
c-test arm64-test ct-ttest ct-valgrind ct-trace: $(STAMPS)/test
	$(CTESTS) $@

# What of it belongs to `make test`, side by side.
kernels: $(STAMPS)/test
	$(CTESTS) c-test arm64-test ct-valgrind

bench: $(STAMPS)/test
	@mkdir -p .benchmarks
	$(BIN)/python -m pytest bench -q --benchmark-json=.benchmarks/latest.json
	$(BIN)/python -m bench.ratios --json > .benchmarks/ratios.json
	$(BIN)/python -m bench.rekey --json --out .benchmarks > .benchmarks/rekey.json
	$(BIN)/python -m bench.load --json > .benchmarks/load.json
	$(BIN)/python -m bench.predictions --json > .benchmarks/predictions.json
	$(BIN)/python -m bench.readme .benchmarks

proto: $(STAMPS)/test
	$(BIN)/python proto/generate.py

venv: $(STAMPS)/run

# Debian packages where they can be installed; without them the in-process transport is there, and the demo says what is left out.
$(STAMPS)/debian:
	@mkdir -p $(STAMPS)
	@if ! command -v apt-get >/dev/null 2>&1 || [ "$(SUDO)" = none ]; then \
	    echo "no right to install Debian packages: going on without PC/SC"; \
	else \
	    missing=""; for p in $(DEBIAN_RUN); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	    $(PYTHON) -c "$(HAS_VENV)" 2>/dev/null || missing="$$missing python3-venv python3-dev"; \
	    if [ -n "$$missing" ]; then \
	        { $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; } \
	            || echo "Debian packages could not be installed: going on without PC/SC"; \
	    fi; \
	fi
	@touch $@

$(BIN)/python: | $(STAMPS)/debian
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "citycard needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMPS)/run: $(BIN)/python $(STAMPS)/debian $(SOURCES)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@if command -v swig >/dev/null 2>&1 && [ -e /usr/include/PCSC/winscard.h ]; then \
	    $(BIN)/python -m pip install -q --disable-pip-version-check -c requirements-test.txt pyscard \
	        || echo "pyscard could not be built: PC/SC is left out"; \
	else echo "pyscard is left out: it needs swig and libpcsclite-dev"; fi
	@touch $@

# Tests need everything: what cannot be installed here is an error, not a skip.
$(STAMPS)/test: $(STAMPS)/run requirements-test.txt
	@missing=""; for p in $(DEBIAN_RUN) $(DEBIAN_TEST); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	    [ "$(SUDO)" != none ] || { echo "tests need these Debian packages, and may not install them:$$missing" >&2; exit 1; }; \
	    $(SUDO) apt-get update -qq; DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; \
	fi
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-test.txt
	@touch $@

clean:
	rm -rf $(VENV) $(STAMPS) build .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	find cext -name '*.so' -delete -o -name '*.so.sha256' -delete
