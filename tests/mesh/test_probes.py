"""Answers of probes, which any member of the mesh may forge."""

import asyncio
from ipaddress import IPv6Address
from typing import Any

import pytest

from threepipe.mesh.probes import Probes


class Liar:
    """A transport whose other end answers each probe with the same text."""

    def __init__(self, probes: Probes, text: bytes) -> None:
        self._probes, self._text = probes, text

    def sendto(self, data: bytes, address: Any) -> None:
        asyncio.get_running_loop().call_soon(self._probes.datagram_received, data + self._text, address)


def answered(text: bytes) -> object:
    """Return the result of a probe that the other node answers with this text."""

    async def probe() -> object:
        probes = Probes("mesh0", lambda address: None)
        probes._transport = Liar(probes, text)
        found = await probes.probe(IPv6Address("fd12::1"), 10)
        assert found is not None
        return found[1]

    return asyncio.run(probe())


def test_an_answer_has_the_endpoint_that_the_other_node_sees() -> None:
    assert answered(b"=192.0.2.1:51820") == ("192.0.2.1", 51820)
    assert answered(b"=[2001:db8::1]:51820") == ("2001:db8::1", 51820)


@pytest.mark.parametrize(
    "text",
    [b"=", b"=\xff", b"=host.example.org:1", b"=192.0.2.1:0", b"=224.0.0.1:1", b"=0.0.0.0:1", b"=[fe80::1]:1"],
    ids=repr,
)
def test_an_endpoint_that_no_record_may_have_is_left_out(text: bytes) -> None:
    assert answered(text) is None
