"""Changes of interfaces and routes, as the routing socket reports them."""

import errno

from threepipe.platforms.bsd.kind import FIONBIO, ON, SOCK_RAW, Kind
from threepipe.platforms.bsd.system import System

__all__ = ["Changes"]


class Changes:
    """A routing socket; its descriptor is readable after a change."""

    def __init__(self, system: System, kind: Kind) -> None:
        """Listen from now on. Raises `OSError`."""
        self._system = system
        self._descriptor = system.socket(kind.route, SOCK_RAW, 0)
        self._rest = bytearray(1)
        try:
            system.ioctl(self._descriptor, FIONBIO, ON)
        except BaseException:
            system.close(self._descriptor)
            raise

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def happened(self) -> bool:
        """Return True if something has changed since the last call. Raises `OSError`."""
        changed = False
        try:
            while self._system.readv(self._descriptor, (self._rest,)):  # A short read loses the rest of the message.
                changed = True
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return True  # It could not keep all of them.
            if error.errno != errno.EAGAIN:
                raise
        return changed

    def close(self) -> None:
        """Close the socket."""
        self._system.close(self._descriptor)
