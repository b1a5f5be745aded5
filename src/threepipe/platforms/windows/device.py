"""Adapters on Windows: an adapter of Wintun's driver, and the interface that lives while its handle is open.

This module combines the library, the IP Helper and events; none of these knows another.
"""

import atexit
import errno
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, NoReturn

from threepipe.backend import AdapterInfo
from threepipe.errors import AdapterError, AdapterNotFound, AdapterUnavailable, InvalidSetting, NameTaken
from threepipe.platforms.windows.interface import Interface, describe_all
from threepipe.platforms.windows.iphelper import IpHelper
from threepipe.platforms.windows.port import WindowsPort
from threepipe.platforms.windows.waiting import Events
from threepipe.platforms.windows.winerror import windows_error
from threepipe.platforms.windows.wintun import ERROR_ALREADY_EXISTS, Wintun
from threepipe.settings import AdapterSettings, Address, NamespaceName, Network, WindowsSettings

__all__ = ["System", "WindowsDevice", "adapters", "create", "guid_of", "open_existing"]

TUNNEL_TYPE = "threepipe"
"""The default description of adapters; Windows appends the word Tunnel."""

_NAMES = uuid.UUID("8f1b2a64-5d3e-4c0b-9a77-2e6d1c0f4b93")  # Random, and never to change: GUIDs derive from it.
_MAX_METRIC = 9999  # The limit of netsh interface ipv4 set interface.
_MAX_NUMBERS = 1000  # How many numbers are tried in a template.


class System(NamedTuple):
    """The DLLs of this Windows that adapters need, or stand-ins of a test."""

    wintun: Wintun
    ip: IpHelper
    events: Events


def create(settings: AdapterSettings) -> "WindowsDevice":
    """Create the adapter and set it up; on an error leave nothing behind."""
    return create_on(system, settings)


def open_existing(
    name: str, netns: NamespaceName | None, offload: bool, queues: int, packet_information: bool
) -> "WindowsDevice":
    """Open another handle of an adapter that some program has created with Wintun's driver."""
    _refuse(packet_information=packet_information)
    return open_on(system, name, netns, queues)


def adapters(netns: NamespaceName | None) -> list[AdapterInfo]:
    from threepipe.platforms.windows import iphelper

    _refuse(netns=netns)
    return describe_all(iphelper.system())


@cache
def system() -> System:
    """Return the DLLs of this Windows. Raises `AdapterUnavailable` if there is no library."""
    if sys.platform != "win32":
        raise AdapterUnavailable(errno.ENOSYS, "Wintun's driver runs on Windows only")
    from threepipe.platforms.windows import events, iphelper, library

    wintun = Wintun(library.load_library(library.find_library()))
    atexit.register(wintun.silence)  # Later the library could not call Python any more.
    return System(wintun, iphelper.system(), events.system())


def create_on(find: Callable[[], System], settings: AdapterSettings) -> "WindowsDevice":
    """Create an adapter on the system that `find` returns, which is called only if Windows can apply the settings."""
    _refuse(settings.netns, settings.persistent, settings.queues, settings.packet_information)
    if settings.metric is not None and settings.metric > _MAX_METRIC:
        raise InvalidSetting(f"metric {settings.metric}: on Windows give 1 to {_MAX_METRIC}")
    found = find()
    if settings.windows is not None and (settings.windows.dns or settings.windows.search):
        found.ip.check_dns()
    if "%d" not in settings.name:
        return _create(found, settings)
    for number in range(_MAX_NUMBERS):
        try:
            return _create(found, settings._replace(name=settings.name.replace("%d", str(number))))
        except NameTaken:
            continue
    raise _name_taken(f"{settings.name} with every number below {_MAX_NUMBERS}")


def open_on(find: Callable[[], System], name: str, netns: NamespaceName | None, queues: int) -> "WindowsDevice":
    """Open an adapter on the system that `find` returns."""
    _refuse(netns, queues=queues)
    found = find()
    return _device(found, name, found.wintun.open_adapter(name))


def guid_of(name: str) -> uuid.UUID:
    """Return the GUID for adapters of that name: always the same, so that Windows recognises the network."""
    return uuid.uuid5(_NAMES, name.casefold())


