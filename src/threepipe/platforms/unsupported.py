"""Stand-ins for functions that a platform lacks; their errors say so, and name an alternative.

Systems without adapters use all of them, Windows some.
"""

import errno
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn, Self

from threepipe.backend import AdapterInfo, Device, Finding, HandoverLink, NextHops, Port, Share
from threepipe.errors import AdapterUnavailable, EndpointError
from threepipe.net.datagrams import Datagrams
from threepipe.settings import AdapterSettings, NamespaceName, Network

__all__ = [
    "CONFIG_FOLDERS",
    "DNS_TOOLS",
    "ONE_NETWORK",
    "PACKET_INFORMATION",
    "ROUTES_BY_MARK",
    "TEXT",
    "EnclosedProgram",
    "Enclosure",
    "accept_handover",
    "adapter_name",
    "adapters",
    "add_routes",
    "adopt",
    "become",
    "bypass",
    "connect_handover",
    "create",
    "divert",
    "enclose",
    "end_by",
    "enlarge_buffers",
    "find_user",
    "free_table",
    "host_addresses",
    "inherit",
    "kept_signals",
    "listen_handover",
    "make_no_link_local",
    "namespace_names",
    "network_scope",
    "open_capture",
    "open_datagrams",
    "open_existing",
    "open_inherited",
    "open_next_hops",
    "path_mtu",
    "private_networks",
    "probe",
    "process_file",
    "remove_bypass",
    "remove_leftovers",
    "routed",
    "serve",
    "table_number",
    "undivert",
]

PACKET_INFORMATION: dict[int, bytes] = {}
"""The bytes before packets on a descriptor by default, by IP version: none here."""

ROUTES_BY_MARK = False
"""True if marked packets can have routes of their own (`divert`)."""
ONE_NETWORK = False
"""True if a demonstration may use the system's one network, whose raw sockets hear the packets of adapters."""
CONFIG_FOLDERS = ("/etc/wireguard",)
"""The folders of wg-quick's files that are given by name, in the order of the search."""
DNS_TOOLS = ("resolvconf", "resolvectl")
"""Programs that can set name servers, in order of preference."""

TEXT = f"threepipe has no adapters on {sys.platform} yet; MemoryAdapter works everywhere"


_NO_HANDOVER = f"on {sys.platform} a running device cannot be taken over; take it down, and up again"
_NO_NAMESPACES = "only Linux has network namespaces; run the program in a virtual machine instead"


def create(settings: AdapterSettings) -> NoReturn:
    raise AdapterUnavailable(errno.ENOSYS, TEXT)


def open_existing(
    name: str, netns: NamespaceName | None, offload: bool, queues: int, packet_information: bool
) -> NoReturn:
    raise AdapterUnavailable(errno.ENOSYS, TEXT)


def serve(policy: Path, path: Path | None, listed: int | None, ready: Callable[[str], None]) -> NoReturn:
    raise AdapterUnavailable(errno.ENOSYS, f"the service needs Linux; on {sys.platform} run programs with privilege")


def adopt(shared: Share) -> Device:
    raise AdapterUnavailable(errno.ENOSYS, _NO_HANDOVER)


def listen_handover(path: Path) -> tuple[socket.socket, Callable[[], None]]:
    raise EndpointError(errno.ENOSYS, _NO_HANDOVER)


def connect_handover(path: Path, seconds: float) -> HandoverLink:
    raise EndpointError(errno.ENOSYS, _NO_HANDOVER)


def accept_handover(listening: socket.socket) -> HandoverLink:
    raise EndpointError(errno.ENOSYS, _NO_HANDOVER)


