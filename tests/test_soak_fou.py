"""`udp:` with Linux's own Foo-over-UDP at the other end, in a kernel of Debian's that is emulated for it.

Where this machine's kernel has no such module, and nobody's has to be given one: any installed kernel does.
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

REPOSITORY = Path(__file__).parents[1]
PROGRAM = REPOSITORY / "tests" / "programs" / "fou.py"
MODULES = ("fou", "fou6", "ipip", "sit", "ip6_tunnel", "veth", "tun", "9p", "9pnet_virtio", "overlay")
TOOLS = {
    "vng": "virtme-ng, of PyPI",
    f"qemu-system-{platform.machine()}": "qemu-system-x86",
    "busybox": "busybox-static",
    "modprobe": "kmod",
    "ethtool": "ethtool",
    "ping": "iputils-ping",
    "nstat": "iproute2",
}
SECONDS = 1200

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(SECONDS + 60)]


def find(tool: str) -> str | None:
    """Its path; what came by pip lies beside Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(tool, path=os.pathsep.join([beside, os.environ["PATH"], "/usr/sbin", "/sbin"]))


def kernels() -> list[Path]:
    """Installed kernels with all it takes, the newest last; those for clouds lack 9p, by which files are shared."""
    found = []
    for image in Path("/boot").glob("vmlinuz-*"):
        folder = Path("/lib/modules") / image.name.removeprefix("vmlinuz-")
        listed = [folder / name for name in ("modules.dep", "modules.builtin")]
        text = "\n".join(file.read_text() for file in listed if file.exists())
        if os.access(image, os.R_OK) and all(f"/{module}.ko" in text for module in MODULES):
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
    return printed


@pytest.mark.parametrize("pure", ["1", ""], ids=["pure", "native"])
def test_foo_over_udp_at_the_other_end(pure: str, tmp_path: Path) -> None:
    if not pure:
        pytest.importorskip("threepipe_native", reason="threepipe_native is not installed")
    if missing := [package for tool, package in TOOLS.items() if not find(tool)]:
        pytest.skip(f"missing, to emulate a kernel that has Foo-over-UDP: {', '.join(missing)}")
    if not (images := kernels()):
        pytest.skip("no kernel in /boot has Foo-over-UDP and 9p; install linux-image-amd64")

    command = ["env", f"THREEPIPE_PURE={pure}", sys.executable, "-W", "error", str(PROGRAM)]
    report = json.loads(emulate(images[-1], command, tmp_path).splitlines()[-1])

    assert report["native"] is not bool(pure)
    assert len(report["seen"]) == 6
    for sight in report["seen"]:
        check(sight)


def check(sight: dict[str, Any]) -> None:
    """What was seen of one tunnel."""
    assert sight["pings"] == sight["streams"] == [True, True], sight
    assert sight["faults"] == {}, sight
    to_kernel, to_pipe = sight["end"]["towards_right"], sight["end"]["towards_left"]
    # The kernel sent superpackets, and cut them on its way out.
    assert sight["link"]["sent"] < to_pipe["received_packets"] / 2, sight
    if sight["kind"] == "udp":
        # Runs of datagrams were taken apart again, one packet each.
        assert sight["link"]["received"] == to_kernel["sent_packets"], sight
    else:
        assert sight["link"]["received"] < to_kernel["sent_packets"] / 2, sight
