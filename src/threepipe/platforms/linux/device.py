"""Adapters on Linux: TUN descriptors, and the interface that lives while they are open.

This module combines the TUN driver, netlink and namespaces; none of these knows another.
"""

import sys

assert sys.platform == "linux"

import errno
import grp
import io
import os
import pwd
import socket
from collections.abc import Callable, Sequence
from typing import Self

from threepipe.backend import AdapterInfo, Share
from threepipe.core import fast
from threepipe.errors import (
    AdapterBusy,
    AdapterError,
    AdapterGone,
    AdapterUnavailable,
    InvalidSetting,
    NameTaken,
)
from threepipe.net.forks import call_in_child
from threepipe.platforms.linux import addressing, netlink, tun
from threepipe.platforms.linux.inherited import Prefix
from threepipe.platforms.linux.namespace import Namespace, opening
from threepipe.platforms.linux.place import Place
from threepipe.platforms.linux.port import LinuxPort
from threepipe.settings import AdapterSettings, Address, NamespaceName, Network

__all__ = ["Descriptors", "LinuxDevice", "adapters", "adopt", "create", "open_existing", "taken_descriptors"]

_MAX_ID = 0xFFFFFFFE  # To the kernel 0xFFFFFFFF means "no owner".


def create(settings: AdapterSettings) -> "LinuxDevice":
    """Create the interface and set it up; on an error leave nothing behind."""
    _refuse(settings)
    owner = _resolve_id("owner", settings.owner, lambda name: pwd.getpwnam(name).pw_uid)
    group = _resolve_id("group", settings.group, lambda name: grp.getgrnam(name).gr_gid)
    several = settings.queues > 1
    if (settings.persistent or several) and owner is None and group is None:
        owner = os.geteuid()  # Any user could open an interface without an owner, or take a queue of it.

    def attach(descriptors: "Descriptors") -> tuple[str, int]:
        try:
            name = descriptors.attach(settings.name, create=True, several=several)
        except NameTaken as error:
            raise (netlink.taken(settings.name) if error.errno == errno.EBUSY else error) from None
        index = socket.if_nametoindex(name)
        file = descriptors.queues[0]
        _give(file, tun.TUNSETOWNER, "owner", owner)
        _give(file, tun.TUNSETGROUP, "group", group)
        if several and netlink.queues(index, name) > len(descriptors.files):
            raise AdapterBusy(errno.EBUSY, f"another program took a queue of {name} before it had an owner; try again")
        addressing.configure(index, settings)
        if settings.persistent:  # Last: until then, closing the descriptors undoes everything.
            tun.control(file, tun.TUNSETPERSIST, 1)
        return name, index

    descriptors = Descriptors(settings.offload, settings.queues, settings.packet_information)
    return _device(settings.netns, descriptors, attach, settings.metric)


def open_existing(
    name: str, netns: NamespaceName | None, offload: bool, queues: int, packet_information: bool
) -> "LinuxDevice":
    """Attach to a persistent interface."""

    def attach(descriptors: "Descriptors") -> tuple[str, int]:
        index, true_name, several = netlink.find(name)  # First, as the driver would create a missing interface.
        if queues > 1 and not several:
            raise InvalidSetting(f"{name} has one queue; to use {queues}, create it with them")
        if not several:
            return descriptors.attach(true_name, create=False, several=False), index
        with opening():
            return _attach_alone(descriptors, true_name, index), index

    return _device(netns, Descriptors(offload, queues, packet_information), attach)


def _attach_alone(descriptors: "Descriptors", name: str, index: int) -> str:
    """Attach to an interface with several queues that nobody else holds. Raises `AdapterBusy`.

    The kernel gives queues of an interface in use to anyone who may open it. So look first, as attaching disturbs the
    holder, and look again afterwards, for a program that attached meanwhile and did not wait for `opening`.
    """
    busy = AdapterBusy(errno.EBUSY, f"{name} is in use by another program; close it there first")
    if netlink.queues(index, name):
        raise busy

    def check_alone() -> None:
        if netlink.queues(index, name) != 1:
            raise busy

    return descriptors.attach(name, create=False, several=True, attached=check_alone)


def taken_descriptors(shared: Share, numbers: Sequence[int]) -> "Descriptors":
    """Own the descriptors `numbers` of an interface that another process shares. Raises `AdapterError`."""
    form = shared.form
    descriptors = Descriptors(form["wanted"], form["queues"], form["information"])
    descriptors.take(numbers, tun.Offload(form["offload"]))
    return descriptors


def adopt(shared: Share) -> "LinuxDevice":
    """Return a device of an interface that another process shares."""
    descriptors = taken_descriptors(shared, shared.descriptors)
    return LinuxDevice(shared.name, shared.index, descriptors, Namespace(None), shared.form["metric"]).adopted()