class EnclosedProgram:
    """A stand-in for a program in an enclosure, which only Linux has."""

    returncode: int | None = None

    def send_signal(self, number: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int:
        raise AdapterUnavailable(errno.ENOSYS, _NO_NAMESPACES)

    def poll(self) -> int | None: ...


class Enclosure:
    """A stand-in for the namespaces of an adapter and its programs, which only Linux has."""

    descriptor: int
    process: int

    def start(self, words: Sequence[str], streams: Sequence[int] = (0, 1, 2)) -> EnclosedProgram:
        raise AdapterUnavailable(errno.ENOSYS, _NO_NAMESPACES)

    def close(self) -> None: ...


def enclose(
    settings: AdapterSettings, capacity: int, servers: Sequence[str] | None = None, search: Sequence[str] = ()
) -> Enclosure:
    raise AdapterUnavailable(errno.ENOSYS, _NO_NAMESPACES)


class KeptSignals:
    """A stand-in for the signals of a program in an enclosure, which only Linux has."""

    def wait_for(self, program: EnclosedProgram) -> int:
        return program.wait()


def kept_signals() -> AbstractContextManager[KeptSignals]:
    return nullcontext(KeptSignals())


def end_by(number: int) -> NoReturn:
    sys.exit(128 + number)


def find_user(name: str) -> NoReturn:
    raise AdapterUnavailable(errno.ENOSYS, TEXT)


def become(user: object, *, keep_net_admin: bool) -> NoReturn:
    raise AdapterUnavailable(errno.ENOSYS, TEXT)


def adapters(netns: NamespaceName | None) -> list[AdapterInfo]:
    raise AdapterUnavailable(errno.ENOSYS, TEXT)


def enlarge_buffers(opened: socket.socket) -> None:
    """Do nothing: keep the system's default buffers."""


def open_capture(name: str, netns: NamespaceName | None) -> NoReturn:
    raise AdapterUnavailable(errno.ENOSYS, f"threepipe captures no adapters on {sys.platform}; use a pipe's --capture")


def inherit(number: int) -> Device | None:
    return None  # Adapters have no descriptors on these systems.


def open_inherited(number: int) -> Port | None:
    return None  # As for `inherit`.


def open_next_hops(index: int, name: str, netns: NamespaceName | None) -> NextHops:
    text = f"only on Linux does threepipe route by next hops, not on {sys.platform}; give peers AllowedIPs instead"
    raise AdapterUnavailable(errno.ENOSYS, text)


def make_no_link_local(index: int, name: str) -> None:
    """Do nothing: only Linux has a setting for it."""


def host_addresses() -> list[str]:
    return []  # `open_next_hops` has refused already.


def open_datagrams(bound: socket.socket) -> Datagrams:
    return Datagrams(bound)


def namespace_names() -> list[str]:
    return []  # Only Linux has network namespaces.


def private_networks() -> NoReturn:
    raise AdapterUnavailable(errno.ENOSYS, "only Linux has network namespaces; MemoryAdapter works everywhere")


def probe() -> list[Finding]:
    return [Finding("adapters", False, TEXT, essential=True)]


def process_file(number: int) -> int | None:
    return None


def free_table() -> NoReturn:
    text = f"threepipe cannot set policy routes on {sys.platform}; leave out default-route, and set Table = off"
    raise AdapterUnavailable(errno.ENOSYS, text)


def table_number(name: str) -> NoReturn:
    free_table()


def path_mtu(address: str) -> int:
    return 1500


def adapter_name(name: str) -> str:
    return name  # An adapter can have the name of any device.


class Bypass:
    """A stand-in for the routes past a tunnel, which a system that routes by marks does not need."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, endpoints: Iterable[str]) -> None: ...


def bypass(index: int, versions: Collection[int], before: Callable[[list[str]], object]) -> Bypass:
    free_table()


def remove_bypass(addresses: Iterable[str]) -> None:
    free_table()


def remove_leftovers() -> None:
    """Do nothing: interfaces go with their programs here."""


def add_routes(index: int, networks: Iterable[Network], table: int) -> None:
    if list(networks):
        free_table()


def divert(versions: Collection[int], table: int, mark: int, before: Callable[[list[dict[str, int]]], object]) -> None:
    free_table()


def undivert(rules: Iterable[dict[str, int]]) -> None:
    free_table()


def routed(index: int, networks: Sequence[Network], table: int, mark: int) -> NoReturn:
    free_table()


def network_scope() -> str:
    return ""  # There is one network, and its folder for sockets is emptied when the system starts.
