# Every target first makes the one shared .venv if it is missing or half-made.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
# Named after what is in it: other requirements, another name, and the environment is completed anew.
READY := $(VENV)/.complete-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
OLDEST := 3.11

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# Waiting threads that spin take the cores from those that work.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test test-slow faults test-gpu test-browser lint docs bench
.DELETE_ON_ERROR:

help:
	@echo "make demo       classify a gigapixel scene (made on the spot) and draw where the model looked"
	@echo "make test       the tests;  make test-slow, make test-gpu, make test-browser: those that need time, a GPU, Chromium"
	@echo "make faults     what goes wrong on a cluster, each 20 times (an hour)"
	@echo "make lint       ruff and mypy"
	@echo "make docs       the documentation, strictly, into build/site"
	@echo "make bench      the benchmarks, and the tables of README and docs from them (long)"

demo: $(READY)
	$(VENV)/bin/hiresattn demo

test: $(READY)
	$(RUN) pytest -q -n auto --maxprocesses 8 --dist worksteal

test-slow: $(READY)
	$(RUN) pytest -q -m slow

faults: $(READY)
	FAULT_TIMES=20 $(RUN) pytest -q -m slow tests/cluster/test_faults.py

test-gpu: $(READY)
	$(RUN) pytest -q -m gpu

test-browser: $(READY)
	@{ command -v chromium && command -v chromedriver; } >/dev/null || { echo "The browser tests need Chromium: apt-get install chromium chromium-driver"; exit 1; }
	$(RUN) pytest -q -m browser tests/report tests/evaluation

lint: $(READY)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

# Reads no network: fonts and scripts are the theme's own.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

bench: $(READY)
	$(VENV)/bin/python benchmarks/needle.py
	$(VENV)/bin/python benchmarks/gigapixel.py
	$(VENV)/bin/python benchmarks/memory.py
	$(VENV)/bin/python benchmarks/table.py

# `venv` and `pip` complete what an interrupted run left; nothing that is there is thrown away.
$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < tuple(map(int, "$(OLDEST)".split("."))))' || { \
	  echo "hiresattn needs Python $(OLDEST) or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Making $(VENV): several GB to download, some minutes ..."
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "Could not make $(VENV). On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[dev,docs]'
	@rm -f $(VENV)/.complete-*
	@touch $@
