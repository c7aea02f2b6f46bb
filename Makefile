# For a newcomer: `make demo`, `make story` and `make test`. All build on `make setup`.
# Needs Python 3.11 or newer and git; everything else goes into .venv/.

PYTHON ?= python3
BIN := .venv/bin
# uv installs the lock in seconds. Folders of wheels that pip is told to look into count for uv too.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export VIRTUAL_ENV := $(CURDIR)/.venv

.PHONY: setup demo story test lint lock clean

setup: .venv/.complete

.venv/.complete: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --requirement requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --editable .
	touch $@

demo: setup
	@$(BIN)/cvdm demo

# The whole life of a model, scene by scene, in a clone of its own under story/; exit code 1 when one goes otherwise.
story: setup
	@$(BIN)/dvc pull --quiet
	@PYTHONPATH=tests:benchmarks $(BIN)/python -P -m story

test: setup
	@$(BIN)/dvc pull --quiet
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Takes every version anew within the constraints of pyproject.toml; review the difference like code.
# The extra `vendors` is left out: thirty more packages, one of them under the GPL, for files that few have.
lock:
	rm -f requirements.lock  # its pins would be preferred
	$(BIN)/uv pip compile --quiet --python-version 3.11 --no-header --no-annotate \
	  --extra platform --extra service --extra zarr --extra dev pyproject.toml --output-file requirements.lock
	sed -i -E 's/^([^ ]+==[^ +]+)\+[a-z0-9.]+/\1/' requirements.lock  # a local build's suffix installs nowhere else

clean:
	rm -rf .venv demo story models .pytest_cache .ruff_cache .mypy_cache
