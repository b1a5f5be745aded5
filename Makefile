# make demo: watch packets pass through a Python program.    make test, make test-windows: everything that CI checks.
# Each target sets itself up: a virtual environment in .venv and, as root, the Debian packages that its tests need.

# Tests start hundreds of programs, and make starts pytest eight times: without bytecode files each compiles all anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
CARGO_DENY := 0.20.2
ACTIONLINT := v1.7.12
NATS_SERVER := v2.15.3
LOCKED := $(PIP) --require-hashes --requirement
HAS_NATIVE := test -e src/threepipe/_native.abi3.so
BENCH_TOOLS := iperf3:iperf3 ip:iproute2 ping:iputils-ping setpriv:util-linux socat:socat \
	wg:wireguard-tools wireguard-go:wireguard-go
KERNEL_TOOLS := tcpdump:tcpdump ip:iproute2 ping:iputils-ping nsenter:util-linux unshare:util-linux setpriv:util-linux \
	socat:socat ssh:openssh-client sshd:openssh-server tshark:tshark wg:wireguard-tools wireguard-go:wireguard-go \
	nft:nftables iptables:iptables sysctl:procps faketime:faketime ocproxy:ocproxy \
	zsh:zsh fish:fish mandoc:mandoc man:man-db

MESH_TOOLS := babeld:babeld ip:iproute2 nsenter:util-linux setpriv:util-linux sysctl:procps

# Compilers that check Windows' structures against its headers, and build the stand-in for Wintun's library.
HEADER_TOOLS := gcc:gcc x86_64-w64-mingw32-gcc:gcc-mingw-w64-x86-64 i686-w64-mingw32-gcc:gcc-mingw-w64-i686

# Tools that run other kernels under emulation.
SOAK_TOOLS := qemu-system-x86_64:qemu-system-x86 busybox:busybox-static kmod:kmod ethtool:ethtool \
	systemd-analyze:systemd openvpn:openvpn microsocks:microsocks babeld:babeld bird:bird2 \
	openconnect:openconnect ocserv:ocserv mmdebstrap:mmdebstrap linux.uml:user-mode-linux

# The contract with its Linux and memory platforms: the code that Wintun's announcement would have counted.
CONTRACT := $(addprefix src/threepipe/,errors.py core/packet.py core/descriptor.py core/ends.py core/pump.py core/fast.py bundle.py \
	ring.py net/doorbell.py singles.py session.py pump.py settings.py backend.py adapter.py memory.py) \
	$(addprefix src/threepipe/platforms/linux/,tun.py namespace.py netlink.py addressing.py port.py splitting.py device.py)

# Splitting and coalescing superpackets.
SUPERPACKETS := $(addprefix src/threepipe/core/,superpacket.py coalesce.py tunnel.py)

NATIVE := native/Cargo.toml native/Cargo.lock native/build.rs src/threepipe/_version.py \
	$(wildcard native/src/*.rs native/core/Cargo.toml native/core/src/*.rs native/core/src/*/*.rs)

.PHONY: demo mesh-demo test test-fast test-pure test-native test-windows test-kernels native-windows bench bench-quick soak lint \
	types rust lines tools lock audit wheels test-wheels docs site docs-serve test-docs workflows clean

demo: .venv/native
	@$(BIN)/threepipe demo $(ARGS)

# Twelve nodes with an agent and babeld each, in networks of this machine: a link is cut, and a map drawn. As root it
# installs what is missing. MESH_DEMO names another file than build/mesh-demo.svg.
mesh-demo: .venv/native $(BIN)/nats-server
	@$(call have,$(MESH_TOOLS))
	@$(BIN)/python tools/mesh_demo.py $(MESH_DEMO)

# Every test runs in pure Python and, if there is a native core, with it. Much of the time is waiting, so the parts run
# side by side, the longest first, and portable tests while the core is built.
test: tools
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory -j6 --output-sync=line test-pure test-native lint types rust lines site
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

