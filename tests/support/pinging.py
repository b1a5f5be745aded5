"""Echo requests by the kernel, each of which waits for its answer, and the counts in the output of ping(8).

Once ping(8) of iputils has an answer, it waits for others no longer than its interval or two round trips. With -w it
goes on until it has as many answers as -c says, and fails after that time.
"""

import re
import socket

from tests.support.kernel import Network
from threepipe.echo import echo_request

__all__ = ["answered", "ping"]

_SECONDS = 20.0
_IDENTIFIER = 0x3A9E
# By IP version: family, protocol, bytes of the IP headers that are sent and received, and the answer's type.
_KINDS = {4: (socket.AF_INET, socket.IPPROTO_ICMP, 20, 20, 0), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6, 40, 0, 129)}


def ping(network: Network, host: str, count: int) -> None:
    """Send `count` echo requests from `network` to an address. Raises TimeoutError without an answer."""
    family, protocol, header, answer_header, answer_type = _KINDS[6 if ":" in host else 4]
    with network.namespace.run(lambda: socket.socket(family, socket.SOCK_RAW, protocol)) as raw:
        raw.settimeout(_SECONDS)
        raw.connect((host, 0))
        for sequence in range(count):
            request = echo_request(raw.getsockname()[0], host, _IDENTIFIER, sequence)[header:]
            raw.send(request)
            while (answer := raw.recv(2048)[answer_header:])[0] != answer_type or answer[4:] != request[4:]:
                pass


def answered(output: str) -> tuple[int, int]:
    """Return how many packets ping transmitted and received, by its output."""
    match = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    assert match, output
    return int(match[1]), int(match[2])
