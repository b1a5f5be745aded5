"""Parts: the ends of a pipe with which another process can go on, as data for JSON and descriptors.

Knows no addresses, and no exchange between processes.
"""

import os
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from threepipe.adapter import Adapter, adopt, claim, give_away, share
from threepipe.backend import Share
from threepipe.endpoints.connection import Connection
from threepipe.endpoints.stream import SocketStream

__all__ = ["AdapterPart", "Part", "State", "Taken"]

State = dict[str, Any]
"""Data for JSON."""


class Part(Protocol):
    """An end of a pipe. The pipe is paused while a method runs, except `give_away`, after which it ends."""

    def state(self) -> tuple[State, Sequence[int]]:
        """Return everything that another process needs to go on, and descriptors, which stay those of this end."""

    def give_away(self) -> None:
        """Leave the end to another process: closing this one changes nothing about it."""

    def claim(self) -> None:
        """Own an end that was taken over: closing it ends everything, as if it was opened here."""

    def lose(self) -> None:
        """Go on without the other process, which may have received and sent since `state`."""


class AdapterPart:
    """The part of an adapter."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def state(self) -> tuple[State, Sequence[int]]:
        """Return the interface, as `Taken.adapter` reads it, and its descriptors."""
        shared = share(self._adapter)
        return {"share": [shared.name, shared.index, shared.form]}, shared.descriptors

    def give_away(self) -> None:
        """Leave the interface to another process."""
        give_away(self._adapter)

    def claim(self) -> None:
        """Have the interface end with the adapter, unless it is persistent."""
        claim(self._adapter)

    def lose(self) -> None:
        """Do nothing: a packet is whole, or lost."""


class Taken:
    """An end of another process, with which this one goes on: its state, and the descriptors that nobody owns yet."""

    def __init__(self, state: State, descriptors: Sequence[int]) -> None:
        """Own the descriptors."""
        self.state = state
        self._descriptors = list(descriptors)

    def adapter(self) -> Adapter:
        """Return the adapter. Raises `AdapterError`."""
        (name, index, form), descriptors = self.state["share"], self._descriptors
        self._descriptors = []
        return adopt(Share(name, index, form, descriptors))

    def socket(self) -> socket.socket:
        """Return the next socket."""
        return socket.socket(fileno=self._descriptors.pop(0))

    def connections(self) -> list[tuple[Connection, SocketStream]]:
        """Return the connections, first the one that is used if `state` is `connected`, and their streams."""
        streams = [(state, SocketStream(self.socket())) for state in self.state["connections"]]
        return [(Connection.resumed(stream, state), stream) for state, stream in streams]

    def close(self) -> None:
        """Close the descriptors that nobody owns."""
        while self._descriptors:
            os.close(self._descriptors.pop())
