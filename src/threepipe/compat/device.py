"""Common parts of the stand-ins: an adapter whose address is set by properties, and whose link goes up and down.

Knows no form of packets and neither library.
"""

import errno
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Self

from threepipe.adapter import DEFAULT_CAPACITY, Adapter, adapters
from threepipe.errors import AdapterClosed, SessionClosed, ThreepipeError
from threepipe.session import Session
from threepipe.settings import Address, Network

__all__ = ["FLAGS", "NODE", "Device"]

FLAGS = {
    "IFF_TUN": 0x0001,
    "IFF_TAP": 0x0002,
    "IFF_MULTI_QUEUE": 0x0100,
    "IFF_NO_PI": 0x1000,
    "IFF_ONE_QUEUE": 0x2000,
    "IFF_VNET_HDR": 0x4000,
    "IFF_TUN_EXCL": 0x8000,
}
"""The flags of <linux/if_tun.h> that the libraries export."""
_REFUSED = {
    "IFF_TAP": "threepipe has no TAP devices; use IFF_TUN",
    "IFF_MULTI_QUEUE": "a device has one queue here; leave out IFF_MULTI_QUEUE",
    "IFF_VNET_HDR": "threepipe reads virtio headers itself; leave out IFF_VNET_HDR",
}
NODE = "/dev/net/tun"


