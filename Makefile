# Two commands matter: `make serve` and `make test`. Both start with `make install`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3,11) <= sys.version_info[:2] <= (3,13))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SYSTEMD_ANALYZE := $(shell command -v systemd-analyze 2>/dev/null)
STRACE := $(shell command -v strace 2>/dev/null)
REDIS := $(shell command -v redis-server redis-check-rdb 2>/dev/null | head -n 1)
# Debian's packages; another apt-get may be at work, and is waited for.
APT := $(if $(filter 0,$(shell id -u)),,sudo )env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300
APT_INSTALL := $(APT) update && $(APT) install -y --no-install-recommends
CHROMIUM := $(shell command -v chromium chromium-browser google-chrome 2>/dev/null | head -n 1)

.PHONY: install serve test test-backends fuzz check format dev chromium lock clean help systemd redis strace audit docs dist

SECONDS ?= 60


help:
	@echo "make serve    install, fetch the default models, serve on http://localhost:8000"
	@echo "make test     install what is missing and run the whole suite"
	@echo "make test-backends  every back end in an environment of its own (GROUPS=\"moshi nemo\": only some)"
	@echo "make fuzz     damaged input for what strangers reach, SECONDS=60 for each fuzzer"
	@echo "make check    the quick gate: format, lint, types, import rules, core tests"
	@echo "make audit    known faults of what it depends on (needs PyPI itself, not a mirror)"
	@echo "make docs     the documentation as a site in site/, links checked"
	@echo "make dist     wheel, source archive, SBOM and checksums in dist/"
	@echo "make install  only the virtual environment .venv with the command antiphon"

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Antiphon needs Python 3.11, 3.12 or 3.13 on the PATH (or: make PYTHON=/path/to/python3.12)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Could not make $(VENV); on Debian: apt-get install python3-venv"; exit 1; }
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps -e .
	@touch $@

dev: $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.installed requirements-dev.lock
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

serve: install
	$(BIN)/antiphon serve

test: dev chromium systemd redis strace
	$(BIN)/antiphon models pull
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Back ends whose libraries exclude each other, each with its own: see tests/backends/groups.
test-backends: install
	$(PIP) install uv
	$(BIN)/python tests/backends/groups/run.py $(BIN)/uv $(GROUPS)

# Each module of fuzz/ that has a main; what it found is in .fuzz/.
fuzz: dev
	@status=0; for fuzzer in $$(grep -l '^def main' fuzz/*.py); do \
	 name=$$(basename $$fuzzer .py); echo "fuzz: $$name, $(SECONDS) s"; \
	 $(BIN)/python -m fuzz.$$name --seconds $(SECONDS) || status=1; done; exit $$status

check: dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/core

format: dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The page is tested in a real browser; Debian's package, because no other download is reachable everywhere.
chromium:
ifeq ($(CHROMIUM),)
	@echo "Installing Chromium for the browser tests"
	@($(APT_INSTALL) chromium) >/dev/null
endif

# The units are checked by systemd itself; nothing of it is started.
systemd:
ifeq ($(shell uname -s)$(SYSTEMD_ANALYZE),Linux)
	@echo "Installing systemd-analyze for the tests of the units"
	@($(APT_INSTALL) systemd) >/dev/null
endif

# Its tools hold the server itself, without a service that would be started.
redis:
ifeq ($(REDIS),)
	@echo "Installing redis-tools for the tests of shared speech"
	@($(APT_INSTALL) redis-tools) >/dev/null
endif

# What native code connects to is seen from outside of the process only.
strace:
ifeq ($(shell uname -s)$(STRACE),Linux)
	@echo "Installing strace for the test that nothing is reported to anybody"
	@($(APT_INSTALL) strace) >/dev/null
endif

# The lock files of a user, of a developer, and of the images (deploy/docker).
COMPILE := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" -q
IMAGE_EXTRAS := --extra phone --extra rtc --extra mcp --extra webrtc --extra denoise --extra otel --extra redis

lock: $(VENV)/.installed
	$(PIP) install uv
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(COMPILE) $(IMAGE_EXTRAS) --extra faster-whisper -c requirements.lock pyproject.toml -o deploy/docker/server.lock
	$(COMPILE) $(IMAGE_EXTRAS) --extra faster-whisper-cuda --extra transformers --extra coqui -c requirements.lock pyproject.toml -o deploy/docker/cuda.lock
	printf 'hatchling>=1.27\nsetuptools>=80\nwheel\n' | $(COMPILE) - -o deploy/docker/build.lock

docs: dev
	$(BIN)/mkdocs build --strict --quiet
	@echo "The documentation is in site/index.html"

# Wheel, source archive, a CycloneDX list of what the wheel is run with (the lock file), and checksums.
dist: dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml --of JSON -o dist/antiphon.cdx.json requirements.lock
	cd dist && sha256sum * > SHA256SUMS

# Known faults of what we depend on. The advisories come from PyPI's JSON interface and not from the package index: where
# only a mirror of packages is in reach, nothing can be said, and this fails rather than say that all is well.
audit: dev
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.lock \
	 || { echo "Something was found, or could not be looked up: see above"; exit 1; }

clean:
	rm -rf $(VENV) site dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
