# SSD from Scratch. `make book` and `make test` are all you need; `make help` lists the rest.
PYTHON ?= python3
# Where to find torch, for a CPU build: make TORCH_INDEX=<index> book (see README.md)
export TORCH_INDEX
export NO_ALBUMENTATIONS_UPDATE = 1
# How often torch's threads look again before they sleep at a barrier (GNU's OpenMP; its own 300,000 keep the cores from
# whoever else works). A reader's own setting of either variable stays. Measured: benchmarks/waiting.py.
ifndef OMP_WAIT_POLICY
export GOMP_SPINCOUNT ?= 3000
endif
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
# How many tests, and how many notebooks, run side by side; together they have no more threads than there are cores.
WORKERS ?= 2

.PHONY: help setup try-it data sync notebooks notebooks-gpu book test weekly portable check lint serve lab bench experiments clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s $$'\t'

setup:  ## make .venv and install what is missing
	@$(PYTHON) tools/setup.py

try-it: setup  ## fetch what the page Try it needs, where the installation could not
	@$(PYTHON) tools/setup.py try-it

data: setup  ## make EmojiVOC, where it is missing
	@$(BIN)/python -m course_lib emoji-voc

sync: setup  ## make the notebooks (book/*.ipynb) from the chapters (book/*.md)
	@$(BIN)/python tools/notebooks.py sync

notebooks: data  ## execute the notebooks that need it: their code has changed, or something they read
	@$(BIN)/python tools/notebooks.py sync --check
	@$(BIN)/python tools/notebooks.py run $(WORKERS)

notebooks-gpu: data  ## the chapters with the GPU profile, a few steps each on the CPU; goes on where it was interrupted
	@$(BIN)/python -m tools.gpu_world

book: notebooks  ## execute every notebook and build the book
	@$(BIN)/python -m tools.try_it
	@$(BIN)/jupyter-book build . -W -n --keep-going --quiet
	@echo "The book is at _build/html/index.html; open it in a browser, or: make serve"

test: notebooks  ## every notebook and every test but those that take minutes; REPORT=FILE keeps what each took
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not weekly" $(if $(REPORT),--junitxml=$(REPORT)) tests

weekly: data  ## the tests that take minutes
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m weekly tests

portable: data  ## tests and chapters with the kernels of other processors; goes on where it was interrupted
	@$(BIN)/python -m tools.portable --workers $(WORKERS)

check: setup lint  ## lint and the fast tests, for working
	@$(BIN)/python tools/notebooks.py sync --check
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow" --hypothesis-profile=quick tests

lint: setup
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .

serve:  ## show the built book at http://localhost:8000
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

lab: setup  ## work on the notebooks in JupyterLab
	@$(BIN)/python -m pip install --quiet jupyterlab
	@$(BIN)/jupyter lab book

bench: setup  ## run the benchmarks; results in benchmarks/results
	@for script in benchmarks/*.py; do $(BIN)/python $$script; done

experiments: data  ## run or resume the experiments; results in experiments/results
	@for script in experiments/*.py; do $(BIN)/python $$script; done

clean:  ## remove the built book; not the data, the runs and .venv
	rm -rf _build
