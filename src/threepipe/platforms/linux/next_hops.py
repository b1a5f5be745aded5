"""The kernel's next hops of packets that leave by one interface, the changes of its routes, and routes by next hops.

A sending thread asks here, once a flow, so the few messages are packed by hand: pyroute2 takes thirty times as long.
Numbers and layouts are those of <linux/netlink.h>, <linux/rtnetlink.h> and rtnetlink(7).
"""

import sys

assert sys.platform == "linux"

import errno
import itertools
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

from threepipe.net.doorbell import Doorbell
from threepipe.net.forks import call_in_child
from threepipe.platforms.linux.namespace import Namespace
from threepipe.platforms.linux.netlink import make_no_link_local, open_netlink, own_addresses
from threepipe.settings import NamespaceName, Network

__all__ = ["NextHops", "host_addresses", "open_next_hops"]

log = logging.getLogger("threepipe")

_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ROUTE = struct.Struct("=8BI")  # rtmsg
_ATTRIBUTE = struct.Struct("=HH")  # rtattr
_INT = struct.Struct("=I")
_SIGNED = struct.Struct("=i")
_FAMILY_SIZE = 2  # Bytes of the family before the address in RTA_VIA (rtvia).
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_REPLACE, _NLM_F_CREATE = 1, 4, 0x100, 0x400
_NLMSG_ERROR = 2
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTN_UNICAST = 1
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_VIA = 1, 2, 4, 5, 6, 18
_RT_TABLE_MAIN = 254
_OURS = 52  # rtm_protocol, as of other routes that threepipe sets; from 5 on they are free for daemons.
# RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE and NEXTHOP. With an interface
# the kernel removes IPv4 routes without a message, before Linux 6.7 with an address too.
_GROUPS = sum(1 << (group - 1) for group in (1, 5, 7, 8, 9, 11, 19, 32))

_EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_SIZE_OF_IPV6 = 16
_MAX_MESSAGES = 1 << 16  # Bytes.
_MAX_CHANGES = 64
"""The networks of a burst of changes beyond which they count as a change of everything."""


class NextHops:
    """The next hops of packets that leave by one interface. The kernel's messages about changes wait in a socket."""

    def __init__(self, index: int) -> None:
        """Begin to listen to changes, in the network namespace of the calling thread. Raises `OSError`."""
        self._index = index
        self._sequence = itertools.count(1)
        self._asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._turns = threading.Lock()  # Held while the answer of a question is awaited.
        self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._events.bind((0, _GROUPS))
        self._changing = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._bell = Doorbell()
        self._lock = threading.Lock()
        self._closed = self._waiting = False
        call_in_child(self, NextHops._leave_behind)

    def find(self, destination: bytes, source: bytes) -> bytes | None:
        """Return the IPv6 address, 16 bytes, that packets go to next; None for a route without one, and for no route.

        Addresses are 4 or 16 bytes. The source, empty for IPv4, decides only if there are routes or rules by source.
        Thread-safe.
        """
        number = next(self._sequence) & 0xFFFFFFFF
        family = socket.AF_INET6 if len(destination) == _SIZE_OF_IPV6 else socket.AF_INET
        body = _ROUTE.pack(family, 8 * len(destination), 8 * len(source), 0, 0, 0, 0, 0, 0)
        body += _attribute(_RTA_DST, destination) + _attribute(_RTA_OIF, _INT.pack(self._index))
        body += _attribute(_RTA_SRC, source) if source else b""
        question = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, number, 0) + body
        with self._turns:
            self._asking.send(question)
            while True:  # The kernel has answered; an older answer may be left of a call that was interrupted.
                for kind, answered, answer in _messages(self._asking.recv(_MAX_MESSAGES, socket.MSG_DONTWAIT)):
                    if answered == number:
                        return _gateway(answer) if kind == _RTM_NEWROUTE else None

    def add(self, destination: Network, next_hop: bytes, metric: int) -> None:
        """Add a route with that metric, or change its next hop. Raises `OSError`. Not thread-safe."""
        self._change(_RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_REPLACE, destination, next_hop, metric)

    def remove(self, destination: Network, next_hop: bytes, metric: int) -> None:
        """Remove the route with that metric and next hop, unless it is gone. Raises `OSError`. Not thread-safe."""
        try:
            self._change(_RTM_DELROUTE, 0, destination, next_hop, metric)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise

    def _change(self, kind: int, flags: int, destination: Network, next_hop: bytes, metric: int) -> None:
        number = next(self._sequence) & 0xFFFFFFFF
        family = socket.AF_INET6 if destination.version == 6 else socket.AF_INET
        body = _ROUTE.pack(family, destination.prefixlen, 0, 0, _RT_TABLE_MAIN, _OURS, 0, _RTN_UNICAST, 0)
        body += _attribute(_RTA_DST, destination.network_address.packed) + _attribute(_RTA_OIF, _INT.pack(self._index))
        body += _attribute(_RTA_PRIORITY, _INT.pack(metric))
        if destination.version == 6:
            body += _attribute(_RTA_GATEWAY, next_hop)
        else:
            body += _attribute(_RTA_VIA, socket.AF_INET6.to_bytes(_FAMILY_SIZE, sys.byteorder) + next_hop)
        flags |= _NLM_F_REQUEST | _NLM_F_ACK
        self._changing.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body)
        for answer, answered, message in _messages(self._changing.recv(_MAX_MESSAGES)):
            if answered == number and answer == _NLMSG_ERROR and (code := -_SIGNED.unpack_from(message)[0]):
                raise OSError(code, os.strerror(code))

    def changes(self) -> Sequence[Network] | None:
        """Wait for changes, and return the destinations that they concern; None once this is closed."""
        with self._lock:
            if self._closed:
                return None
            self._waiting = True
        try:
            waiting = select.poll()
            waiting.register(self._events, select.POLLIN)
            waiting.register(self._bell, select.POLLIN)
            while not self._closed:
                waiting.poll()
                if found := self._changed():
                    return found
            return None
        finally:
            with self._lock:
                self._waiting = False
                if self._closed:
                    self._dispose()

    def _changed(self) -> Sequence[Network]:
        """Return the destinations in the messages that wait."""
        networks: dict[Network, None] = {}
        with suppress(BlockingIOError):
            while len(networks) <= _MAX_CHANGES:
                for kind, _, message in _messages(self._take()):
                    networks |= dict.fromkeys(_destinations(kind, message))
        return tuple(networks) if len(networks) <= _MAX_CHANGES else _EVERYTHING

    def _take(self) -> bytes:
        """Return messages; none for a gap, after which the kernel has dropped some."""
        try:
            return self._events.recv(_MAX_MESSAGES, socket.MSG_DONTWAIT)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return _HEADER.pack(_HEADER.size, 0, 0, 0, 0)  # Of a kind that concerns everything.

    def close(self) -> None:
        """End `changes`. May be called again."""
        with self._lock:
            closed, self._closed = self._closed, True
            if closed:
                return
            self._bell.ring(for_ever=True)
            if not self._waiting:
                self._dispose()

    def _dispose(self) -> None:
        self._asking.close()
        self._events.close()
        self._changing.close()
        self._bell.close()

    def _leave_behind(self) -> None:
        """Close the sockets of this copy in a forked child."""
        self._lock, self._turns = threading.Lock(), threading.Lock()
        self._closed = True
        self._asking.close()
        self._events.close()
        self._changing.close()


