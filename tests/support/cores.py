"""The two implementations of the core, and assertions that both do the same."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.support.frames import (
    Kind,
    completed,
    kind_of,
    network_size,
    partial,
    records_of,
    traffic,
    with_bits,
    with_field,
)
from tests.support.rfc1071 import naive_checksum
from threepipe.core import coalesce as pure_coalesce
from threepipe.core import descriptor as pure_descriptor
from threepipe.core import ecn as pure_ecn
from threepipe.core import flow as pure_flow
from threepipe.core import packet as pure_packet
from threepipe.core import superpacket as pure_offload
from threepipe.core.flow import FlowFields
from threepipe.core.packet import Packet
from threepipe.core.superpacket import HEADER_SIZE

if TYPE_CHECKING:
    from threepipe import _native as native
else:
    native = pytest.importorskip(
        "threepipe._native", reason="the native core is not installed, so it cannot be compared"
    )


class Core(NamedTuple):
    """The functions of one implementation."""

    internet_checksum: Callable[..., int]
    measure: Callable[..., tuple[int, int, bool]]
    split: Callable[[Sequence[memoryview]], list[memoryview]]
    extract: Callable[[Sequence[memoryview]], list[bytes]]
    coalesce: Callable[[Sequence[memoryview], bool, bool], list[memoryview]]
    combine_ecn: Callable[[Sequence[memoryview], int], list[memoryview]]
    flow_fields: Callable[[Packet], FlowFields | None]
    receive: Callable[..., list[memoryview]]
    receive_packets: Callable[..., list[bytes]]
    send: Callable[..., tuple[int, int]]
    send_coalesced: Callable[..., tuple[Sequence[memoryview], int, int]]


PURE = Core(
    pure_packet.internet_checksum,
    pure_offload.measure,
    pure_offload.split,
    pure_offload.extract,
    pure_coalesce.coalesce,
    pure_ecn.combine_ecn,
    pure_flow.flow_fields,
    pure_descriptor.receive,
    pure_descriptor.receive_packets,
    pure_descriptor.send,
    pure_descriptor.send_coalesced,
)
NATIVE = Core(
    native.internet_checksum,
    native.measure,
    native.split,
    native.extract,
    native.coalesce,
    native.combine_ecn,
    native.flow_fields,
    getattr(native, "receive", pure_descriptor.receive),  # The core has none on Windows.
    getattr(native, "receive_packets", pure_descriptor.receive_packets),
    getattr(native, "send", pure_descriptor.send),
    getattr(native, "send_coalesced", pure_descriptor.send_coalesced),
)


def property_of(examples: int) -> settings:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(derandomize=True, deadline=None, max_examples=examples, suppress_health_check=quiet)


def of_both(ask: Callable[[Core], Any]) -> Any:
    """Return the answer of both, after a check that it is equal."""
    ours, theirs = ask(PURE), ask(NATIVE)
    assert theirs == ours
    return ours


def fault_of_both(ask: Callable[[Core], object], kind: type[Exception]) -> list[Exception]:
    """Return the exceptions that both raise."""
    caught = []
    for core in (PURE, NATIVE):
        with pytest.raises(kind) as info:
            ask(core)
        caught.append(info.value)
    return caught


def contents(pieces: Sequence[memoryview]) -> list[bytes]:
    return [bytes(piece) for piece in pieces]


def copies(pieces: Sequence[Packet]) -> list[memoryview]:
    return [memoryview(bytearray(piece)) for piece in pieces]


def assert_same_packets(records: Sequence[Packet]) -> None:
    """Compare `measure`, `split` and the records after, twice, as the first time may change records."""

    def ask(core: Core) -> object:
        mine = copies(records)
        told = core.measure(mine)
        assert core.extract(copies(records)) == contents(core.split(copies(records)))
        packets = contents(core.split(mine))
        kept = contents(mine)
        return told, packets, kept, core.measure(mine), contents(core.split(mine)), contents(mine)

    of_both(ask)


def assert_same_records(pieces: Sequence[Packet], vnet_header: bool, udp: bool) -> None:
    """Compare `coalesce` and the sizes of its results, and check that the pieces are unchanged."""

    def ask(core: Core) -> object:
        mine = copies(pieces)
        told = core.measure(mine, vnet_header)
        found = core.coalesce(mine, vnet_header, udp)
        assert contents(mine) == [bytes(piece) for piece in pieces]
        return told, contents(found), core.measure(found), contents(core.split(found))

    of_both(ask)


def partial_of(kind: Kind) -> Callable[[bytes], memoryview]:
    return lambda packet: partial(kind, packet)


SOURCES = st.randoms(use_true_random=False)


class Disagreement(AssertionError):
    """A difference of the two, with all that reproduces it."""


class Batch:
    """Bundles from a seed: each is drawn from a pool of traffic, mutated, and given to both."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.source = random.Random(seed)
        self.frames = 0
        small, large = (1, 2, 7, 8, 40, 100), (600, 1448, 9000)
        packets = [traffic(self.source, 64, small if index % 8 else large) for index in range(40)]
        self.pool = [(packets, records_of(self.source, packets)) for packets in packets]

    def run(self, count: int) -> int:
        """Compare for at least `count` frames, and return for how many."""
        while self.frames < count:
            # Small bundles have more kinds of neighbours; large ones have longer trains.
            packets, records = self._bundle(0), self._bundle(1)
            udp = self.source.randrange(8) > 0
            self._compare("coalesce packets", packets, False, udp)
            self._compare("coalesce records", records, True, udp)
            self._compare_split(records)
            self.frames += len(packets) + len(records)
        return self.frames

    def _bundle(self, which: int) -> list[bytes]:
        choose = self.source
        parts = []
        for _ in range(choose.randrange(1, 4)):
            part = choose.choice(self.pool)[which]
            start = choose.randrange(len(part))
            parts += part[start : start + choose.randrange(65)]
        for _ in range(min(len(parts), choose.randrange(4))):
            index = choose.randrange(len(parts))
            parts[index] = self._changed(parts[index], HEADER_SIZE if which else 0)
        return parts

    def _changed(self, piece: bytes, header: int) -> bytes:
        """Return a piece with a flipped bit in its headers, in half of the cases with right checksums."""
        choose = self.source
        if len(piece) <= header:
            return piece
        piece = with_bits(piece, choose.randrange(min(len(piece), header + 64)), 1 << choose.randrange(8))
        packet = piece[header:]
        kind = kind_of(packet)
        if kind and choose.randrange(2) and len(packet) < 2000:
            start = network_size(kind)
            if kind.version == 4:
                packet = with_field(packet, 10, naive_checksum(with_field(packet, 10, 0)[:20]))
            if len(packet) >= start + kind.field + 2:
                packet = completed(packet, start, kind)
        return piece[:header] + packet

    def _compare(self, what: str, pieces: list[bytes], vnet_header: bool, udp: bool) -> None:
        mine = [memoryview(piece) for piece in pieces]
        ours, theirs = PURE.coalesce(mine, vnet_header, udp), NATIVE.coalesce(mine, vnet_header, udp)
        self._check(f"{what}, udp={udp}", pieces, ours, theirs)
        if not vnet_header:  # Other records are compared below; some of them come from here.
            if PURE.measure(ours) != NATIVE.measure(theirs):
                self._fail("measure what was coalesced", pieces)
            self._check("split what was coalesced", pieces, PURE.split(ours), NATIVE.split(theirs))

    def _compare_split(self, records: list[bytes]) -> None:
        joined, ends = b"".join(records), [0]
        for one in records:
            ends.append(ends[-1] + len(one))
        memory = bytearray(joined), bytearray(joined)
        ours, theirs = ([memoryview(part)[start:end] for start, end in pairwise(ends)] for part in memory)
        if PURE.measure(ours) != NATIVE.measure(theirs):
            self._fail("measure", records)
        self._check("split", records, PURE.split(ours), NATIVE.split(theirs))
        if memory[0] != memory[1]:
            self._fail("records after split", records)

    def _check(self, what: str, pieces: list[bytes], ours: Sequence[memoryview], theirs: Sequence[memoryview]) -> None:
        if list(map(len, ours)) != list(map(len, theirs)) or b"".join(ours) != b"".join(theirs):
            self._fail(what, pieces)

    def _fail(self, what: str, pieces: list[bytes]) -> None:
        listed = "\n".join(piece.hex() for piece in pieces)
        raise Disagreement(f"{what}: seed {self.seed}, after {self.frames} frames, pieces:\n{listed}")


def run_batch(seed: int, count: int) -> int:
    return Batch(seed).run(count)
