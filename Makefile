# On a machine with Python 3.11 and nothing else: make demo. The first call of any target makes the environment in .venv.
# PYTHON=...              the Python that makes it (3.11 or 3.12); without it, the first suitable one on the PATH
# CONDA=conda             made by conda, mamba or micromamba from environment.yml, TensorRT included
# EXTRAS=dev,openvino,media,demo,tensorrt   made by venv and uv, TensorRT included

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
READY := $(VENV)/ready
EXTRAS ?= dev,openvino,media,demo
PARAMS ?= demo
SUITABLE := import sys; assert (3, 11) <= sys.version_info[:2] < (3, 13); print(sys._base_executable)

.PHONY: help env demo run smoke lab test test-gpu check format lock

help:           ## these lines
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

env: $(READY)   ## the environment in .venv: made once, brought up to date when versions change

demo: env       ## draw scenes, train, choose thresholds, zip a submission, look at the errors
	python -m kit.pipeline params/demo.yaml

run: env        ## the chain on other params: make run PARAMS=fisheye8k_l
	python -m kit.pipeline params/$(PARAMS).yaml

smoke: env      ## every notebook on the smallest data, from the start
	python -m kit.pipeline params/smoke.yaml --force

lab: env        ## the notebooks in the browser
	jupyter lab notebooks

test: env       ## all tests that need no GPU
	pytest -m "not gpu"

test-gpu: env   ## the tests that need a CUDA device
	pytest -m gpu

check: env      ## read only: layout, lint, types, stripped notebooks
	ruff format --check .
	ruff check .
	mypy kit
	nbstripout --verify notebooks/*.ipynb

format: env     ## rewrite layout, imports and notebook outputs
	ruff format .
	ruff check --fix .
	nbstripout notebooks/*.ipynb

lock: env       ## write constraints.txt anew: what the versions in pyproject.toml resolve to
	uv pip compile --quiet --upgrade --python-version 3.11 --python-platform x86_64-unknown-linux-gnu \
	    --extra dev --extra openvino --extra media --extra demo --no-header --no-annotate --output-file constraints.txt pyproject.toml

demo run smoke lab test test-gpu check format lock: export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# The file `ready` is written last. Where it is missing an earlier attempt was cut off, and this one starts from nothing.
ifdef CONDA
$(READY): pyproject.toml constraints.txt environment.yml
	@echo "Making the environment in $(VENV) with $(CONDA), about 7 GB ..."
	@rm -f $(READY)
	@$(CONDA) env $$([ -d $(VENV)/conda-meta ] && echo update || echo create) --prefix ./$(VENV) --file environment.yml
	@touch $(READY)
else
$(READY): pyproject.toml constraints.txt
	@for each in $(or $(PYTHON),python3.11 python3 python python3.12); do \
	    python=$$("$$each" -c '$(SUITABLE)' 2>/dev/null) && break || python=; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "make: expected Python 3.11 or 3.12, found $$($(or $(PYTHON),python3) --version 2>&1 || true);" \
	        "install one, or name it: make env PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	echo "Making the environment in $(VENV) with $$("$$python" --version), about 7 GB, some minutes ..."; \
	[ -f $(READY) ] && $(VENV)/bin/python -c '' || "$$python" -m venv --clear $(VENV); \
	rm -f $(READY)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --compile-bytecode -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $(READY)
endif
