# make run    runs the word count of dag_definitions/wordcount on this machine
# make test   runs the tests
# Both make their own virtual environment in .venv first, if it is not there yet.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install run test simulate mutate test-emulators terraform-check check lint
.PHONY: bench bench-cloud bench-cold bench-docs bench-long bench-peers clean

install: .venv/.installed

.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else f"python3 is {v[0]}.{v[1]}; 3.11 or later is needed (make PYTHON=python3.13 …)")'
	@echo "installing into .venv (once; half a minute or so) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: install
	$(BIN)/orchestrator run dag_definitions/wordcount --input dag_definitions/wordcount/input.json

# A file's tests stay in one process; most of their time they wait for emulators and processes, not for a core.
test: install
	$(BIN)/python -m pytest -n 3 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

test-emulators: install
	$(BIN)/python -m pytest tests/emulators

# make simulate                runs simulations of the engine until one fails, or ctrl-C
# make simulate SEED=7         runs one again, and tells all that happens in it
simulate: install
	PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation.simulator $(if $(SEED),--seed $(SEED)) $(if $(SIZE),--size $(SIZE)) $(if $(ORDER),--order $(ORDER)) \
	  $(if $(WITHOUT),--without $(WITHOUT)) $(if $(FROM),--from $(FROM)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(JOBS),--jobs $(JOBS)) $(if $(PLANTED),--planted "$(PLANTED)")

# make mutate                   makes mutants of the engine, runs the tests against a sample, says which of them live
# make mutate OF=500 SEED=7     so many, of another sample; EACH=20: so many of each module
MUTANTS = $(BIN)/python -m tests.mutation
SAMPLE = $(if $(EACH),--each $(EACH),--of $(or $(OF),300)) --seed $(or $(SEED),1)
mutate: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mutmut~=3.8.1'
	$(BIN)/mutmut run 'orchestrator.engine.retry*' > /dev/null
	$(BIN)/mutmut run $$($(MUTANTS) sample $(SAMPLE)) > /dev/null
	$(MUTANTS) report $(SAMPLE)

terraform-check:
	@bash .ci/terraform-check

bench-cold: install .venv/deployed/.installed
	$(BIN)/python -m benchmarks.cold_start --python .venv/deployed/bin/python

# What Google's buildpack makes of requirements.txt: nothing else is there, and all of it is compiled.
.venv/deployed/.installed: requirements.txt .venv/.installed
	@echo "installing requirements.txt into .venv/deployed …"
	@$(PYTHON) -m venv --clear .venv/deployed
	@.venv/deployed/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	@.venv/deployed/bin/python -m compileall -qq --invalidation-mode unchecked-hash .venv/deployed/lib || true
	@touch $@

bench: install
	$(BIN)/python -m benchmarks

# The workloads of ten thousand tasks and more.
bench-long: install
	$(BIN)/python -m benchmarks --long

# What a user would pick instead, each in an environment of its own in .venv/peers, beside ours.
bench-peers: install
	$(BIN)/python -m benchmarks.peers

# Puts what the three have measured into docs/benchmarks.md.
bench-docs: install
	$(BIN)/python -m benchmarks.docs

# How much the engine adds over a Cloud Storage of 30 ms a call, by several instances; five minutes.
bench-cloud: install
	$(BIN)/python -m benchmarks.cloud

clean:
	rm -rf .venv .venv-checkov .orchestrator .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
