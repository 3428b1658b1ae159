# make                what there is
# make setup          the environment in .venv; TORCH=cpu takes PyTorch's build without CUDA
# make reproduce      set up, then rebuild every result of the demo
# make doctor         set up, then say what is wrong with this machine or clone
# make test           set up with what tests need, then check what must hold: minutes
# make test-graph     the whole graph, varied, shared, interrupted and damaged: as long again
# make test-all       all that 'make test' leaves out for its length (tests/README.md)
# make test-slurm     of these, the graph on a real Slurm on this machine: Debian, as root; else it skips
# make test-browser   of these, the report in a real browser: Debian's Chromium, installed as root; else it skips
# make test-lowest    the unit tests with the lowest versions that pyproject.toml allows, in .venv-lowest
# make lint           ruff and mypy
# make clean          remove the environments
#
# PYTHON=python3.12   another Python than the newest of 3.13, 3.12 and 3.11 that is there
# TORCH_INDEX=...     with TORCH=cpu and without uv: where pip finds that build (pytorch.org says where)

.DEFAULT_GOAL := help

# not yet 3.14: immutables, which Snakemake needs, has no wheel for it
PYTHONS := python3.13 python3.12 python3.11
# a name may be there without a Python behind it, and a Python without venv
PYTHON ?= $(firstword $(foreach name,$(PYTHONS),$(shell $(name) -c "import ensurepip, venv" 2> /dev/null && echo $(name))))
empty :=
space := $(empty) $(empty)
UV := $(shell command -v uv)
VENV := .venv
LOWEST := .venv-lowest
# a module's tests stay together, as they share what its fixtures made; the longest begin
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# the shell's name of this folder: make would take parts of some names for its own ($, #, spaces).
# DVC asks for a user's name, which an account in a container may lack
RUN := env -u PYTHONSAFEPATH -u PYTHONHOME PATH="$$PWD/$(VENV)/bin:$$PATH" USER="$${USER:-$$(id -u)}"

ifneq ($(filter-out cpu gpu,$(TORCH)),)
  $(error TORCH: found '$(TORCH)', expected cpu or gpu)
endif
ifeq ($(TORCH),cpu)
  UV_BUILD := --torch-backend cpu
  PIP_BUILD := --extra-index-url $(TORCH_INDEX)
  ifeq ($(UV)$(TORCH_INDEX),)
    $(error TORCH=cpu without uv: say TORCH_INDEX=..., where pip finds PyTorch's build without CUDA)
  endif
endif

# $(call environment,FOLDER), $(call install,FOLDER,WHAT): what pip and uv are told alike
ifdef UV
  environment = uv venv --quiet --no-python-downloads --python "$$(command -v $(PYTHON))" $(1)
  install = uv pip install --quiet --python $(1)/bin/python $(UV_BUILD) $(2)
else
  environment = $(PYTHON) -m venv $(1)
  install = $(1)/bin/python -m pip install --quiet $(PIP_BUILD) $(2)
endif
announce = @echo "$(1): $$($(1)/bin/python --version), $(if $(UV),uv,pip) installs $(2): minutes, and $(if $(UV_BUILD),2,6) GB"

.PHONY: help setup setup-tests whole clone doctor reproduce test test-graph test-all test-slurm test-browser test-lowest lint clean

help:
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile

# Scripts of an environment name its folder: one that was moved is made anew, if it was made here.
# Nobody else's is ever touched. 126 and 127: the shell cannot start the script or its interpreter;
# other failures, such as too little memory, are no reason to delete anything.
whole:
	@$(VENV)/bin/distro --help > /dev/null 2>&1; \
	case $$? in 126|127) ;; *) exit 0;; esac; \
	if test -L $(VENV) || { test -e $(VENV) && ! test -f $(VENV)/pyvenv.cfg; }; then \
		echo "error: $(VENV): found no environment that works, nor one made here; move it away" >&2; \
		exit 2; \
	fi; \
	if test -f $(VENV)/.ready; then rm -rf $(VENV); fi

$(VENV)/bin/python $(LOWEST)/bin/python:
	@found="$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1)"; \
	case "python$$found" in $(subst $(space),|,$(PYTHONS))) ;; *) \
		echo "error: PYTHON: found '$(PYTHON)' ($$found), expected one of $(PYTHONS) with venv;" \
			"install one (Debian: python3-venv) or say PYTHON=/path/to/it" >&2; exit 2;; esac
	$(call environment,$(@:/bin/python=))

# not at the same time: the first may remove what the second looks at. An environment that is a
# link is somebody else's: it is used as it is
setup: whole
	@test -L $(VENV) || $(MAKE) --silent --no-print-directory $(VENV)/.ready

setup-tests: setup
	@test -L $(VENV) || $(MAKE) --silent --no-print-directory $(VENV)/.ready-for-tests

$(VENV)/.ready: requirements.lock pipeline/workflow/account.py | $(VENV)/bin/python
	$(call announce,$(VENV),$<)
	@$(call install,$(VENV),--requirement $<)
	@$(VENV)/bin/python pipeline/workflow/account.py
	@$(VENV)/bin/distro --help > /dev/null || { \
		echo "error: scripts cannot run in a folder with \" or \$$ in its name; move the project" >&2; \
		exit 2; }
	@touch $@

$(VENV)/.ready-for-tests: requirements-test.lock $(VENV)/.ready
	$(call announce,$(VENV),$<)
	@$(call install,$(VENV),--requirement $<)
	@touch $@

doctor: setup
	$(RUN) python -m pipeline doctor

# before the installation, which takes minutes; git says why
clone:
	@git rev-parse --is-inside-work-tree > /dev/null || { \
		echo "error: git does not work in this folder, found no clone of yours; clone the project, or here:" \
			"git init && git add . && git commit -m start" >&2; exit 2; }

reproduce: clone setup
	$(RUN) python -m pipeline mend_lock
	$(RUN) dvc repro
	@echo "Report: reports/report.html (tables: reports/report.md, rows: reports/summary.json)"

lint: setup-tests
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

test: lint
	$(RUN) pytest $(SIDE_BY_SIDE)

test-graph: setup-tests
	$(RUN) pytest $(SIDE_BY_SIDE) -m "graph and not slow"

test-all: setup-tests
	tests/helpers/debian.sh chromium || true  # why not is told; then its tests skip
	tests/helpers/debian.sh debootstrap || true  # likewise
	tests/slurm/cluster.sh install || true  # likewise
	$(RUN) pytest $(SIDE_BY_SIDE) -m "slow or graph"

test-slurm: setup-tests
	tests/slurm/cluster.sh install || true  # why not is told; then the tests skip
	$(RUN) pytest -m slow tests/slurm

test-browser: setup-tests
	tests/helpers/debian.sh chromium || true  # why not is told; then the tests skip
	$(RUN) pytest -m slow tests/report/test_report_browser.py

test-lowest: | $(LOWEST)/bin/python
	$(call announce,$(LOWEST),the lowest versions)
	@$(LOWEST)/bin/python tests/helpers/lowest.py > $(LOWEST)/lowest.txt
	@$(call install,$(LOWEST),--requirement $(LOWEST)/lowest.txt)
	PATH="$(CURDIR)/$(LOWEST)/bin:$$PATH" pytest $(SIDE_BY_SIDE) --ignore tests/whole_graph

clean:
	rm -rf $(VENV) $(LOWEST) .mypy_cache .pytest_cache .ruff_cache
