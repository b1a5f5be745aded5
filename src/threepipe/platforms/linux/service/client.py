"""Adapters by the service, for programs that lack the privilege to make them."""

import sys

assert sys.platform == "linux"

import os
import socket
import threading
from contextlib import suppress
from ipaddress import ip_interface, ip_network
from typing import Any

from threepipe.backend import AdapterInfo, AdapterStatistics, Share
from threepipe.errors import AdapterError, PermissionDenied
from threepipe.net.forks import call_in_child
from threepipe.platforms.linux import device, netlink, tun, wire
from threepipe.platforms.linux.inherited_device import adopt_inherited
from threepipe.platforms.linux.namespace import Namespace
from threepipe.platforms.linux.service.listening import socket_path
from threepipe.settings import AdapterSettings, Address, Network

__all__ = ["ServedDevice", "adopt", "create"]

_SERVICE = "threepipe serve"
_SECONDS_FOR_ANSWER = 60.0

_kept: list[socket.socket] = []
"""Connections of adapters that were given away: their adapters live as long as this process, or the one it becomes."""


def create(settings: AdapterSettings) -> device.LinuxDevice:
    """Create an adapter; without the privilege ask the service, if it runs.

    Raises as `device.create`: if the service refuses, `PermissionDenied` tells why.
    """
    try:
        return device.create(settings)
    except PermissionDenied:
        peer = _connect() if _may_be_served(settings) else None
        if peer is None:
            raise
    try:
        return _ask_for(peer, settings)
    except BaseException:
        peer.close()
        raise


def _may_be_served(settings: AdapterSettings) -> bool:
    named = settings.netns is None or (isinstance(settings.netns, str) and "/" not in settings.netns)
    return named and not settings.persistent and settings.windows is None


def _connect() -> socket.socket | None:
    """Return a connection to the service, or None if it does not run or this user may not connect."""
    if (path := socket_path()) is None:
        return None
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(_SECONDS_FOR_ANSWER)
    try:
        peer.connect(os.fspath(path))
    except OSError:
        peer.close()
        return None
    return peer


def _ask_for(peer: socket.socket, settings: AdapterSettings) -> "ServedDevice":
    request = {
        "op": "create",
        "name": settings.name,
        "addresses": [*map(str, settings.addresses)],
        "routes": [*map(str, settings.routes)],
        "mtu": settings.mtu,
        "metric": settings.metric,
        "netns": settings.netns,
        "offload": settings.offload,
        "queues": settings.queues,
        "packet_information": settings.packet_information,
    }
    with suppress(BrokenPipeError):  # It may have refused this user already, and the answer is there.
        wire.send(peer, request)
    try:
        message, numbers = wire.receive(peer)
    except ConnectionResetError:  # It has closed before it saw the request; its answer follows.
        message, numbers = wire.receive(peer)
    try:
        answer = wire.answer_of(message, _SERVICE)
        descriptors = device.Descriptors(settings.offload, settings.queues, settings.packet_information)
        descriptors.take(numbers, tun.Offload(answer["offload"]))
    except BaseException:
        wire.close_all(numbers)
        raise
    return ServedDevice(answer["name"], answer["index"], descriptors, peer, here=settings.netns is None)


def adopt(shared: Share) -> device.LinuxDevice:
    """Return a device of an interface that another process shares, which may have inherited it, or from the service."""
    if "inherited" in shared.form:
        return adopt_inherited(shared)
    if "here" not in shared.form:
        return device.adopt(shared)
    *numbers, connection = shared.descriptors
    descriptors = device.taken_descriptors(shared, numbers)
    peer = socket.socket(fileno=connection)
    peer.settimeout(_SECONDS_FOR_ANSWER)
    return ServedDevice(shared.name, shared.index, descriptors, peer, here=shared.form["here"]).adopted()


class ServedDevice(device.LinuxDevice):
    """An interface that the service made, and sets up on request as long as the connection lasts."""

    def __init__(
        self, name: str, index: int, descriptors: device.Descriptors, peer: socket.socket, *, here: bool
    ) -> None:
        """Own the descriptors and the connection; `here` is True in this process's network namespace."""
        super().__init__(name, index, descriptors, Namespace(None), None)
        self._peer = peer
        self._here = here
        self._keep = False
        self._asking = threading.RLock()
        call_in_child(self, ServedDevice._close_copy)

    def share(self) -> Share:
        shared = super().share()
        shared.form["here"] = self._here
        return shared._replace(descriptors=[*shared.descriptors, self._peer.fileno()])

    def info(self) -> AdapterInfo:
        if self._here:
            return super().info()
        found = self._ask("info")["info"]
        found["addresses"] = tuple(map(ip_interface, found["addresses"]))
        found["routes"] = tuple(map(ip_network, found["routes"]))
        found["statistics"] = AdapterStatistics(*found["statistics"])
        return AdapterInfo(**found)

    def set_mtu(self, mtu: int) -> None:
        self._ask("mtu", mtu=mtu)

    def add(self, item: Address | Network) -> None:
        self._ask(f"add_{_kind(item)}", item=str(item))

    def remove(self, item: Address | Network) -> None:
        self._ask(f"remove_{_kind(item)}", item=str(item))

    def detach(self, capacity: int) -> int:
        self._keep = True
        try:
            return super().detach(capacity)
        except BaseException:
            self._keep = False
            raise

    def close(self) -> None:
        super().close()
        if self.given:
            self._peer.close()
        elif not self._keep:
            self._hang_up()
        elif self._peer not in _kept:
            self._peer.set_inheritable(True)
            _kept.append(self._peer)

    def _take_link_up(self, capacity: int) -> None:
        self._ask("room", capacity=capacity // len(self._descriptors.queues))
        self._switch_carrier_on()
        netlink.wait_for_link(lambda: bool(self._ask("running")["running"]))

    def _ask(self, operation: str, **arguments: object) -> dict[str, Any]:
        with self._asking:
            try:
                wire.send(self._peer, {"op": operation, **arguments})
                message, _ = wire.receive(self._peer)
            except OSError as error:
                raise AdapterError(error.errno, f"{_SERVICE}: {error.strerror or error}; start it again") from None
            return wire.answer_of(message, _SERVICE)

    def _hang_up(self) -> None:
        """End the connection, and wait until the service has removed the interface."""
        with suppress(OSError):  # It may have ended already, or take too long.
            self._peer.shutdown(socket.SHUT_WR)
            self._peer.recv(1)
        self._peer.close()

    def _close_copy(self) -> None:
        """Close this copy in a forked child, which would keep the interface as long as it lives."""
        self._peer.close()


def _kind(item: Address | Network) -> str:
    return "route" if isinstance(item, Network) else "address"
