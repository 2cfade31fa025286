# The two commands:  make demo   the main job on real input      make test   everything the tests need, then the tests
# Set-up happens once: it is repeated only when requirements.lock or pyproject.toml change.

UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)
PY := .venv/bin/python
PYTHON ?= >=3.10# the version in .venv

# two workers: one has every test that asks the node, the other begins with the rest
WORKERS := -n 2 --dist loadgroup

.PHONY: demo test test-all test-live docs release fuzz check lock clean

demo: .venv/.ready
	$(PY) -m colbert_vespa demo $(ARGS)

test: .venv/.ready
	$(PY) -m pytest $(WORKERS) -m "not slow" $(ARGS)

test-all: .venv/.ready
	$(PY) -m pytest $(WORKERS) $(ARGS)

# tests against the node that COLBERT_VESPA_URL and COLBERT_VESPA_CONFIG_URL name
test-live: .venv/.ready
	$(PY) -m pytest $(WORKERS) -m live $(ARGS)

# the documentation into site/, warnings are errors, every link is followed
docs: .venv/.ready
	$(PY) .ci/build_docs.py

# sdist and wheel into dist/, checked, installed into empty environments and tried there
release: .venv/.ready
	$(PY) .ci/release.py --uv "$(UV)" --tag "$(TAG)"

# 10,000 damaged files of every kind that is read from outside: an hour or more
fuzz: .venv/.ready
	COLBERT_VESPA_FUZZ=10000 $(PY) -m pytest $(WORKERS) tests/foundation/test_fuzz.py $(ARGS)

# packages whose every public name has a docstring in Google's form
DOCUMENTED = colbert_vespa exporter feeder late_interaction query vespa_app

check: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff check --extend-select D --ignore D105,D107 $(DOCUMENTED)
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

.venv/.ready: requirements.lock pyproject.toml
	@command -v uv >/dev/null 2>&1 || test -x .tools/bin/uv || PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --target .tools uv
	$(UV) venv --quiet --allow-existing --python '$(PYTHON)' .venv
	$(UV) pip install --quiet --python .venv --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python .venv --no-deps -e .
	@touch $@

# pins names, versions and hashes for every platform and Python; records no registry's address
lock: .venv/.ready
	$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.10 --all-extras --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .tools .cache demo dist site
