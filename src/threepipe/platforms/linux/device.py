"""Adapters on Linux: a TUN descriptor, and the interface that lives while it is open.

Brings together the TUN driver, netlink and namespaces; none of them knows another.
"""

import sys

assert sys.platform == "linux"

import grp
import io
import os
import pwd
import socket
from collections.abc import Callable

from threepipe.device import AdapterInfo
from threepipe.errors import AdapterGone, InvalidSetting
from threepipe.platforms.linux import netlink, tun
from threepipe.platforms.linux.namespace import Namespace
from threepipe.platforms.linux.port import LinuxPort
from threepipe.settings import AdapterSettings
from threepipe.settings import Namespace as NamespaceSetting

__all__ = ["LinuxDevice", "adapters", "create", "open_existing"]

_MAX_ID = 0xFFFFFFFE  # 0xFFFFFFFF says "nobody" to the kernel.


def create(settings: AdapterSettings) -> "LinuxDevice":
    """Make the interface and set it up, or leave nothing."""
    owner = _identity("owner", settings.owner, lambda name: pwd.getpwnam(name).pw_uid)
    group = _identity("group", settings.group, lambda name: grp.getgrnam(name).gr_gid)
    if settings.persistent and owner is None and group is None:
        owner = os.geteuid()  # The kernel lets everybody open an interface that is nobody's.

    def make(file: io.FileIO) -> tuple[str, int, tun.Offload]:
        name, offload = tun.attach(file, settings.name, create=True, offload=settings.offload)
        index = socket.if_nametoindex(name)
        netlink.configure(index, settings)
        if owner is not None:
            tun.control(file, tun.TUNSETOWNER, owner)
        if group is not None:
            tun.control(file, tun.TUNSETGROUP, group)
        if settings.persistent:  # Last: before it, closing the descriptor undoes everything.
            tun.control(file, tun.TUNSETPERSIST, 1)
        return name, index, offload

    return _device(settings.netns, make)


def open_existing(name: str, netns: NamespaceSetting | None, offload: bool) -> "LinuxDevice":
    """Attach to a persistent interface."""

    def take(file: io.FileIO) -> tuple[str, int, tun.Offload]:
        index = netlink.find(name)  # First, for the driver would make an interface that is not there.
        name_there, superpackets = tun.attach(file, name, create=False, offload=offload)
        return name_there, index, superpackets

    return _device(netns, take)


def adapters(netns: NamespaceSetting | None) -> list[AdapterInfo]:
    namespace = Namespace.find(netns)
    try:
        return namespace.run(netlink.describe_all)
    finally:
        namespace.close()


class LinuxDevice:
    """One attached interface."""

    def __init__(self, name: str, index: int, file: io.FileIO, namespace: Namespace, offload: tun.Offload) -> None:
        self.name = name
        self.index = index
        self._file = file
        self._namespace = namespace
        self._offload = offload

    def info(self) -> AdapterInfo:
        return self._namespace.run(lambda: netlink.describe(self.index, self.name))

    def set_mtu(self, mtu: int) -> None:
        self._namespace.run(lambda: netlink.set_mtu(self.index, self.name, mtu))

    def start(self, capacity: int) -> LinuxPort:
        def put_carrier() -> None:
            tun.discard(self._file)  # What waited for an earlier session is not for this one.
            tun.set_carrier(self._file, up=True)

        self._namespace.run(lambda: netlink.link_up(self.index, self.name, capacity, put_carrier))
        return LinuxPort([self._file], self._file, self.name, self._offload, self._take_link_down)

    def _take_link_down(self) -> None:
        try:
            tun.set_carrier(self._file, up=False)
        except AdapterGone:
            pass  # Then the link went with it.

    def unpersist(self) -> None:
        try:
            tun.control(self._file, tun.TUNSETPERSIST, 0)
        except AdapterGone:
            pass  # Then it is as wanted.

    def close(self) -> None:
        if not self._file.closed:
            try:
                tun.set_offload(self._file, offload=False)
            except AdapterGone:
                pass  # Then nobody will open it.
            self._file.close()
        self._namespace.close()


def _device(netns: NamespaceSetting | None, attach: Callable[[io.FileIO], tuple[str, int, tun.Offload]]) -> LinuxDevice:
    """Open the driver inside the namespace and `attach` there; on an error nothing stays open."""
    namespace = Namespace.find(netns)
    file: io.FileIO | None = None

    def inside() -> tuple[str, int, tun.Offload]:
        nonlocal file
        file = tun.open_tun()
        return attach(file)

    try:
        name, index, offload = namespace.run(inside)
        assert file is not None
        return LinuxDevice(name, index, file, namespace, offload)
    except BaseException:
        if file is not None:
            file.close()
        namespace.close()
        raise


def _identity(what: str, who: str | int | None, look_up: Callable[[str], int]) -> int | None:
    """A user's or group's id, from a name or the id itself. Raises `InvalidSetting`."""
    if who is None:
        return None
    try:
        number = int(who) if isinstance(who, int) or who.isdecimal() else look_up(who)
    except KeyError:
        raise InvalidSetting(f"{what} {who!r} is not known on this machine; give a name or a numeric id") from None
    if not 0 <= number <= _MAX_ID:
        raise InvalidSetting(f"{what} {who!r}: an id is a number from 0 to {_MAX_ID}")
    return number
