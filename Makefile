# What one types. Needs Python 3.11 or newer and make; everything else comes from requirements.lock into .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-browser torture bench check format lock clean

VENV := .venv
PY := $(VENV)/bin/python
# Written last, so that an installation that was interrupted is begun again.
INSTALLED := $(VENV)/.installed
# Another Python, when .venv is made: make PYTHON=/usr/bin/python3.12 test
PYTHON ?=
DEMO_ARGS ?=
TEST_ARGS ?=
LOCK_ARGS ?=
BENCH_ARGS ?=
MINUTES ?= 10
SEED ?=

# The caller's settings are for the caller's service: neither the demo nor a test may see them, in any case of letters.
FORGET_SETTINGS := unset DELIVERY_ $$(env | awk -F= 'toupper($$1) ~ /^DELIVERY_[A-Z0-9_]*$$/ { print $$1 }')
# Neither may a .env: the demo is given its settings, and no test reads the one in this folder.
PYTEST := $(PY) -m pytest --rootdir=. -c pyproject.toml
# In one process more than there are cores (four at the most), for tests wait as well, each with a PostgreSQL of its own;
# who is done takes over from who is not.
SPREAD = -n $$(cores=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); echo $$((cores < 4 ? cores + 1 : 4))) \
	--dist worksteal

help:
	@echo 'make demo           invoices are created, delivered and captured on this machine (DEMO_ARGS=--exit stops there)'
	@echo 'make test           the tests (TEST_ARGS="-k name" for some of them)'
	@echo 'make test-browser   the tests that look at pages and mails in Chromium'
	@echo 'make torture        minutes of kills, faults and load on both databases (MINUTES=10 SEED=1 to repeat one)'
	@echo 'make bench          how fast it is, against what: about ten minutes (BENCH_ARGS="1 4" for some of it)'
	@echo 'make check          ruff, its formatting, and mypy --strict'
	@echo 'make format         mends what ruff can mend'
	@echo 'make lock           pins every version anew, the bench'"'"'s too (LOCK_ARGS=--upgrade for newer ones)'
	@echo 'make clean          removes .venv and everything else that was built; never data/'

demo: $(INSTALLED)
	@$(FORGET_SETTINGS); exec $(PY) -m service demo $(DEMO_ARGS)

test: $(INSTALLED)
	@$(FORGET_SETTINGS); unset MAKEFLAGS MAKELEVEL; $(PYTEST) $(SPREAD) -m 'not browser' $(TEST_ARGS)

test-browser: $(INSTALLED)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	    echo 'The browser tests need Chromium, and there is none on the PATH.' >&2; \
	    echo 'On Debian: apt-get install chromium' >&2; exit 1; }
	@$(FORGET_SETTINGS); unset MAKEFLAGS MAKELEVEL; $(PYTEST) $(SPREAD) -m browser $(TEST_ARGS)

torture: $(INSTALLED)
	@$(FORGET_SETTINGS); unset MAKEFLAGS MAKELEVEL; \
	exec $(PY) -m tests.torture --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# What it is measured against beside the lock is installed here only, and pip has nothing to do the second time.
bench: $(INSTALLED)
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --require-hashes -r tests/bench/requirements.txt
	@$(FORGET_SETTINGS); unset MAKEFLAGS MAKELEVEL; exec $(PY) -m tests.bench $(BENCH_ARGS)

check: $(INSTALLED)
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

format: $(INSTALLED)
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find service tests templates -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment -------------------------------------------------------------------------------------------------

# Debian's python3 comes without ensurepip until python3-venv is installed; some self-built ones lack sqlite3 or ssl.
define FIND_PYTHON
found= old= bare=; \
for name in $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3); do \
    "$$name" -c 'pass' >/dev/null 2>&1 || continue; \
    "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { old=$$name; continue; }; \
    "$$name" -c 'import ensurepip, sqlite3, ssl, venv' 2>/dev/null || { bare=$$name; continue; }; \
    found=$$name; break; \
done; \
if [ -z "$$found" ]; then \
    if [ -n "$$bare" ]; then \
        echo "$$bare cannot make a virtual environment: it lacks venv, ensurepip, sqlite3 or ssl." >&2; \
        echo "On Debian and Ubuntu: apt install python3-venv" >&2; \
    elif [ -n "$$old" ]; then \
        echo "Python 3.11 or newer is needed; $$old is $$("$$old" -V 2>&1)." >&2; \
        echo "If there is a newer one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
    else \
        echo "Python 3.11 or newer is needed, and $(if $(PYTHON),$(PYTHON) does not run,none was found)." >&2; \
    fi; \
    exit 1; \
