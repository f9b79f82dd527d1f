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

# The tables of docs/results.md; resumable: what is finished is not run again.
results: .venv/.runtime
	$(BIN)/stresslens run studies/digits-losses-as-published.yaml --jobs 2
	$(BIN)/stresslens run studies/digits-losses.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-adversarial-as-published.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-adversarial.yaml --jobs 2
	$(BIN)/stresslens run studies/digits-hardening.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-optimizers.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-optimizers-longer.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-inside.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-lenet.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-settings.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-depth.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-size.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-vit.yaml --jobs 2
	$(BIN)/stresslens run studies/mnist-classical.yaml --jobs 2
	-$(BIN)/stresslens run studies/cifar-first-cnn.yaml --jobs 2
	$(BIN)/stresslens run studies/transfer-offline.yaml --jobs 2
	$(BIN)/stresslens run studies/clip-from-scratch.yaml --jobs 2
	$(BIN)/python benchmarks/results.py runs > docs/measured.md

clean:
	rm -rf .venv runs docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
