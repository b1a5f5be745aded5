"""Run the demo and the contract's tests on another Linux kernel: Debian's user-mode-linux, a program.

    python tools/user_mode_linux.py [COMMAND ...]

It starts in two seconds, on this file system and with a network of its own. With an argument it runs that line of sh
as root in place of the tests. The exit status is that of the line, or 77 if something is not available on this machine;
a last line says what.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import debian

NOT_AVAILABLE = 77  # The usual status of a tool that ran no test.
KERNEL = "linux.uml"
TOOLS = {KERNEL: "user-mode-linux", "modprobe": "kmod", "ip": "iproute2"}
"""Tool -> Debian package."""
MODULES = Path("/usr/lib/uml/modules")
ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": "/run", "PYTHONDONTWRITEBYTECODE": "1"}
"""The environment of the first process, which the kernel takes from its command line."""
TIMEOUT = 600.0  # Seconds, for a kernel that does not end.

CHECKS = (
    "{python} -m threepipe demo && "
    "{python} -m pytest -q -p no:cacheprovider tests/contract/test_system_adapter.py tests/contract/test_conformance.py"
    " tests/linux/test_creation_faults.py::test_create_with_a_template_without_a_free_number_raises"
)

INIT = """\
#!/bin/sh
: >{folder}/started
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
modprobe -a -d {folder} tun ipv6 veth
mkdir -p /dev/net
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up
cd {root}
{{ ( {line} ) </dev/null; echo $? >{folder}/status; }} 2>&1 | cat  # Not the terminal that the console is.
sync
{python} -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'
"""
"""The first process. The number is LINUX_REBOOT_CMD_POWER_OFF of <linux/reboot.h>."""


def main(arguments: list[str]) -> int:
    if os.geteuid():
        return not_available("the kernel has this user's rights to files, and the tests need root's")
    if reason := debian.obstacle(TOOLS):
        return not_available(reason)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "lib").mkdir()
        (folder / "lib" / "modules").symlink_to(MODULES)  # Where modprobe looks.
        init = folder / "init"
        root, python = shlex.quote(str(ROOT)), shlex.quote(sys.executable)
        init.write_text(
            INIT.format(
                folder=folder, root=root, line=" ".join(arguments) or CHECKS.format(python=python), python=python
            )
        )
        init.chmod(0o700)
        options = ["rootfstype=hostfs", "rw", f"init={init}", "mem=1G", "con=null", "con0=null,fd:1", "quiet"]
        settings = [f"{name}={value}" for name, value in SETTINGS.items()]
        subprocess.run([KERNEL, *options, *settings], stdin=subprocess.DEVNULL, timeout=TIMEOUT, check=False)
        if not (folder / "started").exists():
            return not_available("the kernel did not start here")
        status = folder / "status"
        return int(status.read_text()) if status.exists() else 1


def not_available(reason: str) -> int:
    print(f"NOTHING WAS RUN ON USER-MODE-LINUX: {reason}", file=sys.stderr)
    return NOT_AVAILABLE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