class WindowsDevice:
    """The handle of an adapter."""

    def __init__(self, system: System, adapter: int, luid: int, name: str) -> None:
        self._system = system
        self._adapter = adapter
        self._luid = luid
        self._name = name
        self._interface = Interface(system.ip, luid, name)
        self._lock = threading.Lock()
        self.index = system.ip.index_of(luid)

    @property
    def name(self) -> str:
        try:
            self._name = self._system.ip.alias_of(self._luid)
        except AdapterError:
            pass  # It is closed or gone, so this was its last name.
        return self._name

    def configure(self, settings: AdapterSettings) -> None:
        """Apply the settings, which are undone when it closes. Raises as `Interface.configure` does."""
        self._interface.configure(settings)

    def info(self) -> AdapterInfo:
        return self._interface.describe()

    def set_mtu(self, mtu: int) -> None:
        self._interface.set_mtu(mtu)

    def add(self, item: Address | Network) -> None:
        self._interface.add(item)

    def remove(self, item: Address | Network) -> None:
        self._interface.remove(item)

    def start(self, capacity: int) -> WindowsPort:
        wintun = self._system.wintun
        session = wintun.start_session(self._adapter, self.name, capacity)
        try:
            return WindowsPort(wintun, session, self.name, capacity, self._system.events)
        except BaseException:
            wintun.end_session(session)
            raise

    def detach(self, capacity: int) -> NoReturn:
        raise AdapterUnavailable(errno.ENOTSUP, "adapters on Windows have no descriptor; use `threepipe pipe` in place")

    def unpersist(self) -> None:
        """Do nothing: an adapter of this driver never outlives the program that created it."""

    def close(self) -> None:
        with self._lock:
            adapter, self._adapter = self._adapter, 0
        if adapter:
            try:
                self._interface.undo()
            finally:
                self._system.wintun.close_adapter(adapter)


def _create(system: System, settings: AdapterSettings) -> WindowsDevice:
    name = settings.name
    _check_free(system, name)
    windows = settings.windows or WindowsSettings()
    adapter = system.wintun.create_adapter(name, windows.tunnel_type or TUNNEL_TYPE, windows.guid or guid_of(name))
    device = _device(system, name, adapter)
    with _closed_on_error(device.close):
        device.configure(settings)
    return device


def _device(system: System, name: str, adapter: int) -> WindowsDevice:
    """Return the device of a new handle; on an error close the handle."""
    with _closed_on_error(lambda: system.wintun.close_adapter(adapter)):
        luid = system.wintun.adapter_luid(adapter)
        found = system.ip.alias_of(luid)
        if found.casefold() != name.casefold():
            raise _name_taken(name)  # Another program took the name, and the library renamed the adapter.
        return WindowsDevice(system, adapter, luid, found)


def _check_free(system: System, name: str) -> None:
    """Raise `NameTaken` if an interface has that name: the library would silently rename it."""
    if system.ip.luid_of(name) is not None:
        _remove_leftovers(system, name)
        if system.ip.luid_of(name) is not None:
            raise _name_taken(name)


def _remove_leftovers(system: System, name: str) -> None:
    """Remove the adapters of crashed programs, which the library does before it opens any adapter."""
    try:
        system.wintun.close_adapter(system.wintun.open_adapter(name))
    except AdapterNotFound:
        pass  # It is another kind of interface, or is gone now.


def _name_taken(name: str) -> NameTaken:
    text = f"an interface named {name} exists; choose another name, a template like tp%d, or open it"
    return windows_error(NameTaken, ERROR_ALREADY_EXISTS, text)


def _refuse(
    netns: NamespaceName | None = None, persistent: bool = False, queues: int = 1, packet_information: bool = False
) -> None:
    """Raise `InvalidSetting` for settings that Windows does not have."""
    if netns is not None:
        raise InvalidSetting("Windows has no network namespaces; leave out netns")
    if persistent:
        raise InvalidSetting("on Windows an adapter never outlives its program; leave out persistent")
    if packet_information:
        raise InvalidSetting("adapters on Windows have no packet information; leave out packet_information")
    if queues != 1:
        raise InvalidSetting(f"{queues} queues: adapters on Windows have one; leave out queues")


@contextmanager
def _closed_on_error(close: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        close()
        raise
