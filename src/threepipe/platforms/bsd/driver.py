"""The interface of each system's TUN driver, and common parts of drivers with device nodes. Knows no sessions."""

import errno
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from threepipe.errors import (
    AdapterBusy,
    AdapterError,
    AdapterNotFound,
    AdapterUnavailable,
    InvalidSetting,
    NameTaken,
    PermissionDenied,
)
from threepipe.platforms.bsd.interface import Interfaces, explained
from threepipe.platforms.bsd.kind import FIONBIO, ON, Kind
from threepipe.platforms.bsd.port import BsdPort
from threepipe.platforms.bsd.system import System
from threepipe.settings import Address

__all__ = ["Driver", "Opened", "node", "numbers", "open_node", "own_name", "set_header"]

_LAST_UNIT = 0x7FFF  # IF_MAXUNIT of FreeBSD's <net/if.h>.


class Opened(NamedTuple):
    """An open device and its interface."""

    descriptor: int
    name: str
    removes: bool
    """True if the interface stays when the descriptor is closed, so that it has to be destroyed."""


class Driver(Protocol):
    """A system's TUN driver."""

    @property
    def kind(self) -> Kind:
        """The system's numbers."""

    @property
    def persists(self) -> bool:
        """True if an interface keeps its settings when no program has it."""

    @property
    def port(self) -> type[BsdPort]:
        """The packet path without superpackets."""

    def create(self, system: System, interfaces: Interfaces, name: str, taken: set[str]) -> Opened:
        """Make an interface, down, that no program had before; `taken` are the names of all interfaces.

        A template stands for the first free name. Packets have the header of four bytes, and reading does not block.
        Raises `NameTaken`, `InvalidSetting`, `PermissionDenied` or `AdapterUnavailable`.
        """

    def attach(self, system: System, name: str) -> Opened:
        """Open the interface `name`, which exists. Raises `AdapterBusy`, `AdapterNotFound` or as `create` does."""

    def set_offload(self, system: System, descriptor: int) -> bool:
        """Have superpackets pass, with a `tun_hdr` before each packet; return False if the system has none."""

    def name_of(self, system: System, opened: Opened) -> str:
        """Return the interface's present name; after its end, the first one."""

    def before_up(self, interfaces: Interfaces, name: str, addresses: Iterable[Address]) -> None:
        """Prepare the interface, which is down, for being set up: its `addresses` of IPv6 are to be usable at once."""

    def make_room(self, system: System, descriptor: int, capacity: int, mtu: int) -> None:
        """Have about `capacity` bytes of packets of up to `mtu` bytes wait for the program, where the system can."""


def own_name(kind: Kind, name: str) -> bool:
    """Return True if the driver gives its interfaces such names."""
    return bool(re.fullmatch(rf"{kind.driver}(0|[1-9][0-9]*)", name))


def numbers(kind: Kind, name: str, taken: set[str]) -> Iterator[int]:
    """Yield the numbers of interfaces to try for `name`, in order: for a template those that are free.

    Where interfaces have the driver's names alone, any template stands for the driver's own. Raises `InvalidSetting`
    for other names, and `NameTaken`.
    """
    if "%d" in name:
        free = (number for number in itertools.count() if f"{kind.driver}{number}" not in taken)
        return itertools.takewhile(lambda number: number <= _LAST_UNIT, free)
    if not own_name(kind, name):
        raise InvalidSetting(
            f"adapter name {name!r}: {kind.name} names adapters {kind.driver}0, {kind.driver}1 and so on; give such a"
            f" name, or a template like {kind.driver}%d"
        )
    if name in taken:
        raise taken_name(kind, name)
    return iter([int(name.removeprefix(kind.driver))])


def taken_name(kind: Kind, name: str) -> NameTaken:
    """Return the error for the name of an interface that exists."""
    text = f"an interface named {name} exists; choose another name, or a template like {kind.driver}%d"
    return NameTaken(errno.EBUSY, text)


def open_node(system: System, kind: Kind, tries: Iterable[str]) -> tuple[int, str]:
    """Open the first device that no program has, and return its descriptor, which does not block, and its name.

    `tries` are names in /dev. Raises `NameTaken` if all are in use, `PermissionDenied` or `AdapterUnavailable`.
    """
    last = ""
    for last in tries:
        try:
            descriptor = node(system, kind, last)
        except AdapterBusy:
            continue
        return descriptor, last
    raise taken_name(kind, last)


def node(system: System, kind: Kind, name: str) -> int:
    """Open /dev/NAME without blocking. Raises `AdapterBusy`, `PermissionDenied` or `AdapterUnavailable`."""
    path = f"/dev/{name}"
    try:
        descriptor = system.open(path)
    except OSError as error:
        raise _refused(error, path, kind) from None
    try:
        system.ioctl(descriptor, FIONBIO, ON)  # O_NONBLOCK alone does not make NetBSD's driver return at once.
    except OSError as error:
        if error.errno != errno.ENOTTY:  # OpenBSD's driver has no FIONBIO of its own, and needs none.
            system.close(descriptor)
            raise _refused(error, path, kind) from None
    return descriptor


def set_header(system: System, descriptor: int, request: int) -> None:
    """Have a header of four bytes before each packet, by TUNSIFHEAD. Raises `AdapterError`."""
    try:
        system.ioctl(descriptor, request, ON)
    except OSError as error:
        raise explained(error, "the adapter") from None


def _refused(error: OSError, path: str, kind: Kind) -> AdapterError:
    code = error.errno or 0
    name = path.removeprefix("/dev/")
    if code == errno.EBUSY:
        return AdapterBusy(code, f"{name} is in use by another program; close it there first")
    if code in (errno.EACCES, errno.EPERM):
        return PermissionDenied(code, f"opening {path} needs root; run as root, for example with sudo or doas")
    if code == errno.ENOENT:
        advice = "kldload if_tun" if kind.set_name is not None else f"cd /dev && sh MAKEDEV {name}"
        return AdapterUnavailable(code, f"{path} is missing; run as root: {advice}")
    if code in (errno.ENXIO, errno.ENODEV):
        return AdapterUnavailable(code, f"{path} exists, but this kernel has no TUN driver for it")
    return AdapterUnavailable(code, f"{path}: {error.strerror}")


def not_found(name: str) -> AdapterNotFound:
    """Return the error for opening an interface that does not exist or is of another kind."""
    return AdapterNotFound(
        errno.ENODEV, f"there is no layer-3 TUN adapter {name}; threepipe adapter list shows all adapters"
    )
