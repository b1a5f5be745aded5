"""Installing the extcap program into the folder of Wireshark for this user's own extcap programs."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from threepipe.errors import EndpointError, InvalidSetting

__all__ = ["extcap_folder", "install_extcap"]

_PROGRAM = "threepipe-extcap"
_WIRESHARKS = ("tshark", "wireshark")
_SECONDS = 60.0  # For the first start of Wireshark.
_FOLDER = "Personal Extcap path"
_CONFIGURATION = "Personal configuration"


def install_extcap() -> Path:
    """Link the extcap program into the folder of this user, and return the path of the link.

    An older link is replaced. Raises `InvalidSetting` if Wireshark or the program is missing, and `EndpointError` if
    the system refuses, or another file has the name.
    """
    link = extcap_folder() / _program().name
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(_program())
    except OSError as error:
        advice = "; remove it" if isinstance(error, FileExistsError) else ""
        raise EndpointError(error.errno, f"{link}: {error.strerror}{advice}") from None
    return link


def extcap_folder() -> Path:
    """Return the folder of the user's own extcap programs, as reported by Wireshark. Raises `InvalidSetting`.

    Wireshark 4.0 reports only the folder for all users, but also uses the folder extcap of the user's configuration.
    """
    wireshark = next(filter(None, map(shutil.which, _WIRESHARKS)), None)
    if wireshark is None:
        raise InvalidSetting("neither tshark nor wireshark is in the PATH; install one, or add its folder to the PATH")
    done = subprocess.run([wireshark, "-G", "folders"], capture_output=True, timeout=_SECONDS)
    told = dict(line.split(":", 1) for line in os.fsdecode(done.stdout).splitlines() if ":" in line)
    folders = {name.strip(): folder.strip() for name, folder in told.items()}
    if folder := folders.get(_FOLDER):
        return Path(folder)
    if folder := folders.get(_CONFIGURATION):
        return Path(folder, "extcap")
    raise InvalidSetting(f"{wireshark} -G folders names no folder for extcap; link {_PROGRAM} into it yourself")


def _program() -> Path:
    """Return the path of the extcap program: beside this program, in Python's folder of scripts, or in the PATH."""
    name = _PROGRAM + Path(sysconfig.get_config_var("EXE") or "").name
    beside = [Path(sys.argv[0]).absolute().parent, Path(sysconfig.get_path("scripts"))]
    found = [folder / name for folder in beside if (folder / name).is_file()]
    if found:
        return found[0]
    if path := shutil.which(_PROGRAM):
        return Path(path)
    raise InvalidSetting(f"{_PROGRAM} is neither beside this program nor in the PATH; install threepipe with pip")
