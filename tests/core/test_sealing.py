"""Sealing and opening bundles: both implementations against the rules, and against each other."""

import random
import struct
from types import ModuleType

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tests.support.frames import TCP4, TCP6, Kind, frame, records_of, superpacket, traffic
from tests.support.wireguard_pair import packet
from threepipe.core import fast
from threepipe.core import transport as python_transport
from threepipe.core.superpacket import measure, split

KEY = bytes(range(32))
INDEX = 0x01020304
REJECT = 2**64 - 2**13 - 1
BOTH = [python_transport, fast] if fast.NATIVE else [python_transport]
EACH = pytest.mark.parametrize("module", BOTH, ids=["python", "native"][: len(BOTH)])

Runs = list[tuple[memoryview, int, int]]


def views(packets: list[bytes]) -> list[memoryview]:
    return [memoryview(data) for data in packets]


def transport(module: ModuleType) -> python_transport.Transport:
    made: python_transport.Transport = module.Transport(KEY, KEY, INDEX, INDEX)
    return made


def sealed(module: ModuleType, packets: list[bytes], counter: int = 0, mtu: int = 0) -> Runs:
    return sealed_by(transport(module), packets, counter, mtu)


def sealed_by(
    keys: python_transport.Transport, records: list[bytes], counter: int, mtu: int, vnet_header: bool = False
) -> Runs:
    """Seal with as many counters as are needed, from `counter` on."""
    count, _, _ = measure(views(records), vnet_header)
    keys.counter = counter + count
    return keys.seal(counter, count, [memoryview(bytearray(record)) for record in records], vnet_header, mtu)


def messages(runs: Runs) -> list[bytes]:
    return [bytes(memory[start : start + size]) for memory, size, _ in runs for start in range(0, len(memory), size)]


class Receiver:
    def __init__(self, module: ModuleType) -> None:
        self.module, self.transport = module, transport(module)

    def take(self, data: bytes, size: int = 0) -> tuple[list[bytes], list[tuple[bytes, int]], int, int, int]:
        memory = memoryview(bytearray(data))
        packets, sources, used, authentic, total = self.transport.open(memory, size or len(data))
        return [bytes(data) for data in packets], sources, used, authentic, total

    def takes(self, counter: int) -> bool:
        """Return True if the receiver accepts a message with `counter`."""
        return bool(self.take(sealed(self.module, [b""], counter)[0][0].tobytes())[3])


FOUR, SIX = packet("10.0.0.1", "10.0.0.2", b"four"), packet("fd00::1", "fd00::2", b"six")


@EACH
def test_a_message_has_the_format_of_the_paper(module: ModuleType) -> None:
    (message,) = messages(sealed(module, [FOUR], 7))
    assert struct.unpack_from("<IIQ", message) == (4, INDEX, 7)
    plain = ChaCha20Poly1305(KEY).decrypt(struct.pack("<4xQ", 7), message[16:], None)
    assert plain == FOUR + bytes(-len(FOUR) % 16)


@EACH
def test_sealed_packets_of_both_families_open_unchanged(module: ModuleType) -> None:
    other = packet("10.0.0.3", "10.0.0.2")
    packets = [FOUR, FOUR, other, SIX, FOUR]
    for number, message in enumerate(messages(sealed(module, packets))):
        opened = Receiver(module).take(message)
        assert opened[0] == [packets[number]]
        assert opened[2:] == (len(message), 1, len(message))
    receiver = Receiver(module)
    runs = sealed(module, [FOUR, FOUR, other])
    assert [size for _, size, _ in runs] == [64]
    opened = receiver.take(runs[0][0].tobytes(), 64)
    assert opened == ([FOUR, FOUR, other], [(bytes([10, 0, 0, 1]), 2), (bytes([10, 0, 0, 3]), 1)], 192, 3, 192)
    (six,) = sealed(module, [SIX])
    assert Receiver(module).take(six[0].tobytes())[1] == [(SIX[8:24], 1)]


@EACH
@pytest.mark.parametrize(
    ("length", "mtu", "padded"),
    [
        (0, 1420, 0),
        (20, 0, 32),
        (32, 0, 32),
        (1419, 1420, 1420),
        (1420, 1420, 1420),
        (1420, 0, 1424),
        (1421, 1420, 1436),
    ],
)
def test_packets_are_padded_to_16_bytes_and_to_the_mtu_at_most(
    module: ModuleType, length: int, mtu: int, padded: int
) -> None:
    (message,) = messages(sealed(module, [bytes(length)], mtu=mtu))
    assert len(message) == padded + 32
    assert ChaCha20Poly1305(KEY).decrypt(bytes(12), message[16:], None) == bytes(padded)


