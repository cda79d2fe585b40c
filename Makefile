# demo: the whole way on real digits.    test: the test suite.    check: ruff and mypy.
# bench: the benchmarks.                 web: the demo in a browser, on this machine only.
# check-web: the types of the pages' JavaScript, with npm.
# schema: write src/attar/models/model.schema.json anew after a change of layers.
#
# Everything is set up on first use in $(VENV); only Python 3.11 or later and make are needed before.
# Options: PYTHON=python3.13  VENV=/elsewhere/venv  PIP_FLAGS="--extra-index-url ..."  TESTS=tests/test_spec.py
# JOBS=4 (processes that run tests; each loads PyTorch, and may take 2 GiB)

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
TESTS ?=
JOBS ?= 2
# Those that need no data from elsewhere; the others say in their first lines what they want.
BENCH ?= $(wildcard $(patsubst %,benchmarks/%.py,train_speed digits))

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -c constraints.txt
READY := $(VENV)/.attar-ready
WEB_READY := $(VENV)/.attar-web-ready

.PHONY: demo test check check-web bench web schema setup
.DELETE_ON_ERROR:

demo: $(READY)
	$(PY) examples/demo.py

test: $(READY)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PY) -m pytest -q -n $(JOBS) --dist loadfile $(TESTS)

check: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

check-web:
	npm exec --yes --package=typescript@5.9 -- tsc -p jsconfig.json

bench: $(READY)
	@set -e; for script in $(BENCH); do echo "== $$script"; $(PY) "$$script"; done

web: $(WEB_READY)
	$(VENV)/bin/attar serve

schema: $(READY)
	$(PY) tools/make_schema.py

setup: $(READY)

# The stamp is written last: an installation that broke off is begun again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Attar needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=python3.12")'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing Attar and its development tools into $(VENV) (some minutes, once)"
	@$(PIP) -e '.[dev]'
	@touch $@

$(WEB_READY): $(READY)
	@$(PIP) -e '.[web]'
	@touch $@
