"""The common part of the ports in memory with which tests stand in for adapters."""

from threepipe.net.doorbell import Doorbell

__all__ = ["PortInMemory"]


class PortInMemory:
    """A port with doorbells to wait for, and neither packets nor descriptors to lend. Subclasses receive and send."""

    def __init__(self) -> None:
        self.readable, self.writable = Doorbell(), Doorbell()

    def lend(self) -> None: ...

    def wake(self) -> None:
        self.readable.ring(for_ever=True)

    def stop(self) -> None: ...

    def dispose(self) -> None:
        self.readable.close()
        self.writable.close()
