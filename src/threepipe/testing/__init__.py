"""The conformance suite: it checks every promise of the contract for any kind of adapter.

`check_adapter(make)` runs all of `CHECKS`, each on a new adapter. A check is a function that raises AssertionError,
and can be run alone. The suite uses an adapter from both sides: as its program, and through a `Wire` as its network.
"""

from collections.abc import Callable

from threepipe.adapter import Adapter
from threepipe.testing import adapters, packets, sessions, single_packets
from threepipe.testing.wire import Make, Wire, make_memory_adapter

__all__ = ["CHECKS", "Make", "Wire", "check_adapter", "make_memory_adapter"]

CHECKS: tuple[Callable[[Adapter, Wire], None], ...] = (
    packets.check_both_directions,
    packets.check_kinds_of_packets,
    packets.check_validation,
    packets.check_overflow,
    packets.check_memory,
    single_packets.check_one_packet_calls,
    single_packets.check_one_packet_threads,
    single_packets.check_one_packet_asyncio,
    sessions.check_timeouts,
    sessions.check_link_state,
    sessions.check_one_session,
    sessions.check_close_wakes_threads,
    sessions.check_after_close,
    sessions.check_threads,
    sessions.check_fileno,
    sessions.check_asyncio,
    sessions.check_statistics,
    adapters.check_adapter_end,
    adapters.check_mtu,
    adapters.check_addresses,
)
"""Every check of the suite, in reading order."""


def check_adapter(make: Make) -> None:
    """Run every check, each on a new adapter. Raises AssertionError, whose text names the broken promise."""
    for check in CHECKS:
        with make() as (adapter, wire):
            check(adapter, wire)
