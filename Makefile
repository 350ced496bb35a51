# make install   the program and the pinned, tested set of libraries, in .venv
# make demo      a dozen prompts, an edit, a fill, edges and variations through the daemon; no GPU and no account needed
# make test      everything that continuous integration runs
# make faults    the promise, at every point: kills, errors, power cuts, a soak, load, hostile input; some hours
# make bench     what is fast enough and what is not, in turns with a reference; best on a machine that does nothing else
# make clean     removes .venv and every cache; jobs, pictures and models stay
#
# make faults and make bench write what they counted to build/; stopped, most of make faults goes on from there.
# PYTHON=python3.12 chooses the interpreter, PIP_FLAGS is handed to each `pip install`.

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin

# One call with the constraints: torch is pinned in it, so that pip takes the build that is to be had for this machine
# and never fetches a second one beside it.
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt $(PIP_FLAGS)

.DELETE_ON_ERROR:
.PHONY: install demo test lint types layers tests clean
.PHONY: faults kills tiny-kills errors power-cuts soak load hostile fuzz bench

# The stamps make a second run take no time; a changed pin or dependency makes it install again.
install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.test-tools: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "make: there is no $(PYTHON). Install Python 3.11 or newer, or name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "make: $(PYTHON) says $$($(PYTHON) -V 2>&1 | head -n 1); Python 3.11 or newer is needed. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "make: $(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

demo: install
	$(BIN)/python tools/demo.py

test: lint types layers tests

lint: $(VENV)/.test-tools
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.test-tools
	$(BIN)/mypy

layers: $(VENV)/.test-tools
	$(BIN)/lint-imports --no-logo

# Most tests wait for something: four at a time keep two cores busy.
tests: $(VENV)/.test-tools
	$(BIN)/pytest --numprocesses 4

# Of each of these `make tests` runs a sample.
faults: kills tiny-kills errors power-cuts soak load hostile fuzz

kills errors: $(VENV)/.test-tools
	PYTHONPATH=tests $(BIN)/python tests/faults/campaign.py $@

# Real pipelines, with tiny models.
tiny-kills: $(VENV)/.test-tools
	PYTHONPATH=tests $(BIN)/python tests/faults/campaign.py kills --engine tiny --scenarios drop,review,take \
	    --share 0.05 --double 0 --jobs 1

power-cuts: $(VENV)/.test-tools
	@mkdir -p build/faults
	PYTHONPATH=tests $(BIN)/python tests/faults/power_cut_campaign.py --results build/faults/power-cuts.json

soak: $(VENV)/.test-tools
	@mkdir -p build/faults
	PYTHONPATH=.:tests $(BIN)/python tests/faults/soak.py --drops 100000 --round 2500 --json build/faults/soak.json

load: $(VENV)/.test-tools
	LOAD=full $(BIN)/pytest -s tests/test_load.py tests/test_burst.py tests/faults/test_stopped.py

hostile: $(VENV)/.test-tools
	HYPOTHESIS_PROFILE=hostile $(BIN)/pytest -s --timeout 0 tests/test_hostile_texts.py tests/test_hostile_pictures.py

# Steered by coverage where atheris is: $(BIN)/pip install -e '.[fuzz]'. So many seconds for each of 19 readers.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.test-tools
	@mkdir -p build/faults
	PYTHONPATH=. $(BIN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS) --json build/faults/fuzz.json

bench: $(VENV)/.test-tools
	PYTHONPATH=tests $(BIN)/python -m bench --out build/bench.jsonl
	PYTHONPATH=tests $(BIN)/python -m bench.curves build/bench.jsonl docs/curves

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find hotfolder tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
