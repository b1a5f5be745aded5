"""Advice on missing privilege, for ordinary users and for root that is not allowed all, as in a container."""

import sys

assert sys.platform == "linux"

import errno
import os
import stat

from threepipe.errors import PermissionDenied

__all__ = ["become", "refused_node"]


def become(capability: str) -> str:
    """Return how this process can get a capability (capabilities(7)), such as CAP_NET_ADMIN."""
    if os.geteuid():
        return "run as root"
    return f"give this root the capability (a container: --cap-add={capability.removeprefix('CAP_')})"


def refused_node(path: str, code: int) -> PermissionDenied:
    """Return the error with the reason why a device node could not be opened with EACCES or EPERM.

    EACCES is for the mode of the file and for mounts without devices, EPERM for the device lists of containers
    (control groups); a security module gives either.
    """
    return PermissionDenied(code, _reason(path, code))


def _reason(path: str, code: int) -> str:
    if _is_without_devices(path):
        return (
            f"{path} is on a file system mounted without devices (nodev); remount it with the option dev, or in a"
            f" container pass the device (--device {path})"
        )
    if code == errno.EACCES and not _mode_allows(path):
        if os.geteuid():
            return f"this user may not open {path}; run as root, or have root allow it (chmod 0666 {path})"
        return (
            f"the mode of {path} keeps this root out, which has no CAP_DAC_OVERRIDE over it, as in a container or user"
            f" namespace; have root of the host allow it (chmod 0666 {path})"
        )
    return (
        f"something other than its mode keeps this process from {path}; in a container pass the device"
        f" (--device {path}), else see what SELinux or AppArmor logs"
    )


def _is_without_devices(path: str) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_NODEV)
    except OSError:
        return False


def _mode_allows(path: str) -> bool:
    """Return True if the mode lets this process read and write, without any capability."""
    try:
        found = os.stat(path)
    except OSError:
        return False  # It may not even look into the folder.
    if found.st_uid == os.geteuid():
        wanted = stat.S_IRUSR | stat.S_IWUSR
    elif found.st_gid in (os.getegid(), *os.getgroups()):
        wanted = stat.S_IRGRP | stat.S_IWGRP
    else:
        wanted = stat.S_IROTH | stat.S_IWOTH
    return found.st_mode & wanted == wanted
