# make demo | make test | make test-all | make check | make docs | make results
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN = .venv/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# The processes that tests start need not compile the same source again.
test test-all: export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-all lint check docs results clean

# A torch that is already installed (a CPU build, say) is reused rather than downloaded again.
.venv/.runtime: pyproject.toml constraints.txt
	@test -d .venv || if $(PYTHON) -c "import torch" 2>/dev/null; \
	  then $(PYTHON) -m venv --system-site-packages .venv; else $(PYTHON) -m venv .venv; fi
	@echo "installing into .venv (a few minutes the first time) ..."
	@$(PIP) -e .
	@touch $@

.venv/.test: .venv/.runtime
	@echo "installing the packages of the tests into .venv ..."
	@$(PIP) -e ".[test]"
	@touch $@

demo: .venv/.runtime
	$(BIN)/stresslens run studies/quickstart.yaml

test: .venv/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: .venv/.test
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

.venv/.docs: .venv/.runtime
	@echo "installing the packages of the site into .venv ..."
	@$(PIP) -e ".[docs]"
	@touch $@

# The picture and the calls in docs/architecture.md, the schema of study files, the reports of the
# gallery, and the site.
docs: .venv/.docs
	$(BIN)/python docs/draw_architecture.py trips
	$(BIN)/stresslens schema --out studies/schema.json
	$(BIN)/python docs/gallery.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --fresh-env docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# Everything that docs/results.md tells; resumable: what has ended well is not run again. Photographs:
# make results PHOTOS=FOLDER
results: .venv/.test
	$(BIN)/python benchmarks/series.py $(if $(PHOTOS),--photos "$(PHOTOS)")

clean:
	rm -rf .venv runs docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
