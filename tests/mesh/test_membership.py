"""Membership by records: nodes join, move and go, bad records are refused, and all nodes decide the same."""

import itertools
import logging
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.mesh_bus import AUTHORITY, NETWORKS, Signer
from threepipe.mesh import Membership, Record
from threepipe.mesh.membership import MAX_LIFETIME, MAX_SKEW, claims_of
from threepipe.mesh.records import public_part


def new(now: int = 0) -> Membership:
    membership = Membership(public_part(AUTHORITY), NETWORKS)
    membership.online(now)
    return membership


def hear(membership: Membership, record: Record, after: int = 0, name: str | None = None) -> bool:
    return membership.hear(name or record.certificate.name, record.text.encode(), record.sequence + after)


def changes(membership: Membership) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = [(change.kind, change.record.certificate.name) for change in membership.changes]
    membership.changes.clear()
    return found


def test_a_node_joins_moves_and_leaves() -> None:
    membership, node = new(), Signer("gw", ["fd12:0:0:7::/64"])
    assert hear(membership, node.record())
    assert changes(membership) == [("joined", "gw")]
    record = membership.members["gw"]
    assert membership.address_of(record) == claims_of(record, NETWORKS)[0].network_address
    assert hear(membership, node.record(1, endpoints=[("192.0.2.2", 1)]))
    assert changes(membership) == [("moved", "gw")]
    assert hear(membership, node.record(2, endpoints=[("192.0.2.2", 1)]))
    assert changes(membership) == []
    assert hear(membership, node.record(3, endpoints=(), prefixes=(), left=True))
    assert changes(membership) == [("gone", "gw")]
    assert not membership.members


def test_a_node_with_other_prefixes_or_keys_goes_and_joins() -> None:
    membership, node, again = new(), Signer("gw", ["fd12:0:0:7::/64"]), Signer("gw", issued=1)
    hear(membership, node.record())
    hear(membership, node.record(1, prefixes=[]))
    assert changes(membership) == [("joined", "gw"), ("gone", "gw"), ("joined", "gw")]
    hear(membership, again.record(2_000))
    assert changes(membership) == [("gone", "gw"), ("joined", "gw")]
    assert membership.members["gw"].certificate.key == again.request.key


def test_a_record_expires_while_the_bus_is_there() -> None:
    membership, node = new(), Signer("gw")
    hear(membership, node.record())
    membership.expire(node.begin + 59_999)
    assert changes(membership) == [("joined", "gw")]
    membership.expire(node.begin + 60_000)
    assert changes(membership) == [("gone", "gw")]
    assert "gw" in membership.known


def test_nothing_expires_while_the_bus_is_away_and_then_each_has_its_time_again() -> None:
    membership, node = new(), Signer("gw")
    hear(membership, node.record())
    membership.away()
    membership.expire(node.begin + 600_000)
    membership.online(node.begin + 600_000)
    membership.expire(node.begin + 659_999)
    assert changes(membership) == [("joined", "gw")]
    membership.expire(node.begin + 660_000)
    assert changes(membership) == [("gone", "gw")]


def test_a_certificate_ends_also_while_the_bus_is_away() -> None:
    membership, node = new(), Signer("gw", expires=30_000)
    hear(membership, node.record())
    membership.away()
    membership.expire(node.begin + 30_000)
    assert changes(membership) == [("joined", "gw"), ("gone", "gw")]
    assert not membership.known


