"""A machine of its own: Debian with threepipe installed, booted by its systemd on Debian's user-mode-linux."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["Machine"]

ROOT = Path(__file__).parents[2]
KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
DRIVERS = ["kernel/drivers/net/tun.ko", "kernel/net/ipv6/ipv6.ko"]
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,iproute2,iputils-ping,procps,kmod"
PYTHON = "3.11"
"""The version of Python in Debian 12."""
SECONDS = 300.0

INSTALL = """
set -e
python3 -m venv /opt/threepipe
/opt/threepipe/bin/pip -q install --no-index --find-links /wheels 'threepipe[cli,wireguard]'
ln -s /opt/threepipe/bin/threepipe /usr/local/bin/threepipe
cp /opt/threepipe/lib/systemd/system/threepipe-* /etc/systemd/system/
mkdir -p /etc/threepipe /etc/wireguard
groupadd vpn
useradd -m -G vpn ann
useradd -m bob
systemctl -q enable try.service
"""
TRY = """
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'sh /try.sh >/output 2>&1; echo END >>/output; exec systemctl -f -f poweroff'
[Install]
WantedBy=multi-user.target
"""


class Machine:
    """A folder with the machine's files, which stay from one start to the next."""

    def __init__(self, folder: Path) -> None:
        for tool, package in (("mmdebstrap", "mmdebstrap"), (KERNEL, "user-mode-linux")):
            if not shutil.which(tool):
                pytest.skip(f"{tool} is missing; install {package}")
        self._root = folder / "root"
        self._log = folder / "log"
        made = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(self._root)]
        subprocess.run([*made, "http://deb.debian.org/debian"], check=True, timeout=SECONDS)
        self._fetch_wheels(self._root / "wheels")
        for module in MODULES.iterdir():  # Of the only version.
            shutil.copytree(module, self._root / "lib" / "modules" / module.name)
        (self._root / "etc" / "systemd" / "system" / "try.service").write_text(TRY)
        subprocess.run(["chroot", str(self._root), "sh", "-c", INSTALL], check=True, timeout=SECONDS)

    @staticmethod
    def _fetch_wheels(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--quiet"]
        ours = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
        theirs = ["download", "--no-deps", "--only-binary", ":all:", "--python-version", PYTHON, "--dest", str(folder)]
        subprocess.run([*pip, *ours], check=True, timeout=SECONDS)
        subprocess.run([*pip, *theirs, "--requirement", str(ROOT / "locks" / "run.txt")], check=True, timeout=SECONDS)

    def run(self, script: str) -> str:
        """Boot, run the shell script once all units have started, and switch off; return what the script printed."""
        (self._root / "try.sh").write_text(script)
        output = self._root / "output"
        output.write_text("")
        words = [KERNEL, "rootfstype=hostfs", f"rootflags={self._root}", "rw", "init=/lib/systemd/systemd", "mem=1G"]
        words += ["con=null", "con0=null,fd:1", "systemd.default_standard_output=journal"]
        with self._log.open("w") as log:
            machine = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            try:
                machine.wait(SECONDS)
            except BaseException:
                os.killpg(machine.pid, signal.SIGKILL)
                raise
        printed = output.read_text()
        assert printed.endswith("END\n"), printed + self._log.read_text(errors="replace")
        return printed.removesuffix("END\n")