PARTS := kernel portable wireguard
wireguard = tests/linux/test_wireguard.py
kernel = -m "kernel and not soak and not wine" --ignore=$(wireguard)
portable = -m "not kernel and not soak and not wine" --ignore=$(wireguard)

# These test what no core does, or start programs with either, so they run once, in pure Python: the longest in a part of
# their own, and the others in theirs.
APART := $(filter-out %/test_examples.py,$(wildcard tests/docs/test_*.py)) $(addprefix tests/,tools bsd/test_headers.py \
	cli/test_completion.py linux/test_headers.py linux/test_new_namespace.py linux/test_serve.py \
	linux/test_serve_policy.py linux/test_systemd.py linux/test_unprivileged.py linux/test_wg_exec.py \
	linux/test_wg_quick.py linux/test_wireguard_down.py linux/test_wireguard_leavings.py linux/test_wireguard_up.py \
	windows/contract_library windows/test_headers.py windows/test_iphelper.py)
ONCE := $(APART) $(addprefix tests/,bsd/test_addresses.py bsd/test_bypass.py bsd/test_messages.py bsd/test_up.py \
	capture/test_expression.py capture/test_install.py capture/test_pcap.py capture/test_pcap_broken.py \
	capture/test_pcap_writing.py cli/test_adapter.py cli/test_cli.py cli/test_start.py contract/test_ring.py \
	contract/test_ring_processes.py contract/test_settings.py endpoints/test_address.py filters/test_impairment.py \
	filters/test_scheduler.py linux/test_creation_faults.py linux/test_exec.py linux/test_neighbours.py \
	linux/test_ocproxy.py linux/test_opening_faults.py linux/test_wall_clock.py linux/test_wireshark.py \
	mesh/test_membership.py mesh/test_store.py net windows/test_driver.py wireguard/test_commands.py \
	wireguard/test_config.py wireguard/test_endpoint_names.py wireguard/test_journal.py wireguard/test_names.py \
	wireguard/test_noise.py wireguard/test_setting.py wireguard/test_signs.py)

# These compare the cores, so they run once, where both are.
COMPARING := tests/core/differential

# Tests take longer while coverage traces them, so these alone have to cover the portable files: in pure Python,
TRACED := $(addprefix tests/,contract core filters mesh net takeover cli/test_ps.py windows/adapter) \
	$(addprefix tests/endpoints/test_,kinds.py retry.py takeover.py) \
	$(addprefix tests/windows/test_,driver.py rings.py sockets.py) \
	$(addprefix tests/wireguard/test_,secrets.py state.py suspend.py tunnel.py)
# and with the native core the lines that only it reaches.
COVERING := $(wildcard tests/core/test_pump*.py tests/endpoints/test_*_pipe.py) \
	$(addprefix tests/,contract/test_pipe.py core/differential/test_descriptor.py wireguard/test_join.py)

WITHOUT = $(addprefix --ignore=,$(1))
COVERED := $(BIN)/coverage run -p -m pytest
PYTEST := $(BIN)/python -m pytest

test-pure: $(addprefix pure-,$(PARTS) covering once)

test-native: $(addprefix native-,$(PARTS) covering)

pure-%: run = $(PYTEST) $($*) $(call WITHOUT,$(APART) $(COMPARING) $(if $(filter portable,$*),$(TRACED)))
pure-covering: run = $(COVERED) $(portable) $(TRACED) $(call WITHOUT,$(COMPARING))
$(addprefix pure-,$(PARTS) covering): pure-%: .venv/test
	@THREEPIPE_PURE=1 $(run)

pure-once: .venv/test
	@THREEPIPE_PURE=1 $(PYTEST) $(APART)

# Some of their tests start programs with both cores.
pure-kernel pure-once: .venv/native

native-%: run = $(PYTEST) $($*) $(call WITHOUT,$(ONCE) $(if $(filter portable,$*),$(COVERING)))
native-covering: run = $(COVERED) $(portable) $(COVERING)
$(addprefix native-,$(PARTS) covering): native-%: .venv/test .venv/native
	@if $(HAS_NATIVE); then $(run); else echo "There is no native core to test."; fi

