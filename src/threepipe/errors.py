"""Every exception threepipe raises, and when.

Two families. A `ThreepipeError` that is also a `ValueError` says the caller gave something that
cannot work. An `AdapterError` is also an `OSError`: the operating system refused, its errno is kept
in `.errno`, and the text says what to do next. There is a class of its own only where a program
would act differently. This file knows no platform: the platforms choose the class and the text.
"""

__all__ = [
    "AdapterBusy",
    "AdapterClosed",
    "AdapterError",
    "AdapterGone",
    "AdapterNotFound",
    "AdapterUnavailable",
    "EndpointEnded",
    "EndpointError",
    "IPv6Unavailable",
    "InvalidPacket",
    "InvalidSetting",
    "LinkDown",
    "NameTaken",
    "NamespaceNotFound",
    "PermissionDenied",
    "RingCorrupt",
    "RingEnded",
    "SessionClosed",
    "SessionExists",
    "ThreepipeError",
]


class ThreepipeError(Exception):
    """The root: catches everything threepipe raises on purpose, and nothing else."""


class InvalidSetting(ThreepipeError, ValueError):
    """A name, address, route, MTU, capacity, owner or namespace that cannot work on any machine.

    Raised before anything was made. What only this machine refuses is an `AdapterError`.
    """


class InvalidPacket(ThreepipeError, ValueError):
    """Something given to be sent is not an IPv4 or IPv6 packet; nothing of its bundle was sent.

    `index` is its place in the bundle. Packets that arrive are never a reason for it.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index = index

    def __str__(self) -> str:
        return f"packet {self.args[0]} {self.args[1]}"


class SessionClosed(ThreepipeError):
    """The session was closed, by you or by closing its adapter; every waiter gets it.

    Not for an adapter that somebody else removed: that is `AdapterGone`.
    """


class SessionExists(ThreepipeError):
    """A second session was asked for while one is open: an adapter has one at a time."""


class AdapterClosed(ThreepipeError):
    """This adapter object was closed before; open or create the adapter again."""


class RingCorrupt(ThreepipeError):
    """The other side of a ring wrote what cannot be: the ring is of no more use in this direction.

    Wintun's ERROR_INVALID_DATA. Not raised for packets that are merely not IP.
    """


class RingEnded(ThreepipeError):
    """The other side of a ring has ended it, with whatever was still in it. Wintun's ERROR_HANDLE_EOF."""


class EndpointEnded(ThreepipeError):
    """Nothing more will come from an endpoint: its other end closed the connection, or a replay is over.

    The ordinary end. A connection that breaks in the middle of a packet is an `EndpointError`.
    """


class EndpointError(ThreepipeError, OSError):
    """The operating system, or the other end, refused something about an endpoint that is no adapter.

    A connection, a file, a program; `errno` says how, the text what to do.
    """


class AdapterError(ThreepipeError, OSError):
    """The operating system refused something about an adapter; `errno` says how, the text what to do.

    This class itself is raised where no subclass fits.
    """


class AdapterUnavailable(AdapterError):
    """This machine cannot make adapters at all now: no TUN device, no driver, or no support.

    Not a matter of privilege (`PermissionDenied`). `MemoryAdapter` works without any of it.
    """


class PermissionDenied(AdapterError, PermissionError):
    """This user may not do that; another user, or the same adapter given to this one, could."""


class NameTaken(AdapterError):
    """`Adapter.create` was given the name of an interface that exists."""


class AdapterNotFound(AdapterError):
    """`Adapter.open` found no adapter of that name to open."""


class AdapterBusy(AdapterError):
    """Another program (or another `Adapter` object of this one) has the adapter open."""


class AdapterGone(AdapterError):
    """The adapter was removed under its holder: by an administrator, or by the other end of its pair.

    Terminal: the session is of no more use. Not raised after your own `close()` (`SessionClosed`).
    """


class LinkDown(AdapterError):
    """The interface was set down by an administrator; sending works again once it is up."""


class NamespaceNotFound(AdapterError):
    """There is no network namespace of that name, path or process."""


class IPv6Unavailable(AdapterError):
    """Only IPv6 addresses or routes were asked for, and IPv6 is disabled on this machine.

    Where IPv4 was asked for too, the adapter works for IPv4 and a warning is logged instead.
    """
