"""Programs of Debian's packages that a tool needs."""

import os
import shutil
import subprocess
from collections.abc import Mapping


def obstacle(tools: Mapping[str, str]) -> str:
    """Install the packages of missing programs. Return what to do if that is not possible, or an empty string.

    `tools` names the package of each program. Only root can install them.
    """
    missing = sorted({package for tool, package in tools.items() if not shutil.which(tool)})
    if not missing:
        return ""
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    install = [*apt, "install", "-y", "--no-install-recommends", *missing]
    quiet = subprocess.DEVNULL
    if os.geteuid() == 0 and shutil.which("apt-get") and not subprocess.call([*apt, "update"], stdout=quiet):
        subprocess.call(install, stdout=quiet)
    still = sorted({package for tool, package in tools.items() if not shutil.which(tool)})
    return f"tools are missing; run: apt-get install {' '.join(still)}" if still else ""