def adapters(netns: NamespaceName | None) -> list[AdapterInfo]:
    namespace = Namespace.find(netns)
    try:
        return namespace.run(netlink.describe_all)
    finally:
        namespace.close()


class Descriptors:
    """The open files of one interface: some to receive from, and one to send to; with one queue they are the same."""

    def __init__(self, offload: bool, queues: int, information: bool) -> None:
        self.files: list[io.FileIO] = []
        self.offload = tun.Offload.NONE
        self.wanted = offload
        self.information = information
        self._count = queues

    @property
    def queues(self) -> list[io.FileIO]:
        return self.files[: self._count]

    @property
    def sender(self) -> io.FileIO:
        return self.files[-1]

    def attach(self, name: str, *, create: bool, several: bool, attached: Callable[[], None] = lambda: None) -> str:
        """Open all files and return the interface's name. On an error some may be open.

        `attached` is called between attaching the first file and changing anything of the interface.
        """
        first = self._open()
        form = {"offload": self.wanted, "information": self.information}
        name = tun.attach(first, name, create=create, several=several, **form)
        attached()
        # For Python alone, wide headers cost each packet more than superpackets of tunnels gain.
        self.offload = tun.prepare(first, offload=self.wanted, tunnels=fast.NATIVE)
        if self._count > 1:
            for number in range(1, self._count + 1):
                tun.attach_queue(self._open(), name, receives=number < self._count, **form)
        return name

    def take(self, numbers: Sequence[int], offload: tun.Offload) -> None:
        """Own the descriptors of an interface that another process made. Raises `AdapterError` if some are missing."""
        if len(numbers) != (self._count if self._count == 1 else self._count + 1):
            raise AdapterError(errno.EBADF, f"{len(numbers)} descriptors came for {self._count} queues; try again")
        self.files = [io.FileIO(number, "r+") for number in numbers]
        for file in self.files:
            os.set_blocking(file.fileno(), False)
        self.offload = offload

    def _open(self) -> io.FileIO:
        self.files.append(tun.open_tun())
        return self.files[-1]

    def close(self) -> None:
        for file in self.files:
            file.close()


class LinuxDevice:
    """An attached interface."""

    def __init__(
        self, name: str, index: int, descriptors: Descriptors, namespace: Namespace, metric: int | None
    ) -> None:
        """`metric`: that of addresses and routes to come."""
        self._descriptors = descriptors
        self._file = descriptors.queues[0]
        self._metric = metric
        self._place = Place(self._file, name, index, namespace)
        self.given = False
        self._adopted = False  # True until the first session of an interface that another process has shared.
        call_in_child(self, LinuxDevice._leave_behind)

    def share(self) -> Share:
        descriptors = self._descriptors
        form = {
            "wanted": descriptors.wanted,
            "queues": len(descriptors.queues),
            "information": descriptors.information,
            "offload": descriptors.offload.value,
            "metric": self._metric,
        }
        return Share(self.name, self.index, form, [file.fileno() for file in descriptors.files])

    def adopted(self) -> Self:
        """Note that another process shares this interface and still has it."""
        self.given = self._adopted = True
        return self

    @property
    def descriptors(self) -> Descriptors:
        return self._descriptors

    def make_room(self, capacity: int) -> None:
        """Make room for `capacity` bytes of packets that wait in each queue, and set the interface up."""
        self._place.run(lambda index, name: netlink.make_room(index, name, capacity))

    def is_running(self) -> bool:
        """Return True if the link is up and passes packets."""
        return self._place.run(netlink.is_running)

    def remove_interface(self) -> None:
        """Remove the interface, even if other programs have its descriptors. Raises `AdapterGone`."""
        self._place.run(netlink.delete)

    @property
    def name(self) -> str:
        return self._place.name

    @property
    def index(self) -> int:
        return self._place.index

    def info(self) -> AdapterInfo:
        return self._place.run(netlink.describe)

    def set_mtu(self, mtu: int) -> None:
        self._place.run(lambda index, name: netlink.set_mtu(index, name, mtu))

    def add(self, item: Address | Network) -> None:
        self._place.run(lambda index, name: addressing.add(index, name, item, self._metric))

    def remove(self, item: Address | Network) -> None:
        self._place.run(lambda index, name: addressing.remove(index, name, item))

    def start(self, capacity: int) -> LinuxPort:
        descriptors = self._descriptors
        records = Prefix(information=True, header=0) if descriptors.information else fast
        adopted, self._adopted = self._adopted, False
        try:
            if not adopted:  # Else packets wait in its queue.
                self._take_link_up(capacity)
            return LinuxPort(
                descriptors.queues,
                descriptors.sender,
                self.name,
                descriptors.offload,
                self._take_link_down,
                records,
                switch=self._switch_superpackets,
            )
        except BaseException:
            self._take_link_down()
            raise

    def detach(self, capacity: int) -> int:
        descriptors = self._descriptors
        if len(descriptors.queues) > 1:
            raise InvalidSetting(
                f"{self.name} has several queues, each with a descriptor; to detach it leave out queues"
            )
        if descriptors.wanted and descriptors.offload is tun.Offload.NONE:
            raise AdapterUnavailable(errno.ENOTTY, f"{tun.PLAIN}, without a virtio header; give offload=False")
        try:
            self._take_link_up(capacity)
            tun.set_offload(self._file, offload=False)  # Its reader says which superpackets it knows.
            number = os.dup(self._file.fileno())
        except BaseException:
            self._take_link_down()
            raise
        os.set_blocking(number, True)
        self.close()
        return number

    def _take_link_up(self, capacity: int) -> None:
        each = capacity // len(self._descriptors.queues)
        self._place.run(lambda index, name: netlink.link_up(index, name, each, self._switch_carrier_on))

    def _switch_carrier_on(self) -> None:
        for queue in self._descriptors.queues:
            tun.discard(queue)  # These packets waited for an earlier session.
        if self._descriptors.offload is not tun.Offload.NONE:
            tun.switch(self._file, self._descriptors.offload)
        tun.set_carrier(self._file, up=True)

    def _switch_superpackets(self, on: bool) -> None:
        """Allow superpackets or not, while a session reads headers of one size."""
        kinds = self._descriptors.offload if on else tun.Offload.NONE
        tun.control(self._file, tun.TUNSETOFFLOAD, kinds.value)

    def _take_link_down(self) -> None:
        if self.given:
            return
        try:
            tun.set_carrier(self._file, up=False)
            tun.set_offload(self._file, offload=False)
        except AdapterGone:
            pass  # The link is gone too.

    def unpersist(self) -> None:
        try:
            tun.control(self._file, tun.TUNSETPERSIST, 0)
        except AdapterGone:
            pass  # It is removed already.

    def close(self) -> None:
        if not self._file.closed and not self.given:
            self._refuse_superpackets()
        with self._place.lock:
            self._descriptors.close()
        self._place.close()

    def _refuse_superpackets(self) -> None:
        try:
            tun.set_offload(self._file, offload=False)
        except AdapterGone:
            pass  # No program can open it again.

    def _leave_behind(self) -> None:
        """Close the files in a forked child, where they would keep the interface as long as it lives."""
        self._descriptors.close()
        self._place.leave_behind()


