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
	@.ci/setup "$(PYTHON)" --editable . --group dev
	@touch $@

.venv/.bench-ready: $(READY)
	@.ci/setup "$(PYTHON)" --group bench
	@touch $@
