# `make demo` and `make test` are all that a fresh machine needs: they make .venv themselves.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test check bench soak format clean

demo: $(READY)
	@$(BIN)/python examples/flights/demo.py

test: $(READY)
	@$(BIN)/python -m pytest -n auto --dist worksteal

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -m "not soak" tests/test_import_directions.py tests/test_readme_types.py

bench: $(READY) .venv/.bench-ready
	@$(BIN)/python tests/benchmarks/run.py

soak: $(READY)
	@$(BIN)/python -m pytest -m soak --timeout 3600

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache

$(READY): pyproject.toml
	@echo "Setting up .venv (once) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "uno_actors needs Python 3.11 or newer; run: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $(READY)

.venv/.bench-ready: $(READY)
	@$(BIN)/python -m pip install --quiet --group bench
	@touch $@
