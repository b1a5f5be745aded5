"""The user and the capabilities of this process, given up for those of a program that it becomes by exec.

The constants are those of <linux/prctl.h> and <linux/capability.h>; a test compares them with the headers.
"""

import sys

assert sys.platform == "linux"

import ctypes
import errno
import os
import pwd
import struct
from collections.abc import Mapping
from typing import NamedTuple

from threepipe.errors import InvalidSetting, PermissionDenied
from threepipe.platforms.linux.privilege import become as advice

__all__ = ["User", "become", "find_user"]

PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_NET_ADMIN = 12
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_MAX_ID = 0xFFFFFFFE  # To the kernel 0xFFFFFFFF means "unchanged".


class User(NamedTuple):
    """A user that a program runs as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: Mapping[str, str]
    """The variables that tell programs who they are."""


def find_user(name: str) -> User:
    """Return the user of that name or id, with all groups. Raise `InvalidSetting` if there is none.

    An id without an entry in the system's database has the group of the same number, and no variables.
    """
    number = int(name) if name.isdecimal() and len(name) <= len(str(_MAX_ID)) else None
    try:
        entry = pwd.getpwnam(name) if number is None else pwd.getpwuid(number)
    except (KeyError, OverflowError):
        if number is None or number > _MAX_ID:
            text = f"user {name!r} does not exist on this machine; give a name or a numeric id"
            raise InvalidSetting(text) from None
        return User(name, number, number, (), {})
    environment = {"HOME": entry.pw_dir, "LOGNAME": entry.pw_name, "USER": entry.pw_name}
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(groups), environment)


def become(user: User | None, *, keep_net_admin: bool) -> None:
    """Turn this process into `user` (None: stay) without capabilities; those of the user's programs stay away too.

    With `keep_net_admin`, CAP_NET_ADMIN remains, and programs that this one becomes have it (an ambient capability,
    see capabilities(7)). A changed user gets no more privileges by set-user-ID programs (no_new_privs). For a process
    with one thread. Raises `PermissionDenied`, with the process perhaps half-changed: end it then.
    """
    if user is not None:
        _change(user, keep_net_admin)
    if user is not None or keep_net_admin:
        _keep_only((1 << CAP_NET_ADMIN) if keep_net_admin else 0)
    if keep_net_admin:
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN)


def _change(user: User, keep: bool) -> None:
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    if keep:
        _prctl(PR_SET_KEEPCAPS, 1)  # Until the next exec; otherwise, leaving uid 0 clears all capabilities.
    try:
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    except OSError as error:
        if error.errno == errno.EINVAL:
            text = f"user {user.name} does not exist in this user namespace; give an id of /proc/self/uid_map"
        else:
            text = f"changing to user {user.name} needs CAP_SETUID and CAP_SETGID; {advice('CAP_SETUID')}"
        raise PermissionDenied(error.errno, text) from None


def _keep_only(capabilities: int) -> None:
    """Have these capabilities, a set of bits, and no others: permitted, effective and inheritable."""
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    header = struct.pack("Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    _check(_libc().capset(header, struct.pack("6I", low, low, low, high, high, high)))


def _prctl(option: int, *arguments: int) -> None:
    padded = [*arguments, 0, 0, 0, 0][:4]
    _check(_libc().prctl(option, *map(ctypes.c_ulong, padded)))


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        text = f"keeping CAP_NET_ADMIN was refused: {os.strerror(code)}; {advice('CAP_NET_ADMIN')}"
        raise PermissionDenied(code, text)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