fi
endef

# A changed lock file is installed afresh; a changed pyproject.toml alone needs the last line only.
$(INSTALLED): requirements.lock pyproject.toml
	@rm -f $@; set -e; \
	if ! cmp -s requirements.lock $(VENV)/requirements.lock || ! $(PY) -c 'pass' 2>/dev/null; then \
	    $(FIND_PYTHON); \
	    echo "Making $(VENV) with $$("$$found" -V) ($$found) from requirements.lock: about a minute, once."; \
	    "$$found" -m venv --clear $(VENV); \
	    $(PY) -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock; \
	    cp requirements.lock $(VENV)/requirements.lock; \
	fi; \
	$(PY) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	touch $@

# --- the lock --------------------------------------------------------------------------------------------------------

# Three parts, each complete only with those above it: what the service runs on (with the extra s3, so that the image has
# it), what builds its wheel, what tests it.
# The Dockerfile takes the first for the image. Resolved on the oldest Python that is supported: what only a newer one
# needs would be missing; a test looks for that on whichever Python there is.
COMPILE = $(PY) -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate \
	--no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host $(LOCK_ARGS)
PINS = sed -n 's/^\([^ \#]*==[^ ]*\).*/\1/p'
# The blocks of the second file whose first line is not in the first.
WITHOUT = awk 'FNR == NR { if (/^[^ \#]/) seen[$$1]; next } /^(\#|$$)/ { next } /^[^ ]/ { keep = !($$1 in seen) } keep'

lock: $(INSTALLED)
	@$(PY) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	    echo 'The lock is made on Python 3.11: make clean && make lock PYTHON=python3.11' >&2; exit 1; }
	@set -e; rm -rf build/lock; mkdir -p build/lock; \
	for part in runtime build all; do cp requirements.lock build/lock/$$part; done; \
	cp tests/bench/requirements.txt build/lock/bench; \
	for group in dev bench; do \
	    $(PY) -c 'import sys, tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"][sys.argv[1]], sep="\n")' $$group \
	        > build/lock/$$group.in; \
	done; \
	$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	    > build/lock/build.in; \
	$(COMPILE) --extra s3 -o build/lock/runtime pyproject.toml; \
	$(PINS) build/lock/runtime > build/lock/pins; \
	$(COMPILE) -o build/lock/build -c build/lock/pins build/lock/build.in; \
	$(PINS) build/lock/build >> build/lock/pins; \
	cat build/lock/pins build/lock/dev.in > build/lock/all.in; \
	$(COMPILE) -o build/lock/all build/lock/all.in; \
	{ $(PINS) build/lock/all; cat build/lock/bench.in; } > build/lock/all-and-bench.in; \
	$(COMPILE) -o build/lock/bench build/lock/all-and-bench.in; \
	{ \
	    echo '# Made by `make lock`. Three parts; the Dockerfile reads the marker lines.'; \
	    echo '# --- runtime'; cat build/lock/runtime; \
	    echo '# --- build'; $(WITHOUT) build/lock/runtime build/lock/build; \
	    cat build/lock/runtime build/lock/build > build/lock/above; \
	    echo '# --- development'; $(WITHOUT) build/lock/above build/lock/all; \
	} > build/lock/new; \
	mv build/lock/new requirements.lock; \
	{ \
	    echo '# Made by `make lock`: what `make bench` needs beside requirements.lock.'; \
	    $(WITHOUT) build/lock/all build/lock/bench; \
	} > build/lock/new; \
	mv build/lock/new tests/bench/requirements.txt; \
	rm -rf build/lock; \
	echo "requirements.lock: $$(grep -c == requirements.lock) packages."
