"""The messages of the routing socket and of sysctl's lists: routes there and back, and hostile lists."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepipe.platforms.bsd import darwin, freebsd, netbsd, openbsd
from threepipe.platforms.bsd.kind import RTF_HOST, RTF_STATIC, RTF_UP, RTM_ADD, Kind
from threepipe.platforms.bsd.messages import Route, parse_addresses, parse_links, parse_routes, route_message

KINDS = [module.KIND for module in (darwin, freebsd, netbsd, openbsd)]
NETWORKS = st.one_of(
    st.builds(
        lambda number, prefix: ip_network((number, prefix), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
    ),
    st.builds(
        lambda number, prefix: ip_network((number.to_bytes(16, "big"), prefix), strict=False),
        st.integers(0, 2**128 - 1),
        st.integers(0, 128),
    ),
)


@given(kind=st.sampled_from(KINDS), network=NETWORKS, index=st.integers(1, 0xFFFF))
def test_a_route_is_read_as_it_was_written(kind: Kind, network: object, index: int) -> None:
    assert network == ip_network(str(network))
    written = route_message(kind, RTM_ADD, ip_network(str(network)), index, None, 1)
    (found,) = parse_routes(kind, written)
    host = found.network.prefixlen == found.network.max_prefixlen
    if not found.network.is_link_local:  # The kernel keeps an index in those.
        flags = RTF_UP | RTF_STATIC | (RTF_HOST if host else 0)
        assert replace(found, gateway=b"") == Route(index, ip_network(str(network)), flags)
    assert len(written) % kind.alignment == 0


@given(kind=st.sampled_from(KINDS), noise=st.binary(max_size=400), layout=st.integers(0, 2))
def test_any_list_is_read_to_its_end_or_its_damage(kind: Kind, noise: bytes, layout: int) -> None:
    known = (kind.links, kind.addresses[0], kind.routes)[layout]
    message = bytearray(noise.ljust(known.size, b"\xff"))
    message[:4] = len(message).to_bytes(2, "little") + bytes([kind.version, known.type])
    for listing in (noise, bytes(message), bytes(message) * 2):
        list(parse_links(kind, listing))
        list(parse_addresses(kind, listing))
        list(parse_routes(kind, listing))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_index_that_the_kernel_keeps_in_a_link_local_address_is_left_out(kind: Kind) -> None:
    written = bytearray(route_message(kind, RTM_ADD, ip_network("fe80::1/128"), 3, None, 1))
    at = written.index(bytes([0xFE, 0x80]))
    written[at + 3] = 3
    (found,) = parse_routes(kind, bytes(written))
    assert found.network == ip_network("fe80::1/128")