# The portable tests and the Windows tests on Windows' Python under Wine, and packets from this system through programs
# there. The first run sets it up, in a minute or two. Tests of the native core run again with it, if it can be built.
test-windows: .venv/test
	@$(BIN)/python tools/windows $(ARGS)

# The demo and the contract on another kernel, Debian's user-mode-linux. Status 77 if it is not available.
test-kernels: .venv/test .venv/native
	@$(BIN)/python tools/user_mode_linux.py $(ARGS)

# The portable tests of the library in pure Python, in about a minute.
test-fast: .venv/test
	@THREEPIPE_PURE=1 $(PYTEST) -q $(portable) $(call WITHOUT,$(COMPARING) tests/tools)

# The portable tests and the Windows tests with the native core.
native-windows: .venv/test
	@$(BIN)/python tools/windows --native $(ARGS)

# Measure threepipe beside its peers and the limit, as root, in ten minutes or more. To compare two checkouts:
# make bench ARGS="--against ../before".
bench: .venv/bench
	@$(call have,$(BENCH_TOOLS))
	@$(BIN)/python -m benchmarks $(ARGS)

# The ratios that matter most, in three minutes.
bench-quick:
	@$(MAKE) --no-print-directory bench ARGS="--quick $(ARGS)"

soak: tools .venv/native .venv/soak
	@$(call have,$(SOAK_TOOLS))
	@ls /lib/modules/*/kernel/net/ipv4/fou.ko* >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || \
		apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends linux-image-amd64 >/dev/null
	@$(BIN)/python -m benchmarks.build
	@$(BIN)/pytest -m soak --timeout=3600 -v

lint: .venv/test
	@$(BIN)/ruff check --output-format concise
	@$(BIN)/ruff format --check --quiet || { echo "run: ruff format"; exit 1; }
	@report=$$($(BIN)/lint-imports --no-logo) || { echo "$$report"; exit 1; }
	@$(BIN)/codespell

# Neither Python's stubs nor this project tell one BSD from another. Each system has a cache, as one replaces another's.
types: .venv/test
	@$(BIN)/mypy --platform linux --cache-dir .mypy_cache/linux
	@for system in win32 darwin freebsd; do \
		$(BIN)/mypy --platform $$system --cache-dir .mypy_cache/$$system src examples || exit 1; done

rust: .venv/test .venv/native
	@if $(HAS_NATIVE); then cd native && cargo fmt --all --check && \
		cargo clippy --quiet --workspace --all-targets --locked -- -D warnings && cargo test --quiet --workspace --locked; fi

lines: .venv/test
	@$(BIN)/python tools/count_lines.py --contract $(CONTRACT) --superpackets $(SUPERPACKETS)

# Renew locks/ with the newest versions that pyproject.toml allows.
lock: .venv/release
	@$(BIN)/python tools/lock.py

# Check the locked packages and crates against advisories, as far as the network gives them; status 77 names the rest.
audit: .venv/release $(BIN)/cargo-deny
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/audit.py

# Check .github/workflows by actionlint, which Go builds; it uses shellcheck if that is installed.
workflows: $(BIN)/actionlint
	@$(BIN)/actionlint

# Build the source archive and all wheels into dist/, and check them. Status 77 names the platforms that lack a wheel.
wheels: .venv/test .venv/release
	@$(BIN)/python tools/wheels.py

# Install each wheel that can run here into fresh environments, without compiler and network, and use it.
test-wheels: .venv/test
	@$(BIN)/python tools/try_wheels.py

# Build the site into build/site; a dead link fails. docs-serve shows it while it is written.
docs: .venv/docs
	@$(BIN)/python tools/build_site.py

# The same without npm: the live page may lack its Python. The builder's messages are shown if it fails.
site: .venv/docs
	@report=$$($(BIN)/python tools/build_site.py --no-fetch 2>&1) || { echo "$$report"; exit 1; }

# Show the site in headless Chromium, and use its live page. Status 77 if there is no Chromium.
test-docs: docs .venv/test
	@command -v chromium >/dev/null || { echo "There is no Chromium; run (Debian): apt-get install chromium"; exit 77; }
	@THREEPIPE_SITE=build/site $(BIN)/python -m pytest -q tests/site

docs-serve: .venv/docs
	@$(BIN)/python tools/build_site.py --serve

# Install the Debian packages that tests of the kernel need; without root, only name them.
tools: .venv/test
	@$(call have,$(KERNEL_TOOLS) $(HEADER_TOOLS))

have = missing=$$(for pair in $(1); do command -v $${pair%%:*} >/dev/null || echo $${pair\#*:}; done | sort -u); \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq -o DPkg::Lock::Timeout=300 update && apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $$missing >/dev/null; \
	elif [ -n "$$missing" ]; then echo "tools are missing; run: apt-get install" $$missing; exit 1; fi

# Everything from PyPI is pinned with hashes in locks/, and nothing but the bench's own peers is built from source.
.venv/run: pyproject.toml locks/build.txt locks/run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "threepipe needs Python 3.11 or newer; run: make PYTHON=python3.12")'
	@$(PYTHON) -m venv .venv || { echo "python3 -m venv failed; run (Debian): apt-get install python3-venv"; exit 1; }
	@$(LOCKED) locks/build.txt --only-binary :all:
	@$(LOCKED) locks/run.txt --only-binary :all:
	@$(PIP) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip uninstall -qq --yes threepipe-native # It was a package of its own once.
	@touch $@

.venv/bench: .venv/native locks/bench.txt
	@$(LOCKED) locks/bench.txt
	@touch $@

# The native core, if Rust can build it; otherwise the tool says why and succeeds.
.venv/native: .venv/run $(NATIVE) tools/build_native.py
	@$(BIN)/python tools/build_native.py
	@touch $@

.venv/soak: .venv/run locks/soak.txt
	@$(LOCKED) locks/soak.txt --only-binary :all:
	@touch $@

.venv/test: .venv/run locks/dev.txt
	@$(LOCKED) locks/dev.txt --only-binary :all:
	@touch $@

.venv/release: .venv/run locks/release.txt
	@$(LOCKED) locks/release.txt --only-binary :all:
	@touch $@

.venv/docs: .venv/run locks/docs.txt
	@$(LOCKED) locks/docs.txt --only-binary :all:
	@touch $@

# If it cannot be built, the audit says that it is missing.
$(BIN)/cargo-deny: | .venv/run
	@! command -v cargo >/dev/null || { echo "Building cargo-deny; it takes some minutes."; \
		cargo install --quiet --locked --root .venv cargo-deny@$(CARGO_DENY) || true; }

$(BIN)/actionlint: | .venv/run
	@command -v go >/dev/null || { echo "There is no Go, which builds actionlint; run (Debian): apt-get install golang"; exit 77; }
	@GOBIN="$(CURDIR)/$(BIN)" go install github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT)

# The bus of meshes: this system's, or that of Debian's package, which is unpacked here, as installed it would start a
# service; elsewhere Go builds it.
$(BIN)/nats-server: | .venv/run
	@if found=$$(command -v nats-server); then ln -s "$$found" $@; \
	elif command -v apt-get >/dev/null && mkdir -p build/nats && cd build/nats && rm -rf * && \
		apt-get -qq download nats-server 2>/dev/null && dpkg-deb -x nats-server_*.deb .; \
	then cp usr/sbin/nats-server "$(CURDIR)/$@"; \
	elif command -v go >/dev/null; \
	then GOBIN="$(CURDIR)/$(BIN)" go install github.com/nats-io/nats-server/v2@$(NATS_SERVER); \
	else echo "There is no nats-server; install it (https://nats.io), or Go, which builds it"; exit 77; fi

clean:
	rm -rf .venv .cache build .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache native/target src/threepipe/_native.abi3.so
