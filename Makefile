# make demo: see packets go through a Python program.    make test, make test-windows: everything CI checks.
# Each sets itself up: a virtual environment in .venv and, for tests as root, Debian packages.

PYTHON ?= python3
BIN := .venv/bin
HAS_NATIVE := $(BIN)/python -c "import threepipe_native" 2>/dev/null
BENCH_TOOLS := iperf3:iperf3 ip:iproute2 ping:iputils-ping setpriv:util-linux socat:socat \
	wg:wireguard-tools wireguard-go:wireguard-go
KERNEL_TOOLS := tcpdump:tcpdump ip:iproute2 ping:iputils-ping nsenter:util-linux unshare:util-linux setpriv:util-linux \
	socat:socat ssh:openssh-client sshd:openssh-server tshark:tshark wg:wireguard-tools wireguard-go:wireguard-go \
	nft:nftables iptables:iptables sysctl:procps

# To check Windows' structures against its headers, and to build the library that stands in for Wintun's.
HEADER_TOOLS := gcc:gcc x86_64-w64-mingw32-gcc:gcc-mingw-w64-x86-64 i686-w64-mingw32-gcc:gcc-mingw-w64-i686

# To run what other kernels have, under emulation.
SOAK_TOOLS := qemu-system-x86_64:qemu-system-x86 busybox:busybox-static kmod:kmod ethtool:ethtool

# The contract and its Linux and memory platforms: what the announcement of Wintun would have counted.

CONTRACT := $(addprefix src/threepipe/,errors.py core/packet.py core/superpacket.py core/coalesce.py core/descriptor.py core/pump.py \
	core/fast.py bundle.py ring.py net/doorbell.py session.py settings.py backend.py adapter.py memory.py) \
	$(addprefix src/threepipe/platforms/linux/,tun.py namespace.py netlink.py port.py device.py)

NATIVE := native/Cargo.toml native/Cargo.lock native/pyproject.toml native/threepipe_native.pyi \
	$(wildcard native/src/*.rs native/core/Cargo.toml native/core/src/*.rs)

.PHONY: demo test test-pure test-native test-windows native-windows bench soak lint types rust lines tools clean

demo: .venv/native
	@$(BIN)/threepipe demo $(ARGS)

# Every test runs on pure Python and, where there is one, on the native core, side by side.
test: tools lint types rust lines
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory -j2 --output-sync=line test-pure test-native
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

test-pure: .venv/test
	@THREEPIPE_PURE=1 $(BIN)/coverage run -p -m pytest

test-native: .venv/test .venv/native
	@if $(HAS_NATIVE); then $(BIN)/coverage run -p --source=threepipe.core.fast -m pytest; else echo "There is no native core here to be tested."; fi

# The portable tests, and those of Windows, on Windows' Python under Wine, and packets from here through programs there:
# set up at first, in a minute or two. What the native core does is run again with it, where it can be built.
test-windows: .venv/test
	@$(BIN)/python tools/windows $(ARGS)

# The same with the native core.
native-windows: .venv/test
	@$(BIN)/python tools/windows --native $(ARGS)

# Threepipe beside its peers and the limit: ten minutes and more, as root.
bench: .venv/bench
	@$(call have,$(BENCH_TOOLS))
	@$(BIN)/python -m benchmarks $(ARGS)

soak: tools .venv/native .venv/soak
	@$(call have,$(SOAK_TOOLS))
	@ls /lib/modules/*/kernel/net/ipv4/fou.ko* >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || \
		apt-get -qq install -y --no-install-recommends linux-image-amd64 >/dev/null
	@$(BIN)/python -m benchmarks.build
	@$(BIN)/pytest -m soak --timeout=3600 -v

lint: .venv/test
	@$(BIN)/ruff check --output-format concise
	@$(BIN)/ruff format --check --quiet || { echo "run: ruff format"; exit 1; }

types: .venv/test
	@$(BIN)/mypy --platform linux
	@for system in win32 darwin; do $(BIN)/mypy --platform $$system src examples || exit 1; done

rust: .venv/test .venv/native
	@if $(HAS_NATIVE); then cd native && cargo fmt --all --check && \
		cargo clippy --quiet --workspace --all-targets --locked -- -D warnings && cargo test --quiet --workspace --locked; fi

lines: .venv/test
	@$(BIN)/python tools/count_lines.py $(CONTRACT)

# Debian packages that tests of the kernel need; without root they are only named.
tools: .venv/test
	@$(call have,$(KERNEL_TOOLS) $(HEADER_TOOLS))

have = missing=$$(for pair in $(1); do command -v $${pair%%:*} >/dev/null || echo $${pair\#*:}; done | sort -u); \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends $$missing >/dev/null; \
	elif [ -n "$$missing" ]; then echo "missing, and wanted here (apt-get install): $$missing"; exit 1; fi

.venv/run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "threepipe needs Python 3.11 or newer: make PYTHON=python3.12")'
	@$(PYTHON) -m venv .venv || { echo "python3 -m venv does not work here (Debian: apt-get install python3-venv)"; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/pip install --quiet --editable .
	@touch $@

.venv/bench: .venv/native
	@$(BIN)/pip install --quiet --group bench
	@touch $@

# The native core, where there is a Rust for it; without, it says so and all goes on.
.venv/native: .venv/run $(NATIVE) tools/build_native.py
	@$(BIN)/python tools/build_native.py
	@touch $@

.venv/soak: .venv/run
	@$(BIN)/pip install --quiet --group soak
	@touch $@

.venv/test: .venv/run
	@$(BIN)/pip install --quiet --group dev
	@touch $@

clean:
	rm -rf .venv .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache native/target
