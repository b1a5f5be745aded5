"""Endpoints of peers: names that are resolved, once or patiently, and the zones of link-local addresses."""

import socket

import pytest

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.wireguard import PeerStatus, Status, key_to_text
from threepipe.wireguard.peer_endpoint import with_zone_name
from threepipe.wireguard.quick.config import parse_config, with_status, write_config
from threepipe.wireguard.quick.names import resolve, resolve_patiently

KEY, OTHER = key_to_text(bytes(range(32))), key_to_text(bytes(range(1, 33)))


def test_an_unknown_endpoint_name_raises() -> None:
    with pytest.raises(EndpointError, match=r"endpoint nowhere\.invalid"):
        resolve(("nowhere.invalid", 5))
    for name in ("\N{LATIN SMALL LETTER E WITH ACUTE}" * 80, "a\0b", f"{'a' * 70}.example"):
        with pytest.raises(EndpointError, match="endpoint"):
            resolve((name, 5))


def test_the_zone_of_an_endpoint_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    index, name = socket.if_nameindex()[0]
    text = f"[Interface]\nPrivateKey = {KEY}\n[Peer]\nPublicKey = {OTHER}\nEndpoint = [fe80::1%{index}]:5"
    config = parse_config(text, "wg0", "wg0.conf")
    (peer,) = config.change().peers
    assert peer.endpoint == (f"fe80::1%{index}", 5)
    named = with_status(config, Status(bytes(range(32)), peers=(PeerStatus(peer.public_key, endpoint=peer.endpoint),)))
    shown = name if name.isascii() else index  # Names on Windows can have any characters.
    assert [peer.endpoint for peer in named.peers] == [(f"fe80::1%{shown}", 5)]
    assert f"Endpoint = [fe80::1%{shown}]:5" in write_config(named)

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(socket.AF_INET6, 2, 17, "", ("fe80::1", 5, 0, index))])
    assert resolve(("there.example.org", 5)) == (f"fe80::1%{index}", 5)


def test_an_index_of_no_interface_and_a_name_with_a_meaning_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("192.0.2.1", "fe80::1", "fe80::1%eth0", "fe80::1%99999", f"fe80::1%{10**20}"):
        assert with_zone_name((host, 5)) == (host, 5)
    monkeypatch.setattr(socket, "if_indextoname", lambda _: "a#b")
    assert with_zone_name(("fe80::1%7", 5)) == ("fe80::1%7", 5)


def test_an_endpoint_at_a_missing_interface_raises_with_its_name() -> None:
    with pytest.raises(EndpointError, match="endpoint fe80::1%no-such: no interface is named no-such"):
        resolve(("fe80::1%no-such", 5))


def test_a_name_that_cannot_be_resolved_yet_is_retried_with_growing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [socket.gaierror(socket.EAI_AGAIN, "not yet")] * 20
    waits: list[float] = []

    def look_up(*_: object) -> object:
        if answers:
            raise answers.pop()
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("192.0.2.1", 5))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(EndpointError, match="endpoint wg: not yet"):
        resolve_patiently(("wg", 5), waits.append)
    assert len(waits) == 15
    assert waits == sorted(waits)
    assert waits[-1] == 20
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "3")
    with pytest.raises(EndpointError):
        resolve_patiently(("wg", 5), waits.append)
    assert len(waits) == 18
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "infinity")
    answers += [socket.gaierror(socket.EAI_AGAIN, "not yet")] * 30
    assert resolve_patiently(("wg", 5), waits.append) == ("192.0.2.1", 5)
    answers += [socket.gaierror(socket.EAI_NONAME, "no such name")]
    with pytest.raises(EndpointError, match="no such name"):
        resolve_patiently(("wg", 5), waits.append)
    monkeypatch.setenv("WG_ENDPOINT_RESOLUTION_RETRIES", "often")
    with pytest.raises(InvalidSetting, match="RETRIES=often"):
        resolve_patiently(("wg", 5))
