# make demo: see packets go through a Python program.    make test: everything CI checks.
# Each sets itself up: a virtual environment in .venv and, for tests as root, Debian packages.

PYTHON ?= python3
BIN := .venv/bin
KERNEL_TOOLS := ip:iproute2 ping:iputils-ping nsenter:util-linux unshare:util-linux setpriv:util-linux

# The contract and its Linux and memory platforms: what the announcement of Wintun would have counted.
CONTRACT := $(addprefix src/threepipe/,errors.py packet.py offload.py bundle.py ring.py doorbell.py session.py settings.py \
	device.py adapter.py memory.py) $(addprefix src/threepipe/platforms/linux/,tun.py namespace.py netlink.py port.py device.py)

.PHONY: demo test soak lint types lines tools clean

demo: .venv/run
	@$(BIN)/threepipe demo $(ARGS)

test: tools lint types lines
	@rm -f .coverage
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage report

soak: tools
	@$(BIN)/pytest -m soak --timeout=3600 -v

lint: .venv/test
	@$(BIN)/ruff check --output-format concise
	@$(BIN)/ruff format --check --quiet || { echo "run: ruff format"; exit 1; }

types: .venv/test
	@$(BIN)/mypy --platform linux
	@for system in win32 darwin; do $(BIN)/mypy --platform $$system src examples || exit 1; done

lines: .venv/test
	@$(BIN)/python tools/count_lines.py $(CONTRACT)

# Debian packages that tests of the kernel need; without root they are only named.
tools: .venv/test
	@missing=$$(for pair in $(KERNEL_TOOLS); do command -v $${pair%%:*} >/dev/null || echo $${pair#*:}; done | sort -u); \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
	elif [ -n "$$missing" ]; then echo "missing, and tests want it (apt-get install): $$missing"; exit 1; fi

.venv/run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "threepipe needs Python 3.11 or newer: make PYTHON=python3.12")'
	@$(PYTHON) -m venv .venv || { echo "python3 -m venv does not work here (Debian: apt-get install python3-venv)"; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/test: .venv/run
	@$(BIN)/pip install --quiet --group dev
	@touch $@

clean:
	rm -rf .venv .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