def open_next_hops(index: int, name: str, netns: NamespaceName | None) -> NextHops:
    """Return the next hops of the interface in that namespace.

    The kernel makes no link-local address for it from now on, and takes no router advertisements and redirects by it:
    each peer can send these. Raises `AdapterError`.
    """

    def opened() -> NextHops:
        _refuse_routers(name)
        make_no_link_local(index, name)
        return NextHops(index)

    namespace = Namespace.find(netns)
    try:
        return namespace.run(opened)
    finally:
        namespace.close()


def _refuse_routers(name: str) -> None:
    for setting in ("accept_ra", "accept_redirects"):
        try:
            Path("/proc/sys/net/ipv6/conf", name, setting).write_text("0")
        except OSError as error:
            log.warning(
                f"{name}: {setting} cannot be turned off ({error.strerror}), so peers may set routes of this machine;"
                f" turn forwarding on, or run: sysctl -w net.ipv6.conf.{name}.{setting}=0"
            )


def host_addresses() -> list[str]:
    """Return the addresses by which other hosts may reach this one, in the network namespace of the calling thread."""
    with open_netlink("") as ipr:
        found = [address.ip for address, _ in own_addresses(ipr)]
    return [str(each) for each in found if not (each.is_loopback or each.is_link_local)]


def _attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value.ljust(_aligned(size) - _ATTRIBUTE.size, b"\0")


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the kind, the sequence number and the body of each message."""
    while data:
        size, kind, _, number, _ = _HEADER.unpack_from(data)
        yield kind, number, data[_HEADER.size : size]
        data = data[_aligned(size) :]


def _attributes(route: bytes) -> dict[int, bytes]:
    """Return the attributes of the body of a route's message."""
    found, rest = {}, route[_ROUTE.size :]
    while rest:
        size, kind = _ATTRIBUTE.unpack_from(rest)
        found[kind & _TYPE_MASK] = rest[_ATTRIBUTE.size : size]
        rest = rest[_aligned(size) :]
    return found


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def _gateway(route: bytes) -> bytes | None:
    """Return the IPv6 next hop of a route. That of an IPv4 route is in RTA_VIA (RFC 8950)."""
    found = _attributes(route)
    hop = found.get(_RTA_GATEWAY) or found.get(_RTA_VIA, b"")[_FAMILY_SIZE:]
    return hop if len(hop) == _SIZE_OF_IPV6 and _ROUTE.unpack_from(route)[7] == _RTN_UNICAST else None


def _destinations(kind: int, message: bytes) -> Sequence[Network]:
    """Return the destinations that a message about a change concerns."""
    if kind not in (_RTM_NEWROUTE, _RTM_DELROUTE):
        return _EVERYTHING
    family, length, *_ = _ROUTE.unpack_from(message)
    size = 4 if family == socket.AF_INET else _SIZE_OF_IPV6
    address = _attributes(message).get(_RTA_DST, bytes(size))  # The default route has no destination.
    return (ip_network((address, length)),)
