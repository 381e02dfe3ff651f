# make demo    sets everything up and runs the main job          make lab         JupyterLab, with the kernel ready
# make test    sets everything up and passes every test          make dashboards  the desk in a browser, live
# make check   what a change must pass before it is merged       make bench       figures, with the hardware they were taken on
# make postgres  every test that makes a ledger, with the ledger on PostgreSQL instead of SQLite
# make campaigns  seeded campaigns of the tests, ten times as long
# make export  notebooks to modules     make docs  the documentation, as HTML     make clean  what can be made again
SHELL := /bin/bash
export PYTHON TORCH_INDEX CHROMIUM
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Two libraries report their use unless they are told not to, before they are imported.
export ORT_DISABLE_TELEMETRY := 1
export RAY_USAGE_STATS_ENABLED := 0

BENCH ?= jobs feed ledger order-path crash risk forecast backtest sweep
# Many tests wait for a venue's answer or a bar's end: two files at a time take half as long, even on two cores; WORKERS=3 on four saves a third more.
WORKERS ?= 2
# Where tests make ledgers. On PostgreSQL all of them are `make postgres`; `make test` takes those that ask most of a server.
LEDGERS := tests/ledger tests/fault tests/flow tests/cli tests/ops
ON_POSTGRES ?= tests/fault/test_ledger.py tests/fault/test_desk.py tests/flow/test_recovery.py tests/flow/test_live_faults.py
ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help setup demo test postgres lab dashboards check campaigns bench export docs clean
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup:
	@scripts/setup.sh

demo: setup
	@.venv/bin/gekko run strategies/trend.ipynb --mode paper

test: setup
	@scripts/chromium.sh >/dev/null
	@scripts/clients.sh >/dev/null   # the venues' public clients, in an environment of their own
	@scripts/peers.sh tables >/dev/null  # other libraries whose published results are made again, likewise
	@scripts/postgres.sh >/dev/null  # the tests of the ledger start one of their own
	@echo "Notebooks: every example runs"
	@OPENBLAS_NUM_THREADS=1 nbdev_test --n_workers 4
	@echo "Tests"
	@CHROMIUM="$$(scripts/chromium.sh)" OPENBLAS_NUM_THREADS=1 pytest -n $(WORKERS) --dist loadfile
	@echo "Tests: faults and live runs with the ledger on PostgreSQL"   # the ledger's own suites have run on both already
	@$(MAKE) --no-print-directory postgres LEDGERS="$(ON_POSTGRES)"

postgres: setup
	@scripts/postgres.sh >/dev/null
	@CHROMIUM="$$(scripts/chromium.sh)" GEKKO_TEST_LEDGER=postgres pytest -n $(WORKERS) --dist loadfile $(LEDGERS)

lab: setup
	@jupyter lab $(ROOT) --ContentsManager.allow_hidden=True $(LAB) strategies/trend.ipynb

dashboards: setup
	@.venv/bin/gekko dashboard $(VOILA)

check: setup
	nbdev_export
	nbdev_clean
	git diff --exit-code --stat -- gekko nbs   # the modules are what the notebooks say, and the notebooks are clean
	pytest -q tests/repo
	ruff check
	mypy
	scripts/actionlint.sh

# Ten times as long as in the tests, and of fresh seeds: our books against a venue's truth over a bad line, and damage done to a ledger, a thousand fires
# of a schedule whose workers are killed, and blows to everything that carries a scheduled strategy.
campaigns: setup
	@GEKKO_CAMPAIGN=$${GEKKO_CAMPAIGN:-10} pytest -n $(WORKERS) tests/execution/test_model.py tests/ledger/test_campaign.py tests/research/test_published.py tests/fault/test_worker.py tests/fault/test_job_kills.py

bench: setup
	@for b in $(BENCH); do .venv/bin/gekko bench $$b --json; done

export: setup
	nbdev_export
	nbdev_clean
	@for f in strategies/*.ipynb dashboards/*.ipynb; do [ ! -e $$f ] || jupyter nbconvert --log-level=WARN --clear-output --inplace $$f; done

docs: setup
	@python docs/build.py

clean:
	rm -rf _docs _proc build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find gekko tests nbs scripts docs -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
