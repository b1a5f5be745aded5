"""Interfaces of other programs as devices of adapters, so that a process can hand them over as it does with its own.

The interface belongs to its creator, as `inherited` says: starting and closing change neither its link nor its flags.
"""

import sys

assert sys.platform == "linux"

import socket
from contextlib import suppress

from threepipe.backend import Share
from threepipe.errors import AdapterError
from threepipe.platforms.linux.device import Descriptors, LinuxDevice
from threepipe.platforms.linux.inherited import Inherited, inspect
from threepipe.platforms.linux.namespace import Namespace
from threepipe.platforms.linux.port import LinuxPort

__all__ = ["InheritedDevice", "adopt_inherited", "inherit"]

_NOWHERE = 0  # The index of no interface.


class InheritedDevice(LinuxDevice):
    """An interface whose descriptor another program left to this process."""

    def __init__(self, inherited: Inherited) -> None:
        descriptors = Descriptors(bool(inherited.prefix.header), 1, inherited.prefix.information)
        descriptors.files, descriptors.offload = [inherited.file], inherited.offload
        index = _NOWHERE
        with suppress(OSError):  # It may be in another network namespace.
            index = socket.if_nametoindex(inherited.name)
        super().__init__(inherited.name, index, descriptors, Namespace(None), None)
        self._inherited = inherited

    def share(self) -> Share:
        shared = super().share()
        shared.form["inherited"] = True
        return shared

    def start(self, capacity: int) -> LinuxPort:
        return self._inherited.port(self._take_link_down)

    def _take_link_up(self, capacity: int) -> None:
        pass

    def _take_link_down(self) -> None:
        if not self.given:
            self._refuse_superpackets()

    def _refuse_superpackets(self) -> None:
        """Have the kernel send no superpackets; the size of the header stays that of the creator."""
        self._inherited.refuse_superpackets()


def inherit(number: int) -> LinuxDevice | None:
    """Return a device that owns the descriptor `number`; return None if it is not of a TUN device.

    Raises as `open_inherited` does.
    """
    inherited = inspect(number)
    return None if inherited is None else InheritedDevice(inherited)


def adopt_inherited(shared: Share) -> LinuxDevice:
    """Return a device of an interface that another process inherited and shares. Raises `AdapterError`."""
    (number,) = shared.descriptors
    device = inherit(number)
    if device is None:
        raise AdapterError(None, f"the descriptor of {shared.name} is not of a TUN device; take it down, and up again")
    return device.adopted()
