"""EndpointPort: what the ports of all endpoints but adapters have in common. Knows no kind."""

from threepipe.backend import Counts, Port
from threepipe.core.pump import Loan
from threepipe.net.watch import Watch

__all__ = ["EndpointPort"]


class EndpointPort:
    """A `Port` without a shorter way than bundles; its kinds add `receive`, `send` and `stop`."""

    def __init__(self) -> None:
        self.readable = Watch()
        self.writable = Watch()

    def pump(self, other: Port, counts: tuple[Counts, Counts], other_counts: tuple[Counts, Counts]) -> bool:
        return False

    def join(self, loan: Loan, counts: tuple[Counts, Counts]) -> bool:
        return False

    def interrupt(self) -> None:
        """Nothing: there is no `pump` to be interrupted."""

    def wake(self) -> None:
        self.readable.ring(for_ever=True)
        self.writable.ring(for_ever=True)

    def dispose(self) -> None:
        self.readable.close()
        self.writable.close()
