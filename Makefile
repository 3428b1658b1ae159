# make reproduce   set up, then rebuild every result of the demo
# make test        set up, then run everything that must pass
# make test-slow   what 'make test' leaves out for its length
# make test-slurm  the graph on a real Slurm on this machine: Debian, as root, minutes; else it skips
# make test-browser  the report in a real browser: Debian's Chromium, installed as root; else it skips

PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready
# a module's tests stay together, as they share what its fixtures made
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.PHONY: setup reproduce test test-slow test-slurm test-browser lint clean

setup: $(READY)

$(READY): requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.lock
	$(RUN) dvc config --local core.site_cache_dir "$(CURDIR)/.cache/dvc"
	touch $@

reproduce: setup
	$(RUN) python -m pipeline mend_lock
	$(RUN) dvc repro
	@echo "Report: reports/report.html (tables: reports/report.md, rows: reports/summary.json)"

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

test: lint
	$(RUN) pytest $(SIDE_BY_SIDE) --ignore tests/slurm

test-slow: setup
	$(RUN) pytest -m slow --ignore tests/slurm

test-slurm: setup
	tests/slurm/cluster.sh install || true  # why not is told; then the tests skip
	$(RUN) pytest tests/slurm

test-browser: setup
	tests/helpers/chromium.sh || true  # why not is told; then the tests skip
	$(RUN) pytest tests/report/test_report_browser.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
