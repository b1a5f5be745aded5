"""Flows of the native core against the reference."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.cores import of_both, property_of

EXTENSIONS = st.sampled_from([0, 43, 44, 50, 51, 59, 60, 135, 139, 140, 6, 17, 58, 255])


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Return a packet of either family, often with extension headers, often cut off."""
    rest = draw(st.binary(max_size=60))
    if draw(st.booleans()):
        first = 0x40 | draw(st.integers(4, 15))
        packet = bytes([first]) + draw(st.binary(min_size=19, max_size=19)) + rest
    else:
        headers = b"".join(
            bytes([draw(EXTENSIONS), draw(st.integers(0, 2))]) + draw(st.binary(min_size=6, max_size=22))
            for _ in range(draw(st.integers(0, 18)))
        )
        packet = b"\x60" + bytes(5) + bytes([draw(EXTENSIONS)]) + bytes(33) + headers + rest
    return packet[: draw(st.integers(0, len(packet))) if draw(st.booleans()) else None]


@property_of(2000)
@given(packets() | st.binary(max_size=100))
def test_flows_agree(packet: bytes) -> None:
    for buffer in (packet, bytearray(packet), memoryview(packet)):
        of_both(lambda core, buffer=buffer: core.flow_fields(buffer))  # type: ignore[misc]
