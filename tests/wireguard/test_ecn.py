"""The ECN field of packets in a tunnel, and of the datagrams that carry them (RFC 6040)."""

import pytest

from tests.support.frames import TCP4, TCP6, frame
from tests.support.wireguard_pair import joined


@pytest.mark.parametrize("inside", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")], ids=["inside-4", "inside-6"])
def test_ecn_is_copied_out_and_combined_at_the_other_end(inside: tuple[str, str]) -> None:
    def marked(field: int) -> bytes:
        return frame(TCP4 if "." in inside[0] else TCP6, tos=0xB8 | field, addresses=inside)

    network, left, right = joined()
    arrived: list[int] = []

    def note(ecn: int) -> int:
        arrived.append(ecn)
        return ecn

    network.remark = note
    left.send(*map(marked, range(4)))
    network.settle()
    assert right.packets == [*map(marked, range(4))]
    assert arrived[-4:] == [0, 1, 2, 3]
    assert not any(arrived[:-4])  # Handshakes and keepalives.
    network.remark = lambda ecn: 3
    left.send(*map(marked, range(4)))
    network.settle()
    assert right.packets[4:] == [marked(3)] * 3
    assert right.tunnel.rejected["marked for congestion, but not ECN-capable"] == 1