def _device(
    netns: NamespaceName | None,
    descriptors: Descriptors,
    attach: Callable[[Descriptors], tuple[str, int]],
    metric: int | None = None,
) -> LinuxDevice:
    """Call `attach` inside the namespace and return the device; on an error close everything."""
    namespace = Namespace.find(netns)
    try:
        name, index = namespace.run(lambda: attach(descriptors))
        return LinuxDevice(name, index, descriptors, namespace, metric)
    except BaseException:
        descriptors.close()
        namespace.close()
        raise


def _refuse(settings: AdapterSettings) -> None:
    """Raise `InvalidSetting` for settings that only adapters on Windows have."""
    if settings.windows is None:
        return
    if settings.windows.dns or settings.windows.search:
        raise InvalidSetting(
            "on Linux DNS belongs to the resolver, not to the adapter; leave out dns and search, and once the adapter"
            " exists run: resolvectl dns NAME SERVER and resolvectl domain NAME DOMAIN, or resolvconf -a NAME"
        )
    raise InvalidSetting("only adapters on Windows have a GUID and a tunnel type; leave out windows")


def _give(file: io.FileIO, request: int, kind: str, number: int | None) -> None:
    """Give the attached interface an owner or a group, unless `number` is None. Raises `AdapterError`."""
    if number is None:
        return
    try:
        tun.control(file, request, number)
    except AdapterError as error:
        if error.errno != errno.EINVAL:
            raise
        known = {"owner": "/proc/self/uid_map", "group": "/proc/self/gid_map"}[kind]
        text = f"{kind} {number} does not exist in this user namespace; give an id of {known}, or create it outside"
        raise AdapterError(error.errno, text) from None


def _resolve_id(kind: str, given: str | int | None, look_up: Callable[[str], int]) -> int | None:
    """Return the id of a user or group, given by name or id. Raises `InvalidSetting`."""
    if given is None:
        return None
    try:
        number = int(given) if isinstance(given, int) or given.isdecimal() else look_up(given)
    except (KeyError, ValueError):  # The second for more digits than Python reads.
        raise InvalidSetting(f"{kind} {given!r} does not exist on this machine; give a name or a numeric id") from None
    if not 0 <= number <= _MAX_ID:
        raise InvalidSetting(f"{kind} {given!r}: ids range from 0 to {_MAX_ID}")
    return number