REFUSALS: dict[str, tuple[Signer, dict[str, Any]]] = {
    "forged": (Signer("gw", seed=bytes(32)), {}),
    "replayed": (Signer("gw"), {"sequence": 500}),
    "superseded": (Signer("gw", issued=-1), {"sequence": 5_000}),
    "future": (Signer("gw"), {"sequence": MAX_SKEW + 2_000}),
    "expired": (Signer("gw"), {"sequence": 1_500, "expires": 1_600}),
    "malformed": (Signer("gw"), {"sequence": 2_000, "expires": MAX_LIFETIME + 2_001}),
    "certificate": (Signer("gw", expires=1_900), {"sequence": 1_800}),
    "prefix": (Signer("gw", ["fd12:0:0:7::/64"]), {"sequence": 2_000, "prefixes": ["fd12:0:0:8::/64"]}),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_record_is_refused_with_its_reason_and_changes_nothing(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    liar, fields = REFUSALS[kind]
    node = Signer("gw")
    node.keys, node.request, node.begin = liar.keys, liar.request, liar.begin
    node.certificate = node.certify()
    membership = new()
    assert membership.hear("gw", node.record(1_000).text.encode(), liar.begin + 1_000)
    before = dict(membership.known), dict(membership.members), changes(membership)
    for _ in range(3):
        assert not membership.hear("gw", liar.record(**fields).text.encode(), liar.begin + 1_999)
    assert (membership.known, membership.members, [*before[2], *changes(membership)]) == before
    assert membership.refused == {kind: 3}
    (line,) = caplog.messages  # Once, however often the bus repeats it.
    assert line.startswith(f"the record of gw is refused ({kind}): ")


def test_a_prefix_outside_the_network_is_refused_though_it_is_granted() -> None:
    membership, node = new(), Signer("gw", ["192.168.0.0/16"])
    assert not hear(membership, node.record())
    assert membership.refused == {"prefix": 1}


def test_a_record_with_an_endpoint_inside_the_mesh_is_refused() -> None:
    """There the device's own datagrams would come back to it, and grow."""
    membership, node = new(), Signer("gw")
    assert not hear(membership, node.record(endpoints=[("192.0.2.1", 1), ("10.42.0.9", 51820)]))
    assert membership.refused == {"endpoint": 1}


def test_a_name_that_the_bus_invents_is_logged_as_one_short_word(caplog: pytest.LogCaptureFixture) -> None:
    new().hear("\x1b[2J" + "x" * 5_000, b"lie", 0)
    (line,) = caplog.messages
    assert line.isprintable()
    assert len(line) < 200


def test_a_node_whose_clock_was_ahead_is_heard_again_once_it_is_right() -> None:
    membership, node = new(), Signer("gw")
    assert hear(membership, node.record(3_600_000, 3_660_000))  # The clock here was ahead too.
    assert membership.hear("gw", node.record().text.encode(), node.begin)
    assert membership.known["gw"].sequence == node.begin


def test_a_record_under_another_name_is_refused() -> None:
    membership, node = new(), Signer("gw")
    assert not hear(membership, node.record(), name="other")
    assert membership.refused == {"forged": 1}


def test_a_record_that_the_bus_repeats_is_not_refused() -> None:
    membership, record = new(), Signer("gw").record()
    assert hear(membership, record)
    assert not hear(membership, record, 90_000)
    assert not membership.refused


def test_refusals_are_told_again_after_a_good_record(caplog: pytest.LogCaptureFixture) -> None:
    membership, node = new(), Signer("gw")
    for number in (1, 2):
        assert hear(membership, node.record(number))
        assert not hear(membership, node.record(0))
    assert len(caplog.messages) == 2


def test_the_log_of_invented_names_is_bounded() -> None:
    membership = new()
    for number in range(1_500):
        membership.hear(f"n{number}", b"lie", 0)
    assert membership.refused == {"malformed": 1_500}
    assert len(membership._told) <= 1_000


@pytest.mark.parametrize("prefix", ["fd12:0:0:7::/64", "10.42.7.0/24"])
def test_the_earlier_certificate_keeps_a_prefix_that_both_claim(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Signer("zz", ["fd12:0:0:7::/64", "10.42.7.0/24"]), Signer("aa", [prefix], issued=1)
    for order in itertools.permutations([first, second]):
        caplog.clear()
        membership = new()
        for node in order:
            hear(membership, node.record())
        assert [*membership.members] == ["zz"]
        assert "the record of aa is refused (clash): zz has the same address or prefix" in caplog.text
        hear(membership, first.record(1, left=True))
        assert [*membership.members] == ["aa"]
    assert changes(membership) == [("joined", "aa"), ("gone", "aa"), ("joined", "zz"), ("gone", "zz"), ("joined", "aa")]


def test_a_prefix_inside_anothers_is_no_clash() -> None:
    membership = new()
    for number, prefix in enumerate(["fd12::/48", "fd12:0:0:7::/64", "10.42.0.0/16", "10.42.7.1/32"]):
        hear(membership, Signer(f"n{number}", [prefix]).record())
    assert len(membership.members) == 4
    assert not membership.refused


def test_a_prefix_that_a_record_names_twice_is_claimed_once() -> None:
    membership, node = new(), Signer("gw", ["10.42.0.0/16"])
    hear(membership, node.record(prefixes=["10.42.7.0/24", "10.42.7.0/24"]))
    assert len(claims_of(membership.members["gw"], NETWORKS)) == 2
    assert hear(membership, node.record(1, prefixes=()))


def test_of_two_certificates_of_the_same_time_the_lower_key_wins() -> None:
    nodes = [Signer(name, ["fd12:0:0:7::/64"]) for name in ("aa", "bb")]
    for node in nodes:
        node.begin = nodes[0].begin
        node.certificate = node.certify()
    membership = new()
    for node in nodes:
        hear(membership, node.record())
    assert [*membership.members] == [min(nodes, key=lambda node: node.request.key).name]


def test_two_names_with_the_same_key_clash() -> None:
    one, two = Signer("aa"), Signer("bb", issued=1)
    two.keys, two.request = one.keys, one.keys.request("bb")
    two.certificate = two.certify(issued=1)
    membership = new()
    hear(membership, two.record())
    hear(membership, one.record())
    assert [*membership.members] == ["aa"]


def test_known_nodes_go_on_after_a_restart_and_replays_stay_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, node, gone = new(), Signer("gw"), Signer("gone", expires=1_000)
    old = node.record()
    stranger = Signer("st", seed=bytes(32)).record()
    for record in (old, node.record(1), gone.record()):
        hear(first, record)
    texts = [old.text, *[record.text for record in first.known.values()], stranger.text, "torn"]
    second = Membership(public_part(AUTHORITY), NETWORKS)
    second.restore(texts, node.begin + 600_000)
    assert changes(second) == [("joined", "gw")]
    assert not hear(second, old)
    assert second.refused == {"replayed": 1}
    assert len([line for line in caplog.messages if line.startswith("a kept record is left out")]) == 3


def test_ipv4_prefixes_do_not_clash_with_ipv6_ones() -> None:
    membership = new()
    for number, prefix in enumerate(["10.42.0.0/17", "10.42.128.0/17", "fd12:0:0:7::/64"]):
        hear(membership, Signer(f"n{number}", [prefix]).record())
    assert len(membership.members) == 3


POOL = [
    Signer(f"n{number}", prefixes, issued=number % 3)
    for number, prefixes in enumerate(
        [
            ["fd12:0:0:7::/64"],
            ["fd12:0:0:7::/64", "10.42.0.0/24"],
            ["10.42.0.0/24", "10.42.1.0/24"],
            ["10.42.1.0/24"],
            ["fd12:0:0:7:1::/80"],
            [],
        ]
    )
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_records_decides_nothing(steps: list[tuple[int, bool]], chance: random.Random) -> None:
    begin = POOL[0].begin
    newest = {index: POOL[index].record(number, left=left) for number, (index, left) in enumerate(steps)}
    found = []
    for _ in range(2):
        membership = new()
        records = [*newest.values()]
        chance.shuffle(records)
        for record in records:
            membership.hear(record.certificate.name, record.text.encode(), begin + 20)
        found.append(set(membership.members))
        live: set[str] = set()
        for change in membership.changes:  # The changes lead to the members.
            (live.discard if change.kind == "gone" else live.add)(change.record.certificate.name)
        assert live == found[-1]
    assert found[0] == found[1]