class Device:
    """A TUN device with the properties and methods of both libraries. Their errors are `Error`, an `OSError`."""

    Error: ClassVar[type[OSError]]
    version: ClassVar[int]
    """The IP version of `addr`, `dstaddr` and `netmask`."""
    prefix: ClassVar[int]
    """The prefix length of a new address."""

    def __init__(self, name: str, flags: int, dev: str, *, offload: bool) -> None:
        """Create the adapter, or open the persistent one of that name unless `flags` has IFF_TUN_EXCL."""
        self._closed = False
        self._session: Session | None = None
        self._address: Address | None = None
        self._peer: Network | None = None
        with self._errors():
            self._check(flags, dev)
            known = [] if flags & FLAGS["IFF_TUN_EXCL"] else [info.name for info in adapters() if info.persistent]
            if name in known:
                self._adapter = Adapter.open(name, offload=offload)
            else:
                self._adapter = Adapter.create(name or "tun%d", offload=offload)

    def _check(self, flags: int, dev: str) -> None:
        for flag, text in _REFUSED.items():
            if flags & FLAGS[flag]:
                raise self.Error(errno.ENOTSUP, text)
        if not flags & FLAGS["IFF_TUN"]:
            raise self.Error(errno.EINVAL, "flags: give IFF_TUN")
        if dev != NODE:
            raise self.Error(errno.ENOTSUP, f"threepipe uses {NODE}; leave out dev")

    @property
    def name(self) -> str:
        """The interface's name."""
        return self._adapter.name

    @property
    def mtu(self) -> int:
        """Bytes of the longest packet; writable."""
        with self._errors():
            return self._adapter.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        with self._errors():
            self._adapter.mtu = mtu

    @property
    def addr(self) -> str:
        """The device's address without its prefix length; writable."""
        return str(self._present().ip)

    @addr.setter
    def addr(self, addr: str) -> None:
        with self._errors():
            ip = ipaddress.ip_address(_text("addr", addr))
            if ip.version != self.version:
                raise self.Error(errno.EINVAL, f"addr {addr}: give an IPv{self.version} address")
            self._replace(ipaddress.ip_interface(f"{ip}/{self.prefix}"))

    @property
    def netmask(self) -> str:
        """The mask of the address's network; writable once there is an address."""
        return str(self._present().netmask)

    @netmask.setter
    def netmask(self, mask: str) -> None:
        with self._errors():
            length = ipaddress.ip_network(f"{'0.0.0.0' if self.version == 4 else '::'}/{_length(mask)}").prefixlen
            self._replace(ipaddress.ip_interface(f"{self._present().ip}/{length}"))

    @property
    def dstaddr(self) -> str:
        """The address at the other end of the link, to which there is a route; writable."""
        if self._peer is None:
            raise self.Error(errno.EADDRNOTAVAIL, f"{self.name} has no destination address; set dstaddr first")
        return str(self._peer.network_address)

    @dstaddr.setter
    def dstaddr(self, addr: str) -> None:
        with self._errors():
            peer = ipaddress.ip_network(_text("dstaddr", addr))
            if self._peer is not None:
                self._adapter.remove_route(self._peer)
                self._peer = None
            self._adapter.add_route(peer)
            self._peer = peer

    def up(self, capacity: int = DEFAULT_CAPACITY) -> None:
        """Take the link up; do nothing if it is up."""
        with self._errors():
            if self._session is None or self._session.closed:
                self._session = self._adapter.start_session(capacity)
                self._started(self._session)

    def down(self) -> None:
        """Take the link down, which wakes readers."""
        if self._session is not None:
            self._session.close()

    def close(self) -> None:
        """Close the device, which removes it unless it is persistent. May be repeated."""
        self._closed = True
        self._adapter.close()
        self._session = None  # Its descriptors are closed when nothing refers to it.

    def persist(self, flag: bool = True) -> None:
        """Accept False alone: a persistent adapter is made by `threepipe adapter create`."""
        if flag:
            raise self.Error(errno.ENOTSUP, "a device in use cannot become persistent; use: threepipe adapter create")

    def mq_attach(self, flag: bool = True) -> None:
        """Accept True alone: the only queue is always attached."""
        if not flag:
            raise self.Error(errno.ENOTSUP, "a device has one queue here, which stays attached")

    @property
    def hwaddr(self) -> bytes:
        """The hardware address, which a TUN device does not have."""
        raise self.Error(errno.ENOTSUP, "a TUN device has no hardware address")

    @hwaddr.setter
    def hwaddr(self, addr: bytes) -> None:
        raise self.Error(errno.ENOTSUP, "a TUN device has no hardware address")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self, session: Session) -> None:
        """Take note of a new session."""

    def _open_session(self) -> Session:
        """Return the session, started at first use. Raise `Error` after `down` or `close`."""
        if self._session is None:
            self.up()
        assert self._session is not None
        if self._session.closed:
            _ = self.mtu  # Raises if the adapter is closed or gone, or the process is a forked child.
            raise self.Error(errno.ENETDOWN, f"{self.name} is down; call up()")
        return self._session

    def _present(self) -> Address:
        if self._address is None:
            with self._errors():
                found = [a for a in self._adapter.addresses if a.version == self.version and not a.is_link_local]
            if not found:
                raise self.Error(errno.EADDRNOTAVAIL, f"{self.name} has no address; set addr first")
            self._address = found[0]
        return self._address

    def _replace(self, address: Address) -> None:
        before = self._address
        if address != before:
            self._adapter.add_address(address)
            self._address = address
            if before is not None:
                self._adapter.remove_address(before)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise `Error` for the exceptions of threepipe, and for values that make no sense."""
        try:
            yield
        except self.Error:
            raise
        except OSError as error:
            raise self.Error(error.errno, error.strerror) from error
        except (ThreepipeError, ValueError) as error:
            code = errno.ENETDOWN if isinstance(error, SessionClosed) else errno.EINVAL
            if self._closed or isinstance(error, AdapterClosed):
                code = errno.EBADF
            raise self.Error(code, str(error)) from error


def _text(name: str, given: object) -> str:
    """Return the text that was given. Raise TypeError for numbers and bytes, which `ipaddress` would accept."""
    if not isinstance(given, str):
        raise TypeError(f"{name}: give a text like 10.8.0.1, not {type(given).__name__}")
    return given


def _length(mask: str) -> str:
    """Return the prefix length of an IPv6 mask; an IPv4 mask is left to `ipaddress`."""
    if ":" not in mask:
        return mask
    bits = f"{int(ipaddress.IPv6Address(mask)):0128b}"
    if "01" in bits:
        raise ValueError(f"{mask} is not a mask; give one like ffff:ffff:ffff:ffff::")
    return str(bits.count("1"))
