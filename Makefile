# `make` lists the commands. ARGS goes to the command: make test ARGS="-k answers"

# uv from the PATH, or else in .uv
UV := $(if $(shell command -v uv 2>/dev/null),uv,.uv/bin/uv)
VERSION = $(shell awk -F '"' '/^version/ {print $$2; exit}' pyproject.toml)
COOKIECUTTER = $(UV) run --quiet --only-group bake cookiecutter

OUT ?= baked
BACKEND ?= sqlite

.DEFAULT_GOAL := help
.PHONY: help demo bake test quick proof bench load moving screenshots lint format release clean uv

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(UV)  ## Bake the default into a temporary folder, set it up and run its demo
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(COOKIECUTTER) . --no-input --default-config --output-dir "$$folder" backend=$(BACKEND) && \
	unset SESSION_SERVICE_URI && export PATH="$(CURDIR)/.uv/bin:$$PATH" && \
	$(MAKE) --no-print-directory -C "$$folder/my-agent" setup demo

bake: $(UV)  ## Bake into OUT=baked: make bake BACKEND=redis ARGS="scheme=acme session_ttl=1h"
	$(COOKIECUTTER) . --no-input --overwrite-if-exists --output-dir "$(OUT)" backend=$(BACKEND) $(ARGS)

test: $(UV)  ## Run all tests; those that install baked projects come last
	$(UV) run pytest -n auto $(ARGS)

quick: $(UV)  ## Run the tests that only bake
	$(UV) run pytest -n auto -m "not installed" $(ARGS)

proof: $(UV)  ## Run the proof of every backend and write docs/proof.md; PROOF=long runs the long form
	$(UV) run python -m tests.proof $(ARGS)

bench: $(UV)  ## Measure turns and single operations: make bench BACKEND=redis, or all; QUICK=1 writes nothing
	PATH="$(CURDIR)/.uv/bin:$$PATH" $(UV) run --quiet --only-group bench python -m benchmarks $(if $(QUICK),--quick) $(BACKEND)

load: $(UV)  ## Conversations over HTTP against `serve`: make load BACKEND=redis, or with ARGS="--minutes 10"
	PATH="$(CURDIR)/.uv/bin:$$PATH" $(UV) run --quiet --only-group load python -m benchmarks.load $(BACKEND) $(ARGS)

screenshots: $(UV)  ## Take the pictures of README.md with Chromium
	PATH="$(CURDIR)/.uv/bin:$$PATH" $(UV) run python -m tests.screenshots

moving: $(UV)  ## Move sessions between all databases, which takes long: make moving WHAT=adk, or pairs, dumps, large
	$(UV) run --quiet $(if $(filter large,$(WHAT)),--group load python -m benchmarks.moving,python -m tests.moves $(WHAT)) $(ARGS)

lint: $(UV)  ## Check format, style and types of the generator
	$(UV) run ruff format --check
	$(UV) run ruff check
	$(UV) run mypy

format: $(UV)  ## Format the code and apply fixes
	$(UV) run ruff check --fix-only
	$(UV) run ruff format

release: $(UV)  ## Write notes and an archive of HEAD to dist/, and bake from the archive
	rm -rf dist && mkdir dist
	awk '/^## / {on = ($$2 == "$(VERSION)"); next} on' CHANGELOG.md > dist/notes.md && grep -q . dist/notes.md
	git archive --prefix=adk-session-template-$(VERSION)/ --output=dist/adk-session-template-$(VERSION).zip HEAD
	cd dist && sha256sum *.zip > SHA256SUMS
	$(COOKIECUTTER) dist/adk-session-template-$(VERSION).zip --no-input --default-config --output-dir dist/check

clean:  ## Remove generated files
	rm -rf .venv .uv .bench baked dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.uv/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo 'Neither uv nor Python 3.11 or newer (as python3) was found: install one of them.' >&2; exit 1; }
	@python3 -m venv .uv || \
		{ echo 'Python has no venv here: install it (Debian and Ubuntu: apt install python3-venv), or uv.' >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'
