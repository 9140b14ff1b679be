# `make` alone prints what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-hosting train train-all lint format audit browser bench bench-install bench-load bench-page bench-users fuzz picture web clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
		|| { echo "Python 3.10, 3.11 or 3.12 is needed; name one with PYTHON=python3.12"; exit 1; }
ifdef UV
	uv venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
else
	$(PYTHON) -m venv $(VENV)
endif

ifdef UV
INSTALL := uv pip install --quiet --python $(BIN)/python
FREEZE := uv pip freeze --quiet --exclude-editable --python $(BIN)/python
else
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
FREEZE := $(BIN)/python -m pip freeze --exclude-editable
endif

$(VENV)/.demo: requirements.txt | $(BIN)/python
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements.txt pyproject.toml | $(BIN)/python
	$(INSTALL) -e '.[training,dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## set up, then serve the demo on http://127.0.0.1:7860
	$(BIN)/python -m app

# Three workers, since some wait for servers and browsers; tests/conftest.py says which tests stay together.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadscope --durations=10

test: lint browser ## set up, then run every check and the quick tests
	$(PYTEST) -m "not slow and not hosting"

test-all: lint browser ## the same, with the slow tests and the notebooks
	$(PYTEST) -m "not hosting" --nbmake tests notebooks

test-hosting: $(VENV)/.dev ## what a Space and a container hold, installed anew and asked: takes long
	$(BIN)/python -m pytest -m hosting

lint: $(VENV)/.dev ## style, format and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check app training benchmarks

format: $(VENV)/.dev ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

browser: ## a browser for the page's tests, where apt can install one
	@command -v chromium chromium-browser google-chrome >/dev/null 2>&1 \
		|| { command -v apt-get >/dev/null 2>&1 && [ "$$(id -u)" = 0 ] \
			&& apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
		|| echo "no browser: the tests that drive one will be skipped"

# ResNet-18 first, since others learn from it and are compared with it.
RECIPES := resnet18 $(filter-out resnet18,$(basename $(notdir $(wildcard training/recipes/*.yaml))))
SEEDS := 3
INIT :=
MINUTES :=
TRAIN := $(BIN)/python -m training

RECIPE = training/recipes/$(MODEL).yaml
FROM = $(INIT:%=--init %)

train: $(VENV)/.dev ## MODEL anew from X-rays in FRACTURE_DATA, each training at most MINUTES long where given; needs no network
	$(TRAIN) cross-validate $(RECIPE) $(FROM) $(MINUTES:%=--minutes %)
	$(TRAIN) seeds $(RECIPE) $(FROM) $(MINUTES:%=--minutes %) --count 1
	$(TRAIN) export runs/seeds/$(MODEL)/seed0 --folds runs/folds/$(MODEL)
	$(TRAIN) evaluate $(MODEL)
	$(TRAIN) localise $(MODEL)
	$(TRAIN) presence $(MODEL)
	$(TRAIN) precision $(MODEL)
	$(TRAIN) report

train-all: $(VENV)/.dev ## every recipe from X-rays in FRACTURE_DATA to the report, with layers from INIT; what is finished stays
	for name in $(RECIPES); do \
		recipe="training/recipes/$$name.yaml"; \
		$(TRAIN) cross-validate $$recipe $(FROM) && \
		$(TRAIN) cross-validate $$recipe $(FROM) --whole && \
		$(TRAIN) seeds $$recipe $(FROM) --count $(SEEDS) && \
		$(TRAIN) export runs/seeds/$$name/seed0 --folds runs/folds/$$name && \
		$(TRAIN) evaluate $$name && \
		$(TRAIN) localise $$name && \
		$(TRAIN) presence $$name && \
		$(TRAIN) faithfulness $$name || exit 1; \
	done
	if [ -d "$${FRACTURE_DATA:-data}/other-pictures" ]; then $(TRAIN) ood $(FROM); fi
	$(TRAIN) ensemble $(RECIPES:%=training/recipes/%.yaml)
	$(TRAIN) report

bench: $(VENV)/.dev ## one table: heatmaps beside torch-cam's, captum's and pytorch-grad-cam's, folders, start, memory
	$(BIN)/python -m benchmarks.cost

bench-install: ## seconds and MB of the demo alone, in an environment that is deleted again
	@place=$$(mktemp -d); began=$$(date +%s); $(MAKE) --no-print-directory VENV=$$place/venv $$place/venv/.demo >/dev/null; \
	echo "$$(($$(date +%s) - began)) s, $$(du -sm $$place/venv | cut -f1) MB, of which CUDA" \
		"$$(du -scm $$place/venv/lib/python3.*/site-packages/nvidia $$place/venv/lib/python3.*/site-packages/triton 2>/dev/null | tail -n 1 | cut -f1) MB"; \
	rm -rf $$place

audit: $(VENV)/.dev ## known vulnerabilities of what is installed, where their list can be reached
	@listed=$$(mktemp); $(FREEZE) > $$listed; \
	found=$$($(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r $$listed 2>&1); code=$$?; rm $$listed; \
	case "$$found" in *ConnectionError*|*"could not be audited"*) echo "Not audited: no list of vulnerabilities can be reached." ;; \
		*) echo "$$found" ;; esac; exit $$code

fuzz: $(VENV)/.dev ## ten thousand damaged files: each an X-ray or a sentence, and the peak memory
	$(BIN)/python -m benchmarks.fuzz

bench-load: $(VENV)/.dev ## 1, 8 and 32 clients on the served page: same maps, p50, p95, errors, peak memory
	$(BIN)/python -m benchmarks.load

bench-page: $(VENV)/.dev browser ## what a visitor waits for in Chromium: upload, another type, another method
	$(BIN)/python -m benchmarks.page

bench-users: $(VENV)/.dev ## eight users at once: same maps, time and peak memory
	$(BIN)/python -m benchmarks.users

picture: $(VENV)/.dev browser ## the README's picture, anew
	$(BIN)/python -m docs.take_picture

MODEL := resnet18-pyramid

web: $(VENV)/.dev ## the demo as a page that computes in the browser, in build/web, then serve it; needs npm
	$(BIN)/python -m app export $(MODEL) --web build/web
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/web 8000

clean: ## remove what was installed and cached, never X-rays or weights
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache *.egg-info
