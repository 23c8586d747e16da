# make demo   train on handwritten digits, sample under guidance, measure, show (about 4 minutes)
# make test   every test that runs in minutes
# make help   the rest

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
space  := $(subst ,, )
comma  := ,
WHEELS := $(strip $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)))
# Where pip is configured with local wheels (a CPU build of torch, say) uv looks there too;
# elsewhere uv chooses the build of torch that fits the machine.
ifneq ($(WHEELS),)
export UV_FIND_LINKS ?= $(subst $(space),$(comma),$(WHEELS))
else
TORCH ?= --torch-backend=auto
endif

.PHONY: help install demo test test-golden lint format bench mutants rule-cost lab docs lock clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

$(VENV)/.ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt uv
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev,bench]' $(TORCH)
	@touch $@

install: $(VENV)/.ok ## make the virtual environment with the locked versions

lock: ## write constraints.txt anew
	env -u UV_FIND_LINKS $(BIN)/uv pip compile --python 3.11 --universal pyproject.toml --extra dev --extra bench --extra ray -c pin.in -o constraints.txt --no-header --no-annotate

demo: install ## train on digits, sample, measure, show: demo/report.html and demo/guidance.png
	$(BIN)/guidon demo -o demo

test: install ## every test, on up to four cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

test-golden: install ## compare with the original implementations' numbers (GUIDON_GOLDEN=../shared/golden)
	$(BIN)/pytest -m golden

lint: install ## ruff, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: install ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## the quick benchmark; `python benchmarks/cifar10.py` takes an hour
	$(BIN)/python benchmarks/engine_overhead.py

mutants: install ## change every formula of guidance, solvers and noise a little and see whether a test notices (hours, resumable)
	$(BIN)/python benchmarks/mutants.py

rule-cost: install ## what the arithmetic of each rule costs beside a step of the network
	$(BIN)/python benchmarks/rule_cost.py

lab: install ## every experiment of the lab, into lab/ (a few minutes); those done before are left as they are
	$(BIN)/guidon lab run all -o lab

docs: install ## build the documentation into site/
	$(BIN)/python docs/make_rules.py
	$(BIN)/python docs/make_solvers.py
	$(BIN)/python docs/make_lab.py
	$(BIN)/mkdocs build --strict -q

clean: ## remove what was made, but for the virtual environment
	rm -rf demo lab site .mypy_cache .ruff_cache .pytest_cache
