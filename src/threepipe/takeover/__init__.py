"""Takeover: another process goes on with the work of this one. The room knows neither devices nor pipes.

The running process listens at a Unix socket of its own. These are the steps; the new process is on the left:

    hello       ->              its kind and network, and the version of this exchange
                <- offer        settings, and descriptors that do not change
    prepared    ->              it has loaded everything; only now does the running process stop
                <- state        descriptors, and everything that changes while the process works
    mine        ->              from here on, only the new process works
    running     ->              packets pass in both directions; the old process ends

From `prepared` on the old process stands still, and packets wait in the kernel's queues. A process that ends closes its
connection, however it ends. So if anything fails before `mine`, the old process goes on as if nothing had happened. A
message that arrives after a refusal (`revoke`) cannot be lost, so both always agree on which one works.
"""

from threepipe.takeover.giving import Giving, Server
from threepipe.takeover.limits import SECONDS_TO_ANSWER, SECONDS_TO_BEGIN, SECONDS_TO_PREPARE
from threepipe.takeover.taking import Taking

__all__ = ["SECONDS_TO_ANSWER", "SECONDS_TO_BEGIN", "SECONDS_TO_PREPARE", "Giving", "Server", "Taking"]
