# Needs nothing but python3 >= 3.11: everything is installed into .venv, once.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO := build/demo

.PHONY: help demo test test-cluster lint docs man kernels wheel sanitize bench audit cuda cuda-if-driver clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1@\2/p' $(MAKEFILE_LIST) \
	| while IFS=@ read -r target does; do printf '  make %-12s %s\n' "$$target" "$$does"; done

demo: $(VENV)/installed cuda-if-driver ## install, filter the sample images, prove the results
	@mkdir -p $(DEMO)
	$(BIN)/cudafilter blur --sigma 3 samples/chart.png $(DEMO)/chart-blur.png --check
	$(BIN)/cudafilter sobel --gray samples/chart.png $(DEMO)/chart-sobel.png --check
	@echo "Look at $(CURDIR)/$(DEMO)/chart-blur.png and chart-sobel.png."
	@echo "Now your own: $(BIN)/cudafilter blur --sigma 3 photo.jpg soft.jpg"

test: $(VENV)/installed-test cuda-if-driver ## install what the tests need and run them
	$(BIN)/python -m pytest -q -n auto

test-cluster: $(VENV)/installed-test $(VENV)/installed-cluster ## run the tests of --cluster; fetches Ray
	$(BIN)/python -m pytest -q tests/test_cluster*.py

lint: $(VENV)/installed-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

docs: $(VENV)/installed-docs ## make the site of the documents
	$(BIN)/python docs/make_site.py build/docs
	$(BIN)/zensical build --strict --config-file build/docs/mkdocs.yml
	@echo "Open $(CURDIR)/build/docs/site/index.html"

man: $(VENV)/installed ## make the manual pages
	$(BIN)/python docs/make_man.py build/man
	@echo "Read one: man -l build/man/cudafilter-blur.1"

kernels: $(VENV)/installed ## compile every kernel for every GPU generation
	$(BIN)/python tools/kernels.py

# Compiling takes over a quarter of an hour on 2 cores, and nothing where no source has changed since.
wheel: $(VENV)/installed-test ## compile the common kernels; make sdist and wheel in dist/
	$(BIN)/python tools/cubins.py
	rm -rf dist
	$(BIN)/python -m hatchling build --directory dist
	$(BIN)/python tools/cubins.py --check dist/*.whl

sanitize: $(VENV)/installed-test cuda-if-driver ## run every kernel under compute-sanitizer
	$(BIN)/python tools/sanitize.py memcheck racecheck

bench: $(VENV)/installed cuda-if-driver ## time every engine and variant
	$(BIN)/cudafilter bench

# What it cannot look up is a failure, or a machine without a network would pass.
audit: $(VENV)/installed-test ## look up known holes in the dependencies; needs a network
	@mkdir -p build
	@test -d build/audit || $(BIN)/python -m venv build/audit
	@build/audit/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip-audit
	@$(BIN)/python tools/bounds.py --all > build/oldest.txt
	@$(BIN)/python -m pip freeze --exclude-editable > build/installed.txt
	build/audit/bin/pip-audit --strict --disable-pip --no-deps -r build/oldest.txt
	build/audit/bin/pip-audit --strict --disable-pip --no-deps -r build/installed.txt

cuda: $(VENV)/installed ## install PyCUDA, NVRTC and nvJPEG
	$(BIN)/python -m cudafilter.install_cuda
	@touch $(VENV)/installed-cuda

# The CPU engine does without PyCUDA, so a failure here is told and does not stop the rest.
cuda-if-driver: $(VENV)/installed
	@test -e $(VENV)/installed-cuda || ! $(BIN)/python -m cudafilter.toolkit --driver \
	|| $(MAKE) --no-print-directory cuda \
	|| echo "PyCUDA was not installed (see above; 'make cuda' tries again): the CPU does the work." >&2

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "cudafilter needs Python 3.11 or newer, and no python3 here is:\
	 install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older\
	 than Python 3.11, which cudafilter needs" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module:\
	 install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml
	@echo "Installing cudafilter into $(VENV)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/installed-%: $(VENV)/installed
	@echo "Installing what '$*' needs into $(VENV)"
	@$(PIP) --editable '.[$*]'
	@touch $@
