"""Networks of one's own to play in, as the demonstration does; also without being root."""

import sys

assert sys.platform == "linux"

import os
from pathlib import Path

from threepipe.errors import PermissionDenied
from threepipe.platforms.linux.namespace import CLONE_NEWUSER, Namespace, unshare

__all__ = ["enter_user_namespace", "private_networks"]


def private_networks() -> tuple[str, tuple[Namespace, Namespace]]:
    """Two fresh namespaces to play in, and what made them possible: "root" or "user namespace".

    An ordinary user's process moves into a user namespace; it must have one thread. Raises
    `PermissionDenied` where neither is allowed.
    """
    privilege = "root"
    if os.geteuid():
        enter_user_namespace()
        privilege = "user namespace"
    first = Namespace.fresh()
    try:
        return privilege, (first, Namespace.fresh())
    except BaseException:
        first.close()
        raise


def enter_user_namespace() -> None:
    """Make this process root of a new user namespace, so that it may make network namespaces.

    For a process of one thread. Raises `PermissionDenied` where the system forbids it.
    """
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise PermissionDenied(
            error.errno, "this system lets nobody be root of a user namespace: run as root"
        ) from None
