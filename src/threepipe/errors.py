"""Every exception that threepipe raises, and when.

A `ThreepipeError` that is also a `ValueError` means that the caller gave a value that cannot work. An `AdapterError`
or `EndpointError` is also an `OSError`: the operating system refused, `errno` has its error number, and the text says
what to do. A subclass exists only where a program would act differently. This module knows no platform; the platforms
choose the class and the text. Programs print it without keys.
"""

import re
import sys

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

_KEY = re.compile(r"[A-Za-z0-9+/]{43}=|[0-9A-Fa-f]{64}")
"""A key of WireGuard, in base64 or hex."""
_MIN_PART = 12  # Characters.


def text_of(error: Exception) -> str:
    """Return the text of an error for people; that of an OSError starts with its errno, and ends with its file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def hide_given_keys(text: str) -> str:
    """Return `text` without the keys of WireGuard among the arguments of this program, and without parts of them.

    Arguments, which other users can see, are no place for keys; errors, which people pass on, must not repeat them.
    Other texts of that form stay, such as the fingerprints of certificates.
    """
    for argument in sys.argv[1:]:
        for key in _KEY.findall(argument):
            # An address or a path is taken apart at these characters.
            parts = [part for part in re.split("[=/+]", key) if len(part) >= _MIN_PART]
            for part in (key, key.rstrip("="), *parts):
                text = text.replace(part, "(hidden)")
    return text


class ThreepipeError(Exception):
    """The base class of all exceptions that threepipe raises on purpose."""


class InvalidSetting(ThreepipeError, ValueError):
    """A name, address, route, MTU, capacity, owner or namespace cannot work.

    Raised before anything is created. A value that only this machine refuses raises `AdapterError`.
    """


class InvalidPacket(ThreepipeError, ValueError):
    """A packet to be sent is not an IPv4 or IPv6 packet; nothing of its bundle was sent.

    `index` is its position in the bundle. Received packets never raise this.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index = index

    def __str__(self) -> str:
        return f"packet {self.args[0]} {self.args[1]}"


class SessionClosed(ThreepipeError):
    """The session was closed, by you or by closing its adapter. Every waiter gets this.

    An adapter that another program removed raises `AdapterGone`.
    """


class SessionExists(ThreepipeError):
    """The adapter already has an open session, and an adapter has one at a time."""


class AdapterClosed(ThreepipeError):
    """This adapter object is closed; open or create the adapter again."""


class RingCorrupt(ThreepipeError):
    """The other side wrote invalid ring state; this direction of the ring is unusable.

    Wintun's ERROR_INVALID_DATA. Packets that are merely not IP do not raise this.
    """


class RingEnded(ThreepipeError):
    """The other side has ended the ring; packets still in it are lost. Wintun's ERROR_HANDLE_EOF."""


class EndpointEnded(ThreepipeError):
    """An endpoint has ended regularly: its other end was closed, or a replay is over.

    A connection that breaks in the middle of a packet raises `EndpointError`.
    """


class EndpointError(ThreepipeError, OSError):
    """The operating system or the other end refused an operation on a connection, file or program.

    `errno` has the error number, and the text says what to do.
    """


class AdapterError(ThreepipeError, OSError):
    """The operating system refused an operation on an adapter.

    `errno` has the error number, and the text says what to do. This class itself is raised if no subclass fits.
    """


class AdapterUnavailable(AdapterError):
    """This machine cannot create adapters now: no TUN device, no driver, or no support.

    A lack of privilege raises `PermissionDenied`. `MemoryAdapter` needs none of these.
    """


class PermissionDenied(AdapterError, PermissionError):
    """This user lacks the privilege; another user may have it, or may give this user the adapter."""


class NameTaken(AdapterError):
    """`Adapter.create` got the name of an existing interface."""


class AdapterNotFound(AdapterError):
    """`Adapter.open` found no adapter of that name."""


class AdapterBusy(AdapterError):
    """Another program (or another `Adapter` object of this one) has the adapter open."""


class AdapterGone(AdapterError):
    """The open adapter was removed, by an administrator or another program.

    The session is unusable from then on. Your own `close()` raises `SessionClosed` instead.
    """


class LinkDown(AdapterError):
    """An administrator set the interface down; sending works again once it is up."""


class NamespaceNotFound(AdapterError):
    """No network namespace has that name, path or process."""


class IPv6Unavailable(AdapterError):
    """Only IPv6 addresses or routes were given, and IPv6 is disabled on this machine.

    With IPv4 addresses or routes too, the adapter works for IPv4, and a warning is logged instead.
    """