@EACH
def test_runs_are_of_equal_size_and_within_the_limits_of_the_kernel(module: ModuleType) -> None:
    small, large = packet("10.0.0.1", "10.0.0.2"), packet("10.0.0.1", "10.0.0.2", bytes(1400))
    runs = sealed(module, [small] * 130 + [large] * 46 + [small, large, small, small, large])
    assert [(len(memory) // size, size) for memory, size, _ in runs[:2]] == [(64, 64), (64, 64)]
    assert [(len(memory), size) for memory, size, _ in runs[2:]] == [
        (2 * 64, 64),
        (44 * 1456, 1456),
        (2 * 1456 + 64, 1456),
        (1456 + 64, 1456),
        (64, 64),
        (1456, 1456),
    ]
    assert all(len(memory) <= 65000 for memory, _, _ in runs)
    (huge,) = sealed(module, [packet("10.0.0.1", "10.0.0.2", bytes(65000))])
    assert len(huge[0]) == huge[1] > 65000


@EACH
@pytest.mark.parametrize("kind", [TCP4, TCP6], ids=["tcp4", "tcp6"])
def test_a_run_has_packets_of_one_ecn_field_only(module: ModuleType, kind: Kind) -> None:
    fields = [0, 0, 1, 1, 1, 2, 3, 0]
    runs = sealed(module, [frame(kind, tos=0xB8 | field) for field in fields])
    assert [(len(memory) // size, ecn) for memory, size, ecn in runs] == [(2, 0), (3, 1), (1, 2), (1, 3), (1, 0)]
    records = [superpacket(kind, frame(kind, bytes(3000), tos=field), 1000) for field in (1, 0)]
    runs = sealed_by(transport(module), [bytes(record) for record in records], 0, 0, True)
    assert [(len(memory) // size, ecn) for memory, size, ecn in runs] == [(3, 1), (3, 0)]
    assert {ecn for _, _, ecn in sealed(module, [FOUR, b"", b"\x45", b"\x5f\xff"])} == {0}


@EACH
@pytest.mark.parametrize("kind", [TCP4, TCP6], ids=["tcp4", "tcp6"])
def test_each_segment_of_a_superpacket_becomes_a_message(module: ModuleType, kind: object) -> None:
    record = superpacket(kind, frame(kind, bytes(range(250)) * 20), 1000)  # type: ignore[arg-type]
    segments = [bytes(segment) for segment in split([memoryview(bytearray(record))])]
    ((memory, size, _),) = sealed_by(transport(module), [bytes(record)], 3, 1420, True)
    opened = Receiver(module).take(memory.tobytes(), size)
    assert len(segments) == 5
    assert opened[0] == segments
    assert [int.from_bytes(memory[start + 8 : start + 16], "little") for start in range(0, len(memory), size)] == [
        3, 4, 5, 6, 7,
    ]  # fmt: skip


@EACH
def test_a_counter_is_accepted_once_and_only_within_the_window(module: ModuleType) -> None:
    receiver = Receiver(module)
    assert receiver.takes(0)
    assert not receiver.takes(0)
    assert receiver.takes(10_000)
    assert receiver.takes(10_001 - 8192)
    assert not receiver.takes(10_000 - 8192)
    assert [receiver.takes(counter) for counter in (5_000, 5_000, 4_999, 10_000, 10_003, 10_002)] == [
        True, False, True, False, True, True,
    ]  # fmt: skip
    assert receiver.takes(10_003 + 8191)
    assert not receiver.takes(10_003)
    assert receiver.takes(10_004)
    assert receiver.takes(2**50)
    assert receiver.takes(2**50 - 1)
    assert not receiver.takes(REJECT)
    assert receiver.takes(REJECT - 1)


@EACH
def test_a_message_that_is_not_authentic_changes_nothing(module: ModuleType) -> None:
    (message,) = messages(sealed(module, [FOUR], 9))
    receiver = Receiver(module)
    for place in range(len(message)):
        changed = bytearray(message)
        changed[place] ^= 1
        assert receiver.take(bytes(changed))[3:] == (0, 0)
    assert receiver.take(message)[0] == [FOUR]
    with pytest.raises(InvalidTag):
        ChaCha20Poly1305(KEY).decrypt(bytes(12), message[16:], None)


@EACH
def test_opening_stops_before_a_message_for_another_index_or_of_another_type(module: ModuleType) -> None:
    one, two, three = messages(sealed(module, [FOUR] * 3))
    stranger = two[:4] + bytes(4) + two[8:]
    assert Receiver(module).take(one + stranger + three, 64)[2:] == (64, 1, 64)
    assert Receiver(module).take(one + b"\1" + two[1:] + three, 64)[2:] == (64, 1, 64)
    assert Receiver(module).take(one + two + three[:40], 64)[2:] == (128 + 40, 2, 128)
    assert Receiver(module).take(one + two + three[:31], 64)[2:] == (128, 2, 128)
    assert Receiver(module).take(b"", 64)[2:] == (0, 0, 0)
    assert Receiver(module).take(one, 31)[2:] == (31, 0, 0)


@EACH
@pytest.mark.parametrize(
    "plain",
    [
        b"",
        FOUR[:19],
        FOUR[:2] + b"\0\x13" + FOUR[4:],
        FOUR[:2] + b"\0\x31" + FOUR[4:] + bytes(8),
        b"\x50" + FOUR[1:],
        SIX[:39],
        SIX[:4] + b"\0\x20" + SIX[6:],
    ],
    ids=["keepalive", "short", "shorter-than-its-header", "longer-than-it-is", "version-5", "short-6", "longer-6"],
)
def test_an_authentic_message_without_an_ip_packet_gives_no_packet(module: ModuleType, plain: bytes) -> None:
    message = struct.pack("<IIQ", 4, INDEX, 0) + ChaCha20Poly1305(KEY).encrypt(bytes(12), plain, None)
    assert Receiver(module).take(message) == ([], [], len(message), 1, len(message))


@pytest.mark.skipif(not fast.NATIVE, reason="there is no native core")
def test_both_implementations_seal_and_open_alike() -> None:
    for seed in range(300):
        choose = random.Random(seed)
        packets = traffic(choose, choose.randrange(1, 40), sizes=(1, 7, 40, 1400))
        vnet_header = bool(choose.randrange(2))
        records = records_of(choose, packets) if vnet_header else packets
        counter, mtu = choose.choice([0, 1, 2**40]), choose.choice([0, 576, 1420])
        runs = [sealed_by(transport(module), records, counter, mtu, vnet_header) for module in BOTH]
        assert [(bytes(memory), size, ecn) for memory, size, ecn in runs[0]] == [
            (bytes(memory), size, ecn) for memory, size, ecn in runs[1]
        ]
        receivers = [Receiver(module) for module in BOTH]
        for memory, size, _ in choose.choices(runs[0], k=len(runs[0]) + 3) if runs[0] else ():
            data = bytearray(memory)
            for _ in range(choose.choice([0, 0, 1, 3])):
                data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
            del data[choose.choice([len(data), choose.randrange(len(data))]) :]
            outcomes = [receiver.take(bytes(data), choose.choice([size]) if data else 1) for receiver in receivers]
            assert outcomes[0] == outcomes[1]


@EACH
def test_counters_are_reserved_once_and_only_below_the_limit(module: ModuleType) -> None:
    keys = transport(module)
    assert [keys.reserve(3), keys.reserve(1), keys.counter] == [0, 3, 4]
    keys.counter = REJECT - 2
    assert [keys.reserve(3), keys.reserve(2), keys.reserve(1)] == [None, REJECT - 2, None]


@EACH
@pytest.mark.parametrize(
    ("reserved", "counter", "count", "packets"),
    [(3, 0, 3, 4), (5, 0, 3, 4), (5, 3, 1, 2), (3, 2, 2, 2), (3, 3, 1, 1), (0, 0, 0, 1), (0, 0, 1, 1)],
)
def test_seal_of_more_messages_than_counters_were_reserved_raises_and_seals_nothing(
    module: ModuleType, reserved: int, counter: int, count: int, packets: int
) -> None:
    keys = transport(module)
    keys.reserve(reserved)
    with pytest.raises(ValueError, match=f"cannot seal {packets} messages with {count} counters"):
        keys.seal(counter, count, views([FOUR] * packets), False, 0)
    assert keys.counter == reserved


@EACH
def test_seal_of_a_superpacket_with_more_segments_than_counters_raises(module: ModuleType) -> None:
    record = superpacket(TCP4, frame(TCP4, bytes(5000)), 1000)
    keys = transport(module)
    keys.reserve(9)
    with pytest.raises(ValueError, match="cannot seal 5 messages with 4 counters"):
        keys.seal(0, 4, [memoryview(bytearray(record))], True, 1420)


@EACH
def test_counters_that_are_left_over_are_not_used(module: ModuleType) -> None:
    keys = transport(module)
    keys.reserve(9)
    (message,) = messages(keys.seal(2, 7, views([FOUR]), False, 0))
    assert int.from_bytes(message[8:16], "little") == 2


@EACH
def test_a_wiped_transport_neither_seals_nor_opens(module: ModuleType) -> None:
    (message,) = messages(sealed(module, [FOUR]))
    keys = transport(module)
    keys.wipe()
    assert keys.reserve(1) == 0
    assert keys.seal(0, 1, views([FOUR]), False, 0) == []
    assert keys.open(memoryview(bytearray(message)), len(message)) == ([], [], len(message), 0, 0)


@pytest.mark.skipif(not fast.NATIVE, reason="there is no native core")
def test_the_native_transport_refuses_keys_of_another_size() -> None:
    with pytest.raises(ValueError, match="expected 32 bytes"):
        fast.Transport(KEY[:31], KEY, 0, 0)
