"""`udp:` with Linux's own Foo-over-UDP at the other end, in a kernel of Debian's that is emulated for it.

The kernel that runs here need not have it, nor be given modules or links: any other in /boot will do.
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
"""Modules by which an emulated kernel gets at the files of this machine; those made for clouds lack them."""
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
    """Its path; what came by pip lies beside Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(tool, path=os.pathsep.join([beside, os.environ["PATH"], "/usr/sbin", "/sbin"]))


def kernels() -> list[Path]:
    """Installed kernels that have all it takes, the newest last."""
    found = []
    for image in Path("/boot").glob("vmlinuz-*"):
        folder = Path("/lib/modules") / image.name.removeprefix("vmlinuz-")
        listed = [folder / name for name in ("modules.dep", "modules.builtin")]
        text = "\n".join(file.read_text() for file in listed if file.exists())
        if os.access(image, os.R_OK) and all(f"/{module}.ko" in text for module in MODULES + SHARING):
            found.append(image)
    return sorted(found, key=lambda image: image.stat().st_mtime)


def emulate(kernel: Path, command: list[str], folder: Path) -> str:
    """What `command` printed in `kernel`, which sees the files of this machine and can change none."""
    # A folder that the guest would cover with one of its own, such as /var/tmp, is seen if it is named.
    shown = {REPOSITORY, Path(sys.prefix)} if sys.prefix != sys.base_prefix else {REPOSITORY}
    start = [find("vng") or "vng", "--run", str(kernel), "--disable-kvm", "--user", "root", "--memory", "2G"]
    start += ["--cpus", "2", *[f"--rodir={path}" for path in sorted(shown)], "--", shlex.join(command)]
    machine = subprocess.Popen(
        start,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # So that the emulator can be ended with what started it.
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
def test_foo_over_udp_at_the_other_end(pure: str, tmp_path: Path) -> None:
    if not pure:
        pytest.importorskip("threepipe_native", reason="threepipe_native is not installed")
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
    """What was seen of one tunnel."""
    assert sight["pings"] == sight["streams"] == [True, True], sight
    assert sight["faults"] == {}, sight
    least = sight["bytes"] // 1472  # Packets that a stream takes, unless some are superpackets.
    # Those that the kernel's link sent were cut on their way out.
    assert sight["link"]["sent"] < least, sight
    if sight["kind"] == "udp":
        # Runs of datagrams came as the packets that they are.
        assert sight["link"]["received"] >= least, sight
    else:
        # Datagrams that came one by one were made superpackets.
        assert sight["link"]["received"] < least, sight
