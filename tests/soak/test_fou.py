"""`udp:` with Linux's own Foo-over-UDP at the other end, in an emulated kernel of Debian.

The running kernel needs neither that nor modules or links: any kernel in /boot with them will do.
"""

import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
PROGRAM = REPOSITORY / "tests" / "support" / "programs" / "fou.py"
MODULES = ("tun", "veth", "fou", "fou6", "ipip", "sit", "ip6_tunnel")
SHARING = ("9p", "9pnet_virtio", "overlay")
"""Modules by which an emulated kernel reads the files of this machine; cloud kernels lack them."""
TOOLS = {
    "vng": "virtme-ng, of PyPI",
    f"qemu-system-{platform.machine()}": "qemu-system-x86",
    "busybox": "busybox-static",
    "modprobe": "kmod",
    "ethtool": "ethtool",
    "ping": "iputils-ping",
    "ip": "iproute2",
}
SECONDS = 1200

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(SECONDS + 60)]


def find(tool: str) -> str | None:
    """Return the path of `tool`; programs installed by pip are beside Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(tool, path=os.pathsep.join([beside, os.environ["PATH"], "/usr/sbin", "/sbin"]))


def kernels() -> list[Path]:
    """Return the installed kernels that have all required modules, the newest last."""
    found = []
    for image in Path("/boot").glob("vmlinuz-*"):
        folder = Path("/lib/modules") / image.name.removeprefix("vmlinuz-")
        listed = [folder / name for name in ("modules.dep", "modules.builtin")]
        text = "\n".join(file.read_text() for file in listed if file.exists())
        if os.access(image, os.R_OK) and all(f"/{module}.ko" in text for module in MODULES + SHARING):
            found.append(image)
    return sorted(found, key=lambda image: image.stat().st_mtime)


def emulate(kernel: Path, command: list[str], folder: Path) -> str:
    """Run `command` in `kernel`, with read-only access to the files of this machine; return its output."""
    # The guest covers some folders, such as /var/tmp, with its own; folders named here stay visible.
    shown = {REPOSITORY, Path(sys.prefix)} if sys.prefix != sys.base_prefix else {REPOSITORY}
    start = [find("vng") or "vng", "--run", str(kernel), "--disable-kvm", "--user", "root", "--memory", "2G"]
    start += ["--cpus", "2", *[f"--rodir={path}" for path in sorted(shown)], "--", shlex.join(command)]
    machine = subprocess.Popen(
        start,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Then the emulator can be killed with its parent.
        env=os.environ | {"TMPDIR": str(folder)},
        cwd=REPOSITORY,
    )
    with machine:
        try:
            printed, complaint = machine.communicate(timeout=SECONDS)
        finally:
            if machine.poll() is None:
                os.killpg(machine.pid, signal.SIGKILL)
    assert machine.returncode == 0, printed + complaint
    assert "Traceback" not in complaint, complaint
    return printed


@pytest.mark.parametrize("pure", ["1", ""], ids=["pure", "native"])
def test_udp_endpoints_exchange_streams_with_foo_over_udp(pure: str, tmp_path: Path) -> None:
    if not pure:
        pytest.importorskip("threepipe._native", reason="there is no native core")
    if missing := [package for tool, package in TOOLS.items() if not find(tool)]:
        pytest.skip(f"missing, to emulate a kernel that has Foo-over-UDP: {', '.join(missing)}")
    if not (images := kernels()):
        pytest.skip("no kernel in /boot has Foo-over-UDP and 9p; install linux-image-amd64")

    program = [f"THREEPIPE_PURE={pure}", sys.executable, "-W", "error", str(PROGRAM)]
    command = ["sh", "-ec", f"modprobe --all {' '.join(MODULES)}; exec env {shlex.join(program)}"]
    report = json.loads(emulate(images[-1], command, tmp_path).splitlines()[-1])

    assert report["native"] is not bool(pure)
    assert len(report["seen"]) == 6
    for sight in report["seen"]:
        check(sight)


def check(sight: dict[str, Any]) -> None:
    """Check the observations of one tunnel."""
    assert sight["pings"] == sight["streams"] == [True, True], sight
    assert sight["faults"] == {}, sight
    least = sight["bytes"] // 1472  # The packets of a stream without superpackets.
    # Superpackets that the kernel's link sent were segmented on their way out.
    assert sight["link"]["sent"] < least, sight
    if sight["kind"] == "udp":
        # Runs of datagrams arrived as single packets.
        assert sight["link"]["received"] >= least, sight
    else:
        # Single datagrams were merged into superpackets.
        assert sight["link"]["received"] < least, sight
