"""Debian's Python for aarch64, run by qemu-user.

Nothing is installed for it: mmdebstrap unpacks it into a folder. System calls are those of this machine's kernel, so it
can make real adapters.
"""

import platform
import shutil
import subprocess
from pathlib import Path

import debian

QEMU = "qemu-aarch64"


class NotAvailable(Exception):
    """This machine lacks something; the text says what."""


def emulated_python(folder: Path) -> str:
    """Unpack a Python into a folder, and return the path of a program that runs it. Raises `NotAvailable`."""
    if reason := debian.obstacle({QEMU: "qemu-user", "mmdebstrap": "mmdebstrap"}):
        raise NotAvailable(reason)
    system = platform.freedesktop_os_release()
    if system["ID"] != "debian":
        raise NotAvailable("this system is not Debian, which has a Python for aarch64")
    # base-files has the links in place of /lib, where programs look for the C library.
    packages = ["--variant=extract", "--include=base-files,python3-venv", "--architectures=arm64"]
    command = ["mmdebstrap", "--quiet", *packages, system["VERSION_CODENAME"], str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotAvailable(f"mmdebstrap could not unpack Python: {done.stderr.strip()}")
    # A script, since the kernel starts no program of another processor. Python takes the script for its own executable:
    # virtual environments link to it, and Python starts it for other processes of its own.
    program = folder / "usr" / "bin" / "emulated-python"
    qemu, real = shutil.which(QEMU), folder / "usr" / "bin" / "python3"
    program.write_text(f'#!/bin/sh\nexec "{qemu}" -L "{folder}" -0 "$0" "{real}" "$@"\n')
    program.chmod(0o755)
    return str(program)
