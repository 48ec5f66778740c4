# `make help` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV ?= .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check -qq
RUN := $(VENV)/bin/python -m runner
# PyTorch keeps its CPU builds on an index of its own. Where that cannot be reached, pip, which fetches that one wheel,
# continues and finds it wherever the machine's pip configuration points.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Of the environments besides .venv: which (`make env NAME=accelerate`), and for which accelerator.
NAME ?= accelerate
ACCELERATOR ?= cpu
UV := uv==0.13.9
# Installs by uv: what .venv and the environments share is on the disk once.
BUILD = $(VENV)/bin/python -m runner.cluster.environments.build --torch-index $(TORCH_INDEX)

# Of `make warm-image-cache`: the image of containerfile, the recipe, and the folder or volume that keeps models.
IMAGE ?= recipe-runner
RECIPE ?=
MODELS ?= recipe-runner-models
# A whole run on one GPU with little work: what is compiled depends on the model, the engine's settings and the GPU.
LITTLE := storage=local cluster.address=null resources.train.num_workers=1 infer.concurrency=1 \
  serve.autoscaling.min_replicas=1 serve.autoscaling.max_replicas=1 train.max_samples=8 train.num_epochs=1 \
  dataset.max_rows.train=8 dataset.max_rows.test=8 evaluate.require={} \
  $(patsubst %,resources.%.accelerator_type=null,train infer serve)

# What the quickstart runs in, besides .venv.
TOOLS := llamafactory engine

# Tests that use a tool itself run in its environment.
IN = $(VENV)/bin/python -m tests.in_environment

# Tests start the runner hundreds of times: its modules are compiled once, also where the machine's settings say never.
test-unit test-e2e chaos: export PYTHONDONTWRITEBYTECODE =

.PHONY: help setup env quickstart test test-unit test-e2e chaos lint format golden known-keys templates schema lock warm-image-cache clean

help: ## Show this text
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | \
	  awk -F'\t' '{printf "  make %-17s %s\n", $$1, $$2}'

setup: $(VENV)/.cpu ## Create .venv, and the environments of LLaMA-Factory and the engine for CPUs (about 3 minutes)

$(VENV)/.cpu: requirements/cpu.lock $(TOOLS:%=requirements/environments/%-cpu.lock) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; name another with PYTHON=..."; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(UV)
	$(BUILD) --own $< $(TOOLS)
	@touch $@

$(VENV)/.dev: $(VENV)/.cpu requirements/dev.lock
	$(BUILD) --own requirements/dev.lock
	@touch $@

env: $(VENV)/.cpu ## Make the environment NAME in .venv/environments (a minute), for ACCELERATOR=cpu or gpu
	$(BUILD) $(NAME) --accelerator $(ACCELERATOR)

quickstart: setup ## Run the whole pipeline on a real model on the CPU (set-up included)
	$(RUN) recipe=viggo_quickstart $(ARGS)

test: lint test-unit test-e2e ## Lint, unit tests, and the whole pipeline on real parts

test-unit: $(VENV)/.dev ## Unit tests, without Ray (minutes)
	$(VENV)/bin/python -m pytest -n auto --dist loadfile -m "not e2e and not chaos" $(ARGS)
	for tool in $(TOOLS); do $(IN) $$tool pytest -n auto --dist loadfile -m "not e2e and not chaos" tests/stages $(ARGS) || exit; done

# Whole runs that count the machine's processes one after the other; then the others, two at once, and those of the tools.
test-e2e: $(VENV)/.dev env ## The tests on real Ray, vLLM and LLaMA-Factory
	$(VENV)/bin/python -m pytest --durations 15 -m "e2e and not chaos" tests/e2e $(ARGS)
	$(VENV)/bin/python -m pytest --durations 15 -n 2 --dist loadfile -m "e2e and not chaos" --ignore tests/e2e $(ARGS)
	for tool in $(TOOLS); do $(IN) $$tool pytest -m "e2e and not chaos" tests/stages $(ARGS) || exit; done

chaos: $(VENV)/.dev ## Every failure at every place, where the other tests try some (hours; CHAOS_DIR keeps the tables)
	$(BUILD) accelerate axolotl
	$(VENV)/bin/python -m pytest tests/runner/pipeline/test_disks.py tests/runner/pipeline/test_silent_ends.py $(ARGS)
	$(VENV)/bin/python -m pytest -m chaos -s $(ARGS)
	$(IN) axolotl pytest -m chaos tests/stages/trainers $(ARGS)

lint: $(VENV)/.dev ## ruff, mypy, and which module may import which
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache

format: $(VENV)/.dev ## Format the code
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

golden: $(VENV)/.dev ## Rewrite the golden files of the builders; read the difference before you commit it
	UPDATE_GOLDEN=1 $(VENV)/bin/python -m pytest -m "not e2e and not chaos" tests/stages

known-keys: $(VENV)/.cpu ## Rewrite the tables of the libraries' arguments from the installed versions
	$(BUILD) accelerate axolotl
	$(VENV)/bin/python -m runner.recipe.arguments.generate
	$(VENV)/environments/engine/bin/python -m stages.engines.vllm.generate
	$(VENV)/environments/llamafactory/bin/python -m stages.trainers.llamafactory.generate
	$(VENV)/environments/accelerate/bin/python -m stages.trainers.accelerate.generate
	AXOLOTL_DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 $(VENV)/environments/axolotl/bin/python -m stages.trainers.axolotl.generate

templates: $(VENV)/.dev ## Print the table of LLaMA-Factory's templates, which is in docs/conversation.md
	@$(IN) llamafactory tests.stages.models.template_table

schema: $(VENV)/.cpu ## Rewrite the JSON Schemas of the recipe files, and point the files to them
	$(VENV)/bin/python -m runner.cli.schema_files

lock: ## Resolve requirements/*.in into the locks (needs uv)
	requirements/lock.sh

warm-image-cache: ## Keep in IMAGE-warm what the engine of RECIPE compiles (needs docker and a GPU of the kind that will serve)
	@test -n "$(RECIPE)" || { echo "name a recipe: make warm-image-cache RECIPE=viggo_qwen7b"; exit 1; }
	docker rm --force --volumes recipe-runner-warm
	docker run --gpus all --shm-size 10g --name recipe-runner-warm --volume /home/ray/work/runs \
	  --volume $(MODELS):/home/ray/.cache/huggingface $(IMAGE) run recipe=$(RECIPE) $(LITTLE) $(ARGS)
	docker commit --change 'CMD ["--help"]' recipe-runner-warm $(IMAGE)-warm
	docker rm --volumes recipe-runner-warm

clean: ## Remove .venv, run folders and caches of the tools
	rm -rf $(VENV) runs multirun .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
