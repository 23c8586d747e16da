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

.PHONY: help install demo test test-golden test-all lint format bench docs lock clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

$(VENV)/.ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt uv
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev,bench]' $(TORCH)
	@touch $@

install: $(VENV)/.ok ## make the virtual environment with the locked versions

lock: ## write constraints.txt anew
	env -u UV_FIND_LINKS $(BIN)/uv pip compile --python 3.11 --universal pyproject.toml --extra dev --extra bench -c pin.in -o constraints.txt --no-header --no-annotate
