"""Certificates and records: signed ones come back whole, and all others are refused."""

import json
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.mesh_bus import AUTHORITY, NETWORKS, YEAR, Signer
from threepipe.errors import InvalidSetting
from threepipe.mesh import Certificate, Record, Refused, Request, node_address
from threepipe.mesh.records import MAX_RECORD, public_part
from threepipe.wireguard import generate_key, link_local, parse_networks

KEY = public_part(AUTHORITY)


def parse(text: str, authority: bytes = KEY) -> Record:
    return Record.parse(text.encode(), authority)


def with_fields(node: Signer, **fields: object) -> str:
    """Return a record of a node with other fields, which it has signed."""
    record = node.record()
    lines = record.text.split("\n")
    body = json.dumps(json.loads(lines[2]) | fields)
    signature = Ed25519PrivateKey.from_private_bytes(node.keys.signer).sign(f"threepipe mesh record\n{body}".encode())
    return "\n".join([*lines[:2], body, b64encode(signature).decode()])


def test_a_signed_record_comes_back_whole() -> None:
    node = Signer("gw-1", ["fd12:0:0:7::/64", "10.42.7.0/24"])
    record = node.record(endpoints=[("192.0.2.1", 51820), ("2001:db8::1", 4242)])
    assert parse(record.text) == record
    assert (record.certificate.name, record.certificate.key) == ("gw-1", node.request.key)
    assert record.certificate.expires == node.begin + YEAR
    assert record.lifetime == 60_000
    assert not record.left
    assert parse(node.record(left=True).text).left


def test_a_known_certificate_is_not_checked_again() -> None:
    node = Signer("gw")
    record = node.record()
    assert Record.parse(record.text.encode(), bytes(32), node.certificate) == record


@pytest.mark.parametrize("line", [0, 1, 2, 3])
def test_a_record_with_a_changed_line_is_refused(line: int) -> None:
    lines, others = Signer("gw").record().text.split("\n"), Signer("gw").record(expires=61_000).text.split("\n")
    lines[line] = others[line]
    with pytest.raises(Refused, match="has not signed this") as refused:
        parse("\n".join(lines))
    assert refused.value.kind == "forged"


def test_a_certificate_of_another_authority_is_refused() -> None:
    with pytest.raises(Refused, match="the authority has not signed this"):
        parse(Signer("gw", seed=generate_key()).record().text)


def test_a_signature_of_a_certificate_is_none_of_a_record() -> None:
    node = Signer("gw")
    with pytest.raises(Refused, match="gw has not signed this"):
        Record.parse(f"{node.certificate.text}\n{node.certificate.text}".encode(), KEY)


@pytest.mark.parametrize(
    "text",
    ["", "a\nb\nc\nd", "a\nb\nc\nd\ne", "\udcff", "x" * (MAX_RECORD + 1), "\n\n\n"],
    ids=["empty", "words", "five-lines", "not-utf8", "long", "blank"],
)
def test_a_text_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        Record.parse(text.encode(errors="surrogateescape"), KEY)


@pytest.mark.parametrize(
    "fields",
    [
        {"sequence": "1"},
        {"sequence": -1},
        {"expires": 1.5},
        {"expires": True},
        {"endpoints": [["host.example.org", 1]]},
        {"endpoints": [["ff02::1", 1]]},
        {"endpoints": [["0.0.0.0", 1]]},
        {"endpoints": [["192.0.2.1", 0]]},
        {"endpoints": [["fe80::1", 1]]},
        {"endpoints": [["2001:db8::1%eth0", 1]]},
        {"endpoints": [["169.254.0.1", 1]]},
        {"endpoints": [["192.0.2.1", 1 << 16]]},
        {"endpoints": [[]]},
        {"endpoints": 7},
        {"prefixes": ["fd12::1/48"]},
        {"prefixes": [[]]},
    ],
    ids=str,
)
def test_signed_nonsense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(Refused) as refused:
        parse(with_fields(Signer("gw"), **fields))
    assert refused.value.kind == "malformed"


def test_a_signed_list_is_refused() -> None:
    node = Signer("gw")
    signature = Ed25519PrivateKey.from_private_bytes(node.keys.signer).sign(b"threepipe mesh record\n[]")
    with pytest.raises(Refused, match="not a record of this version"):
        parse(f"{node.certificate.text}\n[]\n{b64encode(signature).decode()}")


def test_unknown_fields_are_ignored_for_later_versions() -> None:
    assert not parse(with_fields(Signer("gw"), colour="blue")).left


def test_a_request_comes_back_from_its_line() -> None:
    request = Signer("gw").request
    assert Request.parse(f"{request}\n") == request


@pytest.mark.parametrize("text", ["", "gw", "gw a b", "GW a b", "- a b", "a.b c d"])
def test_a_text_that_is_no_request_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidSetting):
        Request.parse(text)


def test_a_name_is_a_label_of_a_host_name() -> None:
    request = Signer("gw").request
    for name in ("GW", "-a", "a-", "a.b", "a_b", "", "x" * 64):
        with pytest.raises(InvalidSetting, match="cannot be the name of a node"):
            Certificate.issue(AUTHORITY, Request(name, request.key, request.signer), (), 0, 1)


def test_the_address_ends_as_the_link_local_one_of_the_key() -> None:
    key = Signer("gw").request.key
    address, low = node_address(NETWORKS, key), int(link_local(key)) & (1 << 64) - 1
    assert address.packed[:8] == bytes.fromhex("fd12000000000000")
    assert int(address) & (1 << 64) - 1 == low
    small = node_address(parse_networks(["fd12::ff00/120"]), key)
    assert int(small) == (0xFD12 << 112 | 0xFF00) + (low & 0xFF)
    with pytest.raises(InvalidSetting, match="no network is an IPv6 one"):
        node_address(parse_networks(["10.0.0.0/8"]), key)
