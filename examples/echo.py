"""Answers ping for every address of its subnets but its own: python examples/echo.py [NAME [ADDRESS ...]]"""

import contextlib
import ipaddress
import sys
from collections.abc import Sequence

import threepipe
from threepipe.echo import echo_reply
from threepipe.settings import Address

ADDRESSES = ("10.33.3.1/24", "fd33::1/64")


def answers(bundle: threepipe.Bundle, own: Sequence[Address]) -> list[bytes]:
    """The replies to those packets of the bundle that ask for an address of our subnets."""
    replies = []
    for packet in bundle:
        where = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
        asked = ipaddress.ip_address(bytes(where))
        reply = echo_reply(packet)
        if reply and any(asked in address.network and asked != address.ip for address in own):
            replies.append(reply)
    return replies


def main(name: str = "echo%d", *addresses: str) -> None:
    with threepipe.Adapter.create(name, addresses=addresses or ADDRESSES) as adapter:
        own = adapter.addresses
        with adapter.start_session() as session:
            print(f"{adapter.name} answers ping in", *[address.network for address in own], flush=True)
            for bundle in session:
                with bundle:  # Its memory can be used again once we have answered.
                    session.send(answers(bundle, own), timeout=None)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
