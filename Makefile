# `make help` lists the targets. The virtual environment and the system packages are made on demand.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SCRIPTS := .ci/run hooks/qemu docs/examples/irqbalance-policy tests/setup-system packaging/build-deb packaging/build-rpm packaging/try-deb packaging/try-role
# Namespaces, a libvirtd and /sys need root; without sudo and without root the tests that need it fail.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo env PYTHONDONTWRITEBYTECODE=1)

# What packaging/debian/control asks for, and what builds and checks with it.
DEB_NEEDS := build-essential dpkg-dev fakeroot lintian debhelper dh-python pybuild-plugin-pyproject \
	python3-all python3-setuptools python3-wheel \
	python3-attr python3-click python3-libvirt python3-lxml python3-psutil python3-rich

.DEFAULT_GOAL := help
.PHONY: help demo test faults fuzz coverage lint settings bench deb rpm docs clean

help: ## This list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

$(READY): setup.cfg pyproject.toml tests/setup-system
	tests/setup-system
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,lint]'
	touch $@

demo: $(READY) ## A private libvirtd, a domain, `virsh start`, and what changed
	$(AS_ROOT) $(BIN)/python -m tests.demo

# A worker for each core, each with a private libvirtd of its own; ARGS="-n0" for one process.
PYTEST = -m pytest -n auto --dist loadfile

test: $(READY) ## Unit tests, tests in network namespaces, tests against a private libvirtd
	$(AS_ROOT) $(BIN)/python $(PYTEST) $(ARGS)

# The parts of `coverage`; .ci/run calls `measure` a second time for tests that failed.
.PHONY: measure-new measure coverage-report
measure-new:
	$(AS_ROOT) rm -rf .coverage

measure: $(READY)
	$(AS_ROOT) $(BIN)/python -m coverage run $(PYTEST) $(ARGS)

coverage-report:
	$(AS_ROOT) $(BIN)/python -m coverage combine -q
	$(AS_ROOT) $(BIN)/python -m coverage report

faults: $(READY) ## Every fault of every file operation, all sequences of events with a kill, and the tables
	$(AS_ROOT) $(BIN)/python -m tests.faults $(ARGS)

SECONDS ?= 60
fuzz: $(READY) ## Every reader of text from elsewhere, for SECONDS; by atheris where it is installed
	$(BIN)/python -m tests.fuzz $(SECONDS) $(ARGS)

coverage: ## The same tests, and the lines and branches that ran, the hook's processes included
	$(MAKE) measure-new
	$(MAKE) measure
	$(MAKE) coverage-report

lint: $(READY) ## ruff, mypy --strict and shellcheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	shellcheck $(SCRIPTS)

settings: $(READY) ## Write schemas/ and docs/ from the table of settings (libvirt_tuner/config/policy.py)
	$(BIN)/python -m pytest -q tests/unit/config/test_reference.py --rewrite-golden

bench: $(READY) ## Time of the hook and of compose(), as ratios measured in one run (AGAINST=COMMIT)
	$(AS_ROOT) $(BIN)/python -m tests.bench $(AGAINST)

deb: ## The package for Debian 12 and 13 into dist/, checked by lintian
	tests/setup-system $(DEB_NEEDS)
	packaging/build-deb $(VERSION)

rpm: ## The package for Fedora and its kin into dist/; rpmbuild needs pyproject-rpm-macros
	packaging/build-rpm

docs: $(READY) ## The documentation into build/docs; warnings are errors, examples are run
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going -b doctest docs build/doctest
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

clean: ## Remove what the other targets made (lab-clean: the images of `make lab`)
	$(AS_ROOT) rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	$(AS_ROOT) find . -name __pycache__ -prune -exec rm -rf {} +

-include tests/lab/lab.mk
