# `make demo` and `make test` need Python 3.11 to 3.13 with pip, and a package index; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow canary bench lint docs lock clean

demo: $(VENV)/ready
	$(BIN)/traitline demo

# Two at a time, whole files, in the order that tests/conftest.py gives them: the short ones come last, so that neither
# waits for long. OpenBLAS gets one thread, because threads that wait for each other take half of the processor time.
# Bytecode is written even if the shell forbids it: compiling all tests takes each process five seconds.
test: lint
	PYTHONDONTWRITEBYTECODE= OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 -m "not slow and not gpu"

test-slow: $(VENV)/ready
	$(BIN)/pytest -m "slow and not gpu"

# The newest releases that pyproject.toml allows, in place of the locked ones: run it weekly, by any scheduler.
canary:
	rm -rf build/canary
	$(PYTHON) -m venv build/canary
	build/canary/bin/pip install --quiet --editable '.[demo,dev,gpu,onnx]'
	OPENBLAS_NUM_THREADS=1 build/canary/bin/pytest -q -n 2 --dist loadfile -m "not slow and not gpu" \
	    || { build/canary/bin/pip freeze; exit 1; }

bench: $(VENV)/ready
	for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The site, in build/site. A broken link or anchor fails it; so does the test of the same build.
docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/site/index.html"

# Needs uv. The locks pin every package with hashes, for all platforms or the containers' own, and name no index.
LOCK := uv pip compile --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-header
CONTAINER := --python-platform x86_64-manylinux_2_28 --extra demo --extra onnx --constraint build/pins.txt
lock:
	$(LOCK) pyproject.toml --all-extras --universal --output-file requirements.lock
	mkdir -p build && sed -n 's/ \\$$//; /^[a-z].*==/p' requirements.lock > build/pins.txt
	$(LOCK) pyproject.toml $(CONTAINER) --output-file docker/cpu.lock
	$(LOCK) pyproject.toml docker/gpu.in $(CONTAINER) --extra gpu --output-file docker/gpu.lock

clean:
	rm -rf $(VENV) demo build

$(VENV)/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=24'  # pip 23 takes what packages ask for with extras for not pinned
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install -qq --no-deps --no-build-isolation --editable .
	touch $@
