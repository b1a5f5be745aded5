"""Adapter: a virtual network interface of the operating system, the same on every system.

Owns the object's life (one session, closing, use after close) and nothing of any system: a platform
gives it a `Device`.
"""

import threading
import uuid
from collections.abc import Iterable
from typing import Self

from threepipe.backend import AdapterInfo, AdapterStatistics, Device
from threepipe.errors import AdapterClosed, SessionExists
from threepipe.session import Session
from threepipe.settings import (
    AdapterSettings,
    Address,
    Namespace,
    Network,
    Server,
    check_capacity,
    check_mtu,
    check_name,
    check_queues,
    parse_addresses,
    parse_domains,
    parse_guid,
    parse_routes,
    parse_servers,
)

__all__ = ["Adapter", "adapters"]

DEFAULT_CAPACITY = 0x400000
"""4 MiB, what Wintun's own example takes: 2,788 packets of 1500 bytes."""


class Adapter:
    """A virtual network interface; `create` or `open` makes it, `close` or `with` ends it.

    Its link is up exactly while a session is open.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = threading.RLock()  # A session may close its adapter, which closes its session.
        self._session: Session | None = None
        self._closed = False
        self.name = device.name
        self.index = device.index

    @classmethod
    def create(
        cls,
        name: str,
        *,
        addresses: Iterable[str | Address] = (),
        routes: Iterable[str | Network] = (),
        mtu: int | None = None,
        netns: Namespace | None = None,
        persistent: bool = False,
        owner: str | int | None = None,
        group: str | int | None = None,
        offload: bool = True,
        queues: int = 1,
        dns: Iterable[str | Server] = (),
        search: Iterable[str] = (),
        metric: int | None = None,
        guid: str | uuid.UUID | None = None,
        tunnel_type: str | None = None,
    ) -> "Adapter":
        """Make a new interface, which lives until it is closed or its process ends.

        `name`: at most 15 bytes; a `%d` in it becomes the first free number. `addresses`: own
        addresses with prefix length, of both families. `routes`: networks to be reached through it.
        `mtu`: bytes, 68 to 65535, by default the system's (1500). `netns`: the network namespace to
        make it in, by name, path or process id. `persistent`: it stays when it is closed; then `owner`
        and `group` (names or ids) say who but root may open it: by default this user, and where both are
        given, only that user as a member of that group. `offload`: let the system hand over superpackets,
        where it can, which bundles keep whole until somebody looks at single packets. `queues`: how many
        the system fills side by side, each flow one of them; sessions receive from all (1 to 255).
        `metric`: how its routes stand beside others, the smallest first; by default the system's choice.

        On Windows alone: `dns` and `search`, the servers to ask for names while it is there, and the
        domains of short names; `guid`, by which Windows knows it again, by default one made of the
        name; `tunnel_type`, what it is described as, by default threepipe.

        Raises `InvalidSetting`, `NameTaken`, `PermissionDenied`, `AdapterUnavailable`,
        `NamespaceNotFound`, `IPv6Unavailable`; then nothing is left of it.
        """
        from threepipe import platforms

        parsed = parse_addresses(addresses), parse_routes(routes)
        settings = AdapterSettings(name, *parsed, mtu, netns, persistent, owner, group, offload, queues)
        settings = settings._replace(dns=parse_servers(dns), search=parse_domains(search), metric=metric)
        settings = settings._replace(guid=parse_guid(guid), tunnel_type=tunnel_type)
        return Adapter(platforms.create(settings.checked()))

    @classmethod
    def open(cls, name: str, *, netns: Namespace | None = None, offload: bool = True, queues: int = 1) -> "Adapter":
        """Open a persistent interface that exists; it stays when it is closed. `offload` as in `create`.

        `queues` also, but several only where it was created with several.

        Raises `AdapterNotFound`, `AdapterBusy`, `PermissionDenied`, `AdapterUnavailable`,
        `NamespaceNotFound`, `InvalidSetting`.
        """
        from threepipe import platforms

        return Adapter(platforms.open_existing(check_name(name), netns, offload, check_queues(queues)))

    @property
    def info(self) -> AdapterInfo:
        """All that the system says of it, asked now. Raises `AdapterClosed`, `AdapterGone`."""
        self._check_open()
        return self._device.info()

    @property
    def mtu(self) -> int:
        """Bytes of the longest packet the system sends through it; can be set. Raises as `info`."""
        return self.info.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        info = self.info
        ipv6 = any(item.version == 6 and not item.is_link_local for item in info.addresses + info.routes)
        self._device.set_mtu(check_mtu(mtu, ipv6=ipv6))

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Its own addresses with prefix length, as the system has them now. Raises as `info`."""
        return self.info.addresses

    @property
    def link_up(self) -> bool:
        """Whether the system sees a link, which is so while a session is open. Raises as `info`."""
        return self.info.link_up

    @property
    def statistics(self) -> AdapterStatistics:
        """The system's own counts. Raises as `info`."""
        return self.info.statistics

    def start_session(self, capacity: int = DEFAULT_CAPACITY) -> Session:
        """Take the link up and start traffic.

        `capacity`: bytes of packets that may wait for the program, a power of two from 128 KiB to
        64 MiB; what the system has beyond that it drops and counts. Raises `SessionExists`,
        `InvalidSetting`, `AdapterClosed`, `AdapterGone`, `LinkDown`.
        """
        check_capacity(capacity)
        with self._lock:
            self._check_open()
            if self._session is not None:
                if not self._session.closed:
                    raise SessionExists(f"{self.name} has a session; an adapter has one at a time: close it first")
                self._session.close()  # Another thread may be closing it just now: wait for that.
            self._session = Session(self._device.start(capacity))
            return self._session

    def delete(self) -> None:
        """Close it and remove the interface, a persistent one too. Raises `AdapterClosed`."""
        with self._lock:
            self._check_open()
            self._device.unpersist()
        self.close()

    def close(self) -> None:
        """Close the session and the adapter; removes the interface unless persistent. May be repeated."""
        with self._lock:
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

    def _check_open(self) -> None:
        if self._closed:
            raise AdapterClosed(f"{self.name} was closed; create or open it again")


def adapters(netns: Namespace | None = None) -> list[AdapterInfo]:
    """The layer-3 virtual interfaces of this system (or of a network namespace), whoever made them."""
    from threepipe import platforms

    return platforms.adapters(netns)
