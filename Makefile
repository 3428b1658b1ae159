# make reproduce   set up, then rebuild every result of the demo
# make doctor      set up, then say what is wrong with this machine or clone
# make test        set up, then run everything that must pass
# make test-slow   what 'make test' leaves out for its length
# make test-slurm  the graph on a real Slurm on this machine: Debian, as root, minutes; else it skips
# make test-browser  the report in a real browser: Debian's Chromium, installed as root; else it skips

PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready
# a module's tests stay together, as they share what its fixtures made
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile
# the shell's name of this folder: make would take parts of some names for its own ($, #, spaces).
# DVC asks for a user's name, which an account in a container may lack
RUN := env -u PYTHONSAFEPATH -u PYTHONHOME PATH="$$PWD/$(VENV)/bin:$$PATH" \
	USER="$${USER:-$$(id -u)}"

.PHONY: setup doctor reproduce test test-slow test-slurm test-browser lint clean

# Scripts of an environment name its folder: one that was moved is made anew, if it was made here.
# Nobody else's is ever touched.
setup:
	@works=; $(VENV)/bin/pip --version > /dev/null 2>&1 && works=yes; \
	fresh=; test -f $(READY) && ! test requirements.lock -nt $(READY) && fresh=yes; \
	if test "$$works" && test "$$fresh"; then exit 0; fi; \
	if test -L $(VENV) || { test -e $(VENV) && ! test -f $(VENV)/pyvenv.cfg; }; then \
		if test "$$works"; then exit 0; fi; \
		echo "error: $(VENV): found no environment that works, nor one made here; move it away" >&2; \
		exit 2; \
	fi; \
	found=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1); \
	if test "$$found" != 3.11; then \
		echo "error: $(PYTHON): found $$found, expected Python 3.11; install it, or name yours:" \
			"make PYTHON=/path/to/python3.11" >&2; \
		exit 2; \
	fi; \
	clear=; if test -z "$$works" && test -f $(READY); then clear=--clear; fi; \
	$(PYTHON) -m venv $$clear $(VENV) && \
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.lock && \
	if $(VENV)/bin/pip --version > /dev/null; then touch $(READY); else \
		echo "error: scripts cannot run in a folder with \" or \$$ in its name; move the project" >&2; \
		exit 2; \
	fi

doctor: setup
	$(RUN) python -m pipeline doctor

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
