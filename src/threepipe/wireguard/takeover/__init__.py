"""Takeover: another process goes on with a running device, and no packet is lost.

The running process listens at a Unix socket of its own, `NAME.takeover` beside the management socket. These are the
steps; the new process is on the left:

    hello       ->              who it is, and the version of this exchange
                <- offer        descriptors of the adapter, the listening sockets and the journal; the settings
    prepared    ->              it has loaded everything; only now does the running process stop
                <- state        UDP sockets and clients; keys, counters, replay windows, timers, peers, kept packets
    mine        ->              from here on, only the new process seals and opens
    running     ->              packets pass in both directions; the old process ends

From `prepared` on the old process stands still, and packets wait in the kernel's queues of adapter and sockets. A
process that ends closes its connection, however it ends. So if anything fails before `mine`, the old process goes on
as if nothing had happened. At `mine` it wipes its keys, as a counter that two processes use gives away what both
messages say. If the new process ends between `mine` and `running`, the old one goes on with new handshakes, as it does
not know the last counters, nor the messages that the new one has accepted. A message that arrives after a refusal
(`revoke`) cannot be lost, so both always agree on whose the device is.

Secrets pass through memory alone, which is wiped after use.
"""

from threepipe.wireguard.takeover.exchange import VERSION
from threepipe.wireguard.takeover.giving import Giving, Running, handing_over
from threepipe.wireguard.takeover.taking import Taking

__all__ = ["VERSION", "Giving", "Running", "Taking", "handing_over"]
