# `make demo SHOW=1` ends with the live page, open until Ctrl-C.
# `make demo` and `make test` are all that a fresh machine needs: each command makes .venv itself.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Where a machine has Python keep no bytecode, each of the hundreds of programs that the tests start would compile the
# library again: a fifth of the time of a start, and more than half of that of collecting the tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-again check docs pictures bench soak format clean

demo: $(READY)
	@$(BIN)/python examples/flights/demo.py $(if $(SHOW),--show)

test: $(READY)
	@$(BIN)/python -m pytest -n auto --dist worksteal

# Those that failed in the last run, one after the other.
test-again: $(READY)
	@$(BIN)/python -m pytest --last-failed --last-failed-no-failures none

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -m "not soak" tests/test_import_directions.py tests/test_docs_types.py

# Into build/site. Nothing but packages comes from the internet; Material's note on other projects is left out.
docs: $(READY) .venv/.docs-ready
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "The documentation is in build/site: open build/site/index.html, or run $(BIN)/mkdocs serve"

# Of the live page, for the documentation; needs Chromium.
pictures: $(READY)
	@PICTURES=docs/assets $(BIN)/python -m pytest tests/ops/browser -k pictures --timeout 300

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

.venv/.docs-ready: $(READY)
	@.ci/setup "$(PYTHON)" --group docs
	@touch $@

.venv/.bench-ready: $(READY)
	@.ci/setup "$(PYTHON)" --group bench
	@touch $@
