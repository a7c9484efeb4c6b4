# The study in two commands: `make study` and `make test`. Needs Python 3.11 or newer and a network to install from.
.DELETE_ON_ERROR:
.PHONY: study label test lint lab gpu env lock clean

PYTHON  ?= $(firstword $(foreach name,python3.12 python3.13 python3.11 python3.14 python3,$(shell $(name) -c \
             'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
PROFILE ?= auto
DATASET ?= phantom
SEED    ?=
MODEL   ?= hrnet
SCAN    ?=
OUT     ?= labelled
ARGS    ?=
BIN     := .venv/bin
READY   := .venv/.ready

study: $(READY)
	$(BIN)/python -m lumbar_utils run --profile $(PROFILE) --dataset "$(DATASET)" $(if $(SEED),--seed $(SEED)) $(ARGS)

# label and measure a scan; OUT is a new folder, MODEL one of unet, hrnet, efficientnet
label: $(READY)
	@test -n "$(SCAN)" || { echo "name a scan: make label SCAN=path/to/scan.nii.gz"; exit 1; }
	$(BIN)/python -m lumbar_utils predict pretrained $(MODEL) "$(SCAN)" "$(OUT)"

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --max-worker-restart 0

lint: $(READY)
	$(BIN)/ruff check lumbar_utils tests notebooks
	$(BIN)/ruff format --check lumbar_utils tests notebooks

# what a GPU does with the study: a page in build/gpu-page; ARGS="--minutes 10 --out DIR --dataset FOLDER"
gpu: $(READY)
	$(BIN)/python tests/benchmarks/gpu.py $(ARGS)

lab: $(READY)
	$(BIN)/jupyter lab notebooks

env: $(READY)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; install it, or name it: make env PYTHON=..."; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

# new pins after a change of pyproject.toml, for every platform and Python at once
lock: $(READY)
	$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --extra test --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" --quiet --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv
