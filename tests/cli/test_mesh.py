"""The commands of a mesh: its authority, requests and certificates, and the status of an agent."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Done, run_here
from threepipe.mesh import Store, read_authority
from threepipe.mesh.records import public_part
from threepipe.wireguard import key_to_text, parse_networks

STATUS = {
    "interface": "mesh0",
    "name": "gw",
    "address": "fd12::1",
    "member": True,
    "bus": True,
    "endpoints": ["192.0.2.1:51820"],
    "prefixes": ["fd12:0:0:7::/64"],
    "certificate_expires": 1.0,
    "refused": {},
    "nodes": [
        {
            "name": name,
            "address": f"fd12::{number}",
            "prefixes": [],
            "next_hop": hop,
            "endpoint": endpoint,
            "round_trip": trip,
            "handshake_age": age,
            "expires": 2.0,
        }
        for number, (name, hop, endpoint, trip, age) in enumerate(
            [
                ("aa", "aa", "192.0.2.2:51820", 0.00123, 7.0),
                ("bb", "aa", None, 0.0025, None),
                ("cc", None, None, None, None),
            ]
        )
    ],
}


def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> Done:
    return run_here(monkeypatch, capfd, "mesh", *words)


def test_a_request_is_signed_and_becomes_the_certificate_of_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    authority, state, request, certificate = (tmp_path / name for name in ("authority", "state", "request", "cert"))
    done = call(monkeypatch, capfd, "authority", str(authority))
    assert done.printed.strip() == key_to_text(public_part(read_authority(authority)))
    done = call(monkeypatch, capfd, "request", "--name", "gw", "--state", str(state))
    request.write_text(done.printed)
    assert call(monkeypatch, capfd, "request", "--name", "gw", "--state", str(state)).printed == done.printed
    words = ["sign", str(authority), str(request), "--prefix", "fd12:0:0:7::/64", "--days", "10"]
    certificate.write_text(call(monkeypatch, capfd, *words).printed)
    done = call(
        monkeypatch, capfd, "join", "--bus", "nats://127.0.0.1:9", "--prefix", "10.0.0.0/8", "--state", str(state),
        "--certificate", str(certificate), "--name", "gw",
    )  # fmt: skip
    assert done.status == 1
    assert "no network is an IPv6 one" in done.complaint
    found, trusted = Store(state).certificate()
    assert (found.name, found.prefixes) == ("gw", parse_networks(["fd12:0:0:7::/64"]))
    assert found.expires - found.issued == 10 * 86_400_000
    assert trusted == public_part(read_authority(authority))


def test_joining_without_a_certificate_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    done = call(
        monkeypatch, capfd, "join", "--bus", "nats://127.0.0.1:9", "--prefix", "fd12::/48", "--state", str(tmp_path)
    )
    assert done.status == 1
    assert "threepipe mesh request" in done.complaint


def test_a_file_that_is_no_certificate_does_not_replace_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cert").write_text("nonsense")
    words = ["join", "--bus", "nats://127.0.0.1:9", "--prefix", "fd12::/48", "--certificate", str(tmp_path / "cert")]
    done = call(monkeypatch, capfd, *words, "--state", str(tmp_path / "state"))
    assert "is not a certificate" in done.complaint
    assert not (tmp_path / "state" / "certificate").exists()


def test_status_is_a_table(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    answers: list[Any] = [STATUS, STATUS | {"member": False, "bus": False, "refused": {"forged": 2}}]
    monkeypatch.setattr("threepipe.mesh.control.ask", lambda interface, request: answers.pop(0))
    lines = [line.split() for line in call(monkeypatch, capfd, "status").printed.splitlines()]
    assert ["node", "gw"] in lines
    assert ["aa", "fd12::0", "direct", "192.0.2.2:51820", "1.2", "ms", "7", "s", "ago"] in lines
    assert ["bb", "fd12::1", "aa", "none", "2.5", "ms", "none"] in lines
    assert ["cc", "fd12::2", "none", "none", "none", "none"] in lines
    printed = call(monkeypatch, capfd, "status").printed
    assert "not a member" in printed
    assert "away; the mesh stays as it is" in printed
    assert "2 forged" in printed


def test_status_as_json_is_the_agents(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("threepipe.mesh.control.ask", lambda interface, request: STATUS)
    assert json.loads(call(monkeypatch, capfd, "status", "--json").printed) == STATUS


def test_leaving_without_the_bus_warns(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    answers = [{"warning": None}, {"warning": "the bus is away"}]
    monkeypatch.setattr("threepipe.mesh.control.ask", lambda interface, request: answers.pop(0))
    assert call(monkeypatch, capfd, "leave").complaint == ""
    done = call(monkeypatch, capfd, "leave")
    assert (done.status, done.complaint) == (0, "threepipe: the bus is away\n")
