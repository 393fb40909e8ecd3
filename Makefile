# make train and make test set up .venv first.
PYTHON ?= python3
# Address of a package index with another build of PyTorch, such as that for CPUs only: make train TORCH_INDEX=ADDRESS
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install train test test-all soak bench lint type tensorboard clean distclean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(READY) ## install gan_cli into .venv, editable, with the tools for development

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
		{ echo "gan_cli needs Python 3.11.4 or newer; choose one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --disable-pip-version-check torch torchvision --index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

train: $(READY) ## train a small DCGAN on the embedded digits (about 3 minutes on 2 cores)
	@$(BIN)/gan-train

test: $(READY) ## run the quick tests: every promise of the documents once (about 4 minutes on 2 cores)
	@$(PYTEST) -m 'not slow' --durations=15

test-all: $(READY) ## run all tests (about 15 minutes on 2 cores)
	@$(PYTEST)

soak: $(READY) ## run the tests of docs/reliability.md in full size (about an hour on 2 cores)
	@GAN_CLI_SOAK=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -rP tests/reliability \
		tests/test_compiling.py tests/test_distributed.py tests/sweeps/test_worker_processes.py

bench: $(READY) ## measure every model against plain loops and rewrite docs/speed.md (about 25 minutes on 2 cores)
	@$(BIN)/python benchmarks/speed.py --write-docs && $(BIN)/python benchmarks/profile_step.py --write-docs

lint: $(READY) ## check style, formatting and imports between folders
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-logo 2>&1

type: $(READY) ## check types
	@$(BIN)/mypy

tensorboard: $(READY) ## show the curves and pictures of all runs in outputs/
	@$(BIN)/tensorboard --logdir outputs

clean: ## remove caches and build products
	@rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv too; outputs/ and data/ stay
	@rm -rf $(VENV)
