"""The ECN field of packets that pass devices piped to adapters (RFC 6040)."""

import contextlib
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("no other platform lends descriptors", allow_module_level=True)

from tests.support.frames import TCP4, TCP6, frame, superpacket
from tests.support.marking import MarkingNetwork
from tests.support.piped_devices import LEFT, RIGHT, End, exchange, joined
from threepipe.core.superpacket import split
from threepipe.platforms.linux.tun import Offload
from threepipe.wireguard import Change, PeerChange


@contextlib.contextmanager
def marking(left: End, right: End, host: str) -> Iterator[MarkingNetwork]:
    """Lead the datagrams of both through a network that sees and changes their ECN fields."""
    ports = left.device.status().listen_port, right.device.status().listen_port
    with contextlib.closing(MarkingNetwork(host, ports)) as network:
        left.device.configure(Change(peers=(PeerChange(right.public, endpoint=network.endpoint),)))
        exchange(left, right)
        assert network.control == {0}
        network.seen.clear()
        yield network


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"], ids=["outside-4", "outside-6"])
@pytest.mark.parametrize("version", [0, 1], ids=["inside-4", "inside-6"])
@pytest.mark.parametrize("offload", [Offload.NONE, Offload.TCP_AND_UDP])
def test_ecn_is_copied_out_and_combined_at_the_other_end(offload: Offload, version: int, host: str) -> None:
    """RFC 6040: each mark that a sender or the network makes reaches the receiver, at both ends and in both headers."""
    kind, ends = (TCP4, TCP6)[version], (LEFT[version], RIGHT[version])

    def there(*fields: int) -> list[bytes]:
        return [frame(kind, bytes([number]), tos=0xB8 | ecn, addresses=ends) for number, ecn in enumerate(fields)]

    def here(ecn: int) -> bytes:
        return frame(kind, tos=ecn, addresses=(ends[1], ends[0]))

    with joined(offload) as (left, right), marking(left, right, host) as network:
        left.adapter.send(*there(0, 1, 1, 2, 0, 3))
        assert right.adapter.receive(6) == there(0, 1, 1, 2, 0, 3)
        assert network.seen == [0, 1, 1, 2, 0, 3]
        right.adapter.send(here(1))
        assert left.adapter.receive(1) == [here(1)]
        network.remark = lambda ecn: 3
        left.adapter.send(*there(1, 2, 3, 0), *there(1))
        assert right.adapter.receive(4) == [*there(3, 3, 3), *there(3)]
        right.adapter.send(here(2))
        assert left.adapter.receive(1) == [here(3)]
        assert network.seen[6:] == [1, 1, 2, 3, 0, 1, 2]
        assert right.device.rejected["marked for congestion, but not ECN-capable"] == 1


@pytest.mark.parametrize("sent", [0, 1], ids=["not-ect", "ect-1"])
def test_the_ecn_of_a_superpacket_is_that_of_each_datagram(sent: int) -> None:
    def record(ecn: int) -> bytes:
        return bytes(superpacket(TCP4, frame(TCP4, bytes(20_000), tos=ecn, addresses=(LEFT[0], RIGHT[0])), 1000))

    with joined() as (left, right), marking(left, right, "127.0.0.1") as network:
        network.remark = lambda ecn: 3 if ecn else 0
        left.adapter.far.send(record(sent))
        arrived = split([memoryview(bytearray(record(3 if sent else 0)))])
        assert right.adapter.receive(20) == list(map(bytes, arrived))
        assert network.seen == [sent] * 20
