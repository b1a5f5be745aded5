"""Takeover: another process goes on with a running device, and no packet is lost.

The steps are those of `threepipe.takeover`; the socket is `NAME.takeover` beside the management socket. `offer` has the
descriptors of the adapter, the listening sockets and the journal, and the settings. `state` has the UDP sockets and
clients, keys, counters, replay windows, timers, peers and kept packets.

At `mine` the old process wipes its keys, as a counter that two processes use gives away the contents of both messages.
If the new process ends between `mine` and `running`, the old one goes on with new handshakes, as it does not know the
last counters, nor the messages that the new one has accepted.

Secrets pass through memory alone, which is wiped after use.
"""

from threepipe.wireguard.takeover.exchange import VERSION
from threepipe.wireguard.takeover.giving import Giving, Running, handing_over
from threepipe.wireguard.takeover.taking import Taking

__all__ = ["VERSION", "Giving", "Running", "Taking", "handing_over"]
