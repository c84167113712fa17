# Every target does its own set-up in .venv. Needs Python 3.11+, pip and make.
PYTHON ?= python3
BIN := .venv/bin
# One thread per process: parallel work here is processes, not threads.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo demo-full test slow check fix bench docs readme clean

help: ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1: \2/p' Makefile

.venv/.t3d-%: pyproject.toml tools/setup.py
	$(PYTHON) tools/setup.py $*

demo: .venv/.t3d-base ## phantoms, three recipes, baselines, a page: demo/report.html (12 minutes)
	$(BIN)/t3d bench demo --out demo

demo-full: .venv/.t3d-base ## the same with the control recipes and shuffled reports (40 minutes)
	$(BIN)/t3d bench demo --full --out demo

check: .venv/.t3d-dev ## style, types, import contracts, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# Two workers; a file stays on one worker, so its module fixtures are made once.
test: check ## the checks, then every test that is not slow
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow" $(PYTEST_ARGS)

slow: .venv/.t3d-dev ## the long tests
	$(BIN)/pytest -m slow $(PYTEST_ARGS)

fix: .venv/.t3d-dev ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# these want files of yours: a run, or label tables
BENCH_WITH_FILES := benchmarks/age_null.py benchmarks/evidence.py
bench: .venv/.t3d-dev ## every script in benchmarks/ that runs without files of yours
	@for script in $(filter-out $(BENCH_WITH_FILES),$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: .venv/.t3d-docs ## the documentation: docs/_build/html/index.html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

readme: .venv/.t3d-base ## the README's tables and picture from docs/results/
	$(BIN)/python tools/readme_table.py
	$(BIN)/python tools/plan_table.py
	$(BIN)/python tools/protocols_table.py
	$(BIN)/python tools/readme_picture.py

clean: ## all that make has made, .venv included
	rm -rf .venv build dist demo docs/_build docs/_generated src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
