"""Answer ping for every address of the adapter's subnets: python examples/echo.py [NAME [ADDRESS ...]]"""

import contextlib
import ipaddress
import sys
from collections.abc import Sequence

import threepipe
from threepipe.echo import echo_reply
from threepipe.settings import Address

ADDRESSES = ("10.33.3.1/24", "fd33::1/64")


def answers(bundle: threepipe.Bundle, own: Sequence[Address]) -> list[bytes]:
    """Return replies to the echo requests in the bundle. The kernel itself answers for the `own` addresses."""
    replies = []
    for packet in bundle:
        destination = ipaddress.ip_address(bytes(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]))
        reply = echo_reply(packet)
        if reply and any(destination in address.network and destination != address.ip for address in own):
            replies.append(reply)
    return replies


def main(name: str = "echo%d", *addresses: str) -> None:
    with threepipe.Adapter.create(name, addresses=addresses or ADDRESSES) as adapter:
        own = adapter.addresses
        with adapter.start_session() as session:
            print(f"{adapter.name} answers ping in", *[address.network for address in own], flush=True)
            for bundle in session:
                with bundle:  # Frees its memory at the end of the block.
                    session.send(answers(bundle, own), timeout=None)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
