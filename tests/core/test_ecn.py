"""The ECN fields of a tunnel's two headers are combined by RFC 6040: both implementations."""

import random
from types import ModuleType

import pytest

from tests.support.frames import TCP4, TCP6, Kind, frame
from tests.support.rfc1071 import naive_checksum
from threepipe.core import ecn as python_ecn
from threepipe.core import fast

NOT_ECT, ECT_1, ECT_0, CE = range(4)
FIELDS = (NOT_ECT, ECT_0, ECT_1, CE)
FIGURE_4 = {
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, None),
    ECT_0: (ECT_0, ECT_0, ECT_1, CE),
    ECT_1: (ECT_1, ECT_1, ECT_1, CE),
    CE: (CE, CE, CE, CE),
}
"""Inner field: the combined one for each outer field in the order of `FIELDS`, or None for a packet to be dropped."""
BOTH = [python_ecn, fast] if fast.NATIVE else [python_ecn]
EACH = pytest.mark.parametrize("module", BOTH, ids=["python", "native"][: len(BOTH)])
KINDS = pytest.mark.parametrize("kind", [TCP4, TCP6], ids=["ipv4", "ipv6"])


def combined(module: ModuleType, packets: list[bytes], outer: int) -> list[bytes]:
    given = [memoryview(bytearray(packet)) for packet in packets]
    return [bytes(packet) for packet in module.combine_ecn(given, outer)]


@EACH
@KINDS
@pytest.mark.parametrize("inner", FIELDS)
def test_fields_are_combined_as_figure_4_of_rfc_6040_says(module: ModuleType, kind: Kind, inner: int) -> None:
    for outer, wanted in zip(FIELDS, FIGURE_4[inner], strict=True):
        found = combined(module, [frame(kind, tos=0xB8 | inner)], outer)
        assert found == ([] if wanted is None else [frame(kind, tos=0xB8 | wanted)])


@EACH
@KINDS
def test_packets_that_go_on_keep_their_order(module: ModuleType, kind: Kind) -> None:
    packets = [frame(kind, bytes([number]), tos=tos) for number, tos in enumerate((1, 0, 3, 2, 0))]
    marked = [frame(kind, bytes([number]), tos=CE) for number in (0, 2, 3)]
    assert combined(module, packets, CE) == marked
    assert combined(module, packets, NOT_ECT) == packets
    assert combined(module, [], CE) == []


@EACH
def test_the_checksum_of_ipv4_stays_right_or_wrong(module: ModuleType) -> None:
    choose = random.Random(6040)
    for _ in range(2000):
        packet = frame(
            TCP4, tos=choose.choice((1, 2)), identification=choose.randrange(1 << 16), ttl=choose.randrange(256)
        )
        wrong = bytearray(packet)
        wrong[11] ^= 1 + choose.randrange(255)
        right, still_wrong = combined(module, [packet, bytes(wrong)], CE)
        assert naive_checksum(right[:20]) == 0
        assert naive_checksum(still_wrong[:20]) == naive_checksum(bytes(wrong[:20])) != 0


@EACH
def test_the_checksum_wraps_to_0_and_back(module: ModuleType) -> None:
    """Identifications for which the old or the new checksum is at the edge, where sums by 0 and by 0xFFFF differ."""
    for inner, outer in ((1, CE), (2, CE), (2, ECT_1)):
        for near in range(-4, 5):
            base = frame(TCP4, tos=inner, identification=0)
            number = (int.from_bytes(base[10:12], "big") + near) % 0xFFFF
            packet = frame(TCP4, tos=inner, identification=number)
            assert combined(module, [packet], outer) == [frame(TCP4, tos=outer, identification=number)]
