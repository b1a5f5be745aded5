"""Adapter: a virtual network interface, with the same contract on every operating system.

This module owns the life of the object: one session, closing, use after close. It knows no system; a platform
supplies a `Device`.
"""

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

from threepipe.backend import AdapterInfo, AdapterStatistics, Device, Share, Shareable
from threepipe.errors import AdapterClosed, AdapterError, AdapterUnavailable, SessionExists
from threepipe.net.forks import call_in_child
from threepipe.session import Session
from threepipe.settings import (
    AdapterSettings,
    Address,
    NamespaceName,
    Network,
    WindowsSettings,
    check_capacity,
    check_mtu,
    check_name,
    check_queues,
    parse_addresses,
    parse_routes,
)

__all__ = ["Adapter", "adapters", "adopt", "allows_offload", "claim", "give_away", "share"]

_NO_OFFLOAD = "THREEPIPE_NO_OFFLOAD"
DEFAULT_CAPACITY = 0x400000
"""4 MiB, as in Wintun's example: 2,788 packets of 1500 bytes."""


class Adapter:
    """A virtual network interface, from `create` or `open` until `close` or the end of a `with` block.

    The link is up exactly while a session is open.
    """

    def __init__(self, device: Device) -> None:
        """Take over a device that a platform made; programs call `create` or `open`. Raises TypeError for a name."""
        if isinstance(device, (str, bytes)):
            raise TypeError(
                f"call Adapter.create({device!r}) for a new adapter or Adapter.open({device!r}) for an existing"
            )
        self._device = device
        self._lock = threading.RLock()  # A session may close its adapter, which closes the session.
        self._session: Session | None = None
        self._closed = self._left_behind = False
        call_in_child(self, Adapter._leave_behind)

    @classmethod
    def create(
        cls,
        name: str,
        *,
        addresses: Iterable[str | Address] = (),
        routes: Iterable[str | Network] = (),
        mtu: int | None = None,
        metric: int | None = None,
        netns: NamespaceName | None = None,
        persistent: bool = False,
        owner: str | int | None = None,
        group: str | int | None = None,
        offload: bool = True,
        queues: int = 1,
        windows: WindowsSettings | None = None,
        packet_information: bool = False,
    ) -> "Adapter":
        """Create an interface, which lives until it is closed or its process ends.

        Args:
            name: At most 15 bytes; a `%d` in it becomes the first free number.
            addresses: The adapter's addresses with prefix length, IPv4 and IPv6.
            routes: The networks that the adapter leads to.
            mtu: Bytes, 68 to 65535; by default the system's choice (1500).
            metric: The preference of its routes, the smallest first; by default the system's choice.
            netns: The network namespace to create it in: a name, a path or a process id.
            persistent: True to keep the interface after it is closed.
            owner: The user (name or id) that may open a persistent adapter, besides root; by default this user.
            group: The group (name or id) whose members may open it. With an owner as well, only that
                user may, and only as a member of that group.
            offload: True to receive and send superpackets if the system can; a bundle splits them only when a
                program looks at single packets. The environment variable THREEPIPE_NO_OFFLOAD=1 refuses them.
            queues: How many queues the system fills in parallel, each flow through one of them (1 to 255); a
                session receives from all of them.
            windows: The settings that only Windows has.
            packet_information: True to have 4 bytes before each packet on the descriptor, without superpackets, for
                a program that expects them of a descriptor given to it by `detach` (Linux: no IFF_NO_PI).

        Raises `InvalidSetting`, `NameTaken`, `PermissionDenied`, `AdapterUnavailable`, `NamespaceNotFound` or
        `IPv6Unavailable`, and leaves no interface behind.
        """
        from threepipe import platforms

        settings = AdapterSettings(
            name=name,
            addresses=parse_addresses(addresses),
            routes=parse_routes(routes),
            mtu=mtu,
            metric=metric,
            netns=netns,
            persistent=persistent,
            owner=owner,
            group=group,
            offload=offload and not packet_information and allows_offload(),
            queues=queues,
            windows=windows,
            packet_information=packet_information,
        )
        return Adapter(platforms.create(settings.checked()))

    @classmethod
    def open(
        cls,
        name: str,
        *,
        netns: NamespaceName | None = None,
        offload: bool = True,
        queues: int = 1,
        packet_information: bool = False,
    ) -> "Adapter":
        """Open an existing persistent interface, which stays when the adapter is closed.

        `netns`, `offload` and `packet_information` are as in `create`. `queues` too, but it may exceed 1 only if the
        interface was created with several queues.

        Raises `AdapterNotFound`, `AdapterBusy`, `PermissionDenied`, `AdapterUnavailable`, `NamespaceNotFound` or
        `InvalidSetting`.
        """
        from threepipe import platforms

        offload = offload and not packet_information and allows_offload()
        return Adapter(
            platforms.open_existing(check_name(name), netns, offload, check_queues(queues), packet_information)
        )

    @property
    def name(self) -> str:
        """The interface's name, also if it was renamed meanwhile; the last one once the adapter is closed."""
        return self._device.name

    @property
    def index(self) -> int:
        """The number by which the system knows the interface, also if it was moved to another network namespace."""
        return self._device.index

    @property
    def info(self) -> AdapterInfo:
        """The adapter as the system describes it now. Raises `AdapterClosed` or `AdapterGone`."""
        with self._in_use():
            return self._device.info()

    @property
    def mtu(self) -> int:
        """The size in bytes of the longest packet that the system sends through it; writable. Raises as `info` does."""
        return self.info.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        info = self.info
        ipv6 = any(item.version == 6 and not item.is_link_local for item in info.addresses + info.routes)
        check_mtu(mtu, ipv6=ipv6)
        with self._in_use():
            self._device.set_mtu(mtu)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The adapter's addresses with prefix length, as the system has them now. Raises as `info` does."""
        return self.info.addresses

    @property
    def routes(self) -> tuple[Network, ...]:
        """The networks that the system routes to the adapter, without those of its addresses. Raises as `info` does."""
        return self.info.routes

    def add_address(self, address: str | Address) -> None:
        """Give the adapter another address, as `create` does: it goes with the interface, on Windows with the adapter.

        Raises `InvalidSetting`, `PermissionDenied`, `IPv6Unavailable`, `AdapterError` if there is such an address, and
        as `info` does. Then nothing has changed.
        """
        self._add(*parse_addresses([address]))

    def add_route(self, route: str | Network) -> None:
        """Lead another network to the adapter, with the metric given to `create`. All else is as in `add_address`."""
        self._add(*parse_routes([route]))

    def remove_address(self, address: str | Address) -> None:
        """Take an address from the adapter, whose other addresses and routes stay.

        Raises `InvalidSetting`, `PermissionDenied`, `AdapterError` if it does not have the address with that prefix
        length, and as `info` does.
        """
        (item,) = parse_addresses([address])
        self._remove(item, self.addresses)

    def remove_route(self, route: str | Network) -> None:
        """Lead a network to the adapter no more. All else is as in `remove_address`."""
        (item,) = parse_routes([route])
        self._remove(item, self.routes)

    def _add(self, item: Address | Network) -> None:
        info = self.info
        if item.version == 6:
            check_mtu(info.mtu, ipv6=not item.is_link_local)
        if item in info.addresses + info.routes:
            raise AdapterError(errno.EEXIST, f"{info.name} has {item} already; leave it out")
        with self._in_use():
            self._device.add(item)

    def _remove(self, item: Address | Network, present: tuple[Address, ...] | tuple[Network, ...]) -> None:
        if item not in present:
            others = ", ".join(map(str, present)) or "none"
            raise AdapterError(errno.EADDRNOTAVAIL, f"{self.name} does not have {item}; give one of: {others}")
        with self._in_use():
            self._device.remove(item)

    @property
    def link_up(self) -> bool:
        """True while the system sees a link, which is while a session is open. Raises as `info` does."""
        return self.info.link_up

    @property
    def statistics(self) -> AdapterStatistics:
        """The system's counters. Raises as `info` does."""
        return self.info.statistics

    def start_session(self, capacity: int = DEFAULT_CAPACITY) -> Session:
        """Take the link up and start traffic.

        `capacity`: bytes of packets that may wait for the program, a power of two from 128 KiB to 64 MiB. The system
        drops and counts further packets. Raises `SessionExists`, `InvalidSetting`, `AdapterClosed`, `AdapterGone`
        or `LinkDown`.
        """
        check_capacity(capacity)
        with self._lock:
            self._check_no_session()
            self._session = Session(self._device.start(capacity))
            return self._session

    def _check_no_session(self) -> None:
        self._check_open()
        if self._session is not None:
            if not self._session.closed:
                raise SessionExists(f"{self.name} has a session; an adapter has one at a time; close it first")
            self._session.close()  # Another thread may still be closing it: wait for that.

    def detach(self, capacity: int = DEFAULT_CAPACITY) -> int:
        """Take the link up, and give the adapter away: close this object and return a descriptor of the interface.

        For another program, which inherits the descriptor (as by `pass_fds` of `subprocess.Popen`) or gets it over a
        Unix socket (`socket.send_fds`). The interface goes with the last copy of the descriptor, unless it is
        persistent. The descriptor blocks, and is not inheritable; close it with `os.close` once it is handed over.

        Before each packet there is a virtio header of 10 bytes, unless the adapter was made with `offload=False`;
        with `packet_information` there is a `struct tun_pi` of 4 bytes. Superpackets are off: the program that reads
        the header allows those that it knows (TUNSETOFFLOAD). `capacity` is as in `start_session`.

        Raises `SessionExists`, `InvalidSetting` for an adapter with several queues, `AdapterUnavailable` where an
        adapter has no descriptor, and as `start_session` does. Then the adapter stays open.
        """
        check_capacity(capacity)
        with self._lock:
            self._check_no_session()
            number = self._device.detach(capacity)
            self.close()
        return number

    def delete(self) -> None:
        """Close the adapter and remove the interface, even a persistent one. Raises `AdapterClosed`."""
        with self._lock:
            self._check_open()
            self._device.unpersist()
        self.close()

    def close(self) -> None:
        """Close the session and the adapter, and remove the interface unless it is persistent. May be repeated.

        In a forked child this does nothing, as the adapter is the parent's.
        """
        with self._lock:
            if self._left_behind:
                return
            self._closed = True
            if self._session is not None:
                self._session.close()
                self._session = None
            self._device.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Adapter {self.name}{' closed' if self._closed else ''}>"

    def _leave_behind(self) -> None:
        """Close this copy in a forked child, without a change to the parent's interface."""
        self._lock = threading.RLock()
        self._closed = self._left_behind = True

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Raise `AdapterClosed` if the adapter is closed, before the block or while it runs."""
        self._check_open()
        try:
            yield
        except AdapterError:
            self._check_open()  # The system misses what `close` has removed.
            raise

    def _check_open(self) -> None:
        if self._left_behind:
            raise AdapterClosed(f"{self.name} belongs to the process that this one was forked from; create one here")
        if self._closed:
            raise AdapterClosed(f"{self.name} was closed; create or open it again")


def share(adapter: Adapter) -> Share:
    """Return an adapter's descriptors, and all that another process needs to go on with it while its session is open.

    Raises `AdapterUnavailable` where that is not possible, and `AdapterClosed`.
    """
    with adapter._in_use():
        return _shareable(adapter._device).share()


def adopt(shared: Share) -> Adapter:
    """Return an adapter of what another process has shared. It owns the descriptors, and is not this process's yet.

    Its first session goes on with the traffic: the link stays up, and packets that wait for a program stay there. Until
    `claim` it can be closed without an effect on the interface. Raises `AdapterUnavailable` and `AdapterError`.
    """
    from threepipe import platforms

    return Adapter(platforms.adopt(shared))


def give_away(adapter: Adapter) -> None:
    """Leave the interface to the process that it was shared with: closing the adapter changes nothing about it."""
    _shareable(adapter._device).given = True


def is_given(adapter: Adapter) -> bool:
    """Return True if the interface is another process's, so that closing the adapter changes nothing about it."""
    return isinstance(adapter._device, Shareable) and adapter._device.given


def claim(adapter: Adapter) -> None:
    """Make an adopted adapter that of this process: closing it ends the interface, unless it is persistent."""
    _shareable(adapter._device).given = False


def _shareable(device: Device) -> Shareable:
    if not isinstance(device, Shareable):
        raise AdapterUnavailable(errno.ENOTSUP, "adapters of this system cannot be taken over by another process")
    return device


def adapters(netns: NamespaceName | None = None) -> list[AdapterInfo]:
    """Return the layer-3 virtual interfaces of this system or of a network namespace, of all programs."""
    from threepipe import platforms

    return platforms.adapters(netns)


def allows_offload() -> bool:
    """Return False if THREEPIPE_NO_OFFLOAD in the environment refuses superpackets."""
    return os.environ.get(_NO_OFFLOAD, "0") in ("", "0")
