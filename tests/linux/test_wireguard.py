"""threepipe-wg and other implementations of WireGuard as peers: traffic, restarts, moves and new keys."""

import base64
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.kernel import udp_socket
from tests.support.transfers import MIB, transfer
from tests.support.waiting import come_true
from tests.support.wireguard_flood import flooded
from tests.support.wireguard_peers import INSIDE, OUTSIDE, PROGRAMS, End, Program, Site, hasty, sites
from tests.support.wires import ETH_P_ALL
from threepipe.wireguard import Timing

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

OURS = 0
THEIRS = 1
OTHERS = [
    "wireguard-go",
    *(pytest.param(name, marks=pytest.mark.soak) for name in ("wireguard-go-newest", "boringtun", "gotatun")),
]
ENDS = pytest.mark.parametrize("number", [OURS, THEIRS], ids=["ours", "theirs"])
KEY, ANOTHER_KEY = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
INITIATION = 148
KEEPALIVE = 32
"""Bytes of a handshake initiation, and of a keepalive."""
PORT = 51820
TRAFFIC_CLASS = {
    4: (socket.IPPROTO_IP, socket.IP_TOS, socket.IP_RECVTOS),
    6: (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, socket.IPV6_RECVTCLASS),
}
"""IP version: the level of options, the one to send with, and the one to have it reported."""


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest) -> str:
    """Return an installed program; skip if it is missing."""
    if reason := PROGRAMS[request.param].missing():
        pytest.skip(reason)
    return str(request.param)


@contextmanager
def started(ours: str | Program, other: str) -> Iterator[Site]:
    """Start threepipe at one end and another program at the other, without peers."""
    with sites(ours, other) as made:
        for end in made.ends:
            end.start()
        yield made


@pytest.fixture
def site(other: str) -> Iterator[Site]:
    with started("threepipe", other) as made:
        yield made


def join(
    site: Site, knowing: int, version: int = 4, secrets: tuple[str, str] = ("", ""), keepalive: int = 0
) -> tuple[End, End]:
    """Make the ends peers. Only the first one returned knows the endpoint of the other, and sends keepalives."""
    first, second = site.ends[knowing], site.ends[1 - knowing]
    second.set_peer(first, preshared_key=secrets[second.number])
    settings = [*place(second, version), "persistent-keepalive", str(keepalive)]
    first.set_peer(second, *settings, preshared_key=secrets[first.number])
    return first, second


def place(end: End, version: int = 4) -> list[str]:
    return ["endpoint", OUTSIDE[version].endpoint(end.number + 1)]


def passed(site: Site, number: int) -> int:
    """Return the bytes that an end has sent, as counted by ours.

    Not all programs count handshakes or allow many queries.
    """
    received, sent = site.ends[OURS].shown("transfer")
    return int(sent if number == OURS else received)


@ENDS
@pytest.mark.parametrize("secret", ["", KEY], ids=["", "preshared"])
@pytest.mark.parametrize("version", [4, 6])
def test_initiator_and_responder_reach_each_other(site: Site, number: int, version: int, secret: str) -> None:
    started = int(time.time())
    initiator, responder = join(site, number, version, (secret, secret))
    for end, other in ((initiator, responder), (responder, initiator)):
        for inside in INSIDE:
            end.ping(inside, other)
        assert end.shown("endpoints") == [OUTSIDE[version].endpoint(other.number + 1)]
        assert int(end.shown("latest-handshakes")[0]) >= started or not end.program.tells_time
        assert all(int(count) > INITIATION for count in end.shown("transfer"))


def test_streams_through_the_tunnel_arrive_intact(site: Site) -> None:
    first, second = join(site, OURS)
    for sender, receiver, inside in ((first, second, 4), (second, first, 6)):
        transfer(sender.network, receiver.network, INSIDE[inside][receiver.number], 64 * MIB)


@ENDS
def test_a_handshake_with_another_preshared_key_fails(site: Site, number: int) -> None:
    join(site, number, secrets=(KEY, ANOTHER_KEY), keepalive=1)
    # A second initiation shows that the first had no valid answer.
    assert come_true(lambda: passed(site, number) >= 2 * INITIATION, 30)
    assert site.ends[OURS].shown("latest-handshakes") == ["0"]


@ENDS
def test_a_restarted_end_that_knows_its_peer_reconnects_at_once(site: Site, number: int) -> None:
    initiator, responder = join(site, number)
    initiator.ping(4, responder)
    initiator.stop()
    initiator.start()
    initiator.set_peer(responder, *place(responder))
    initiator.ping(4, responder)
    responder.ping(6, initiator)


@ENDS
def test_a_restarted_end_without_an_endpoint_is_found_again(site: Site, number: int) -> None:
    """The other end notices that no answer comes, and starts a handshake."""
    initiator, responder = join(site, 1 - number)
    initiator.ping(4, responder)
    responder.stop()
    responder.start()
    responder.set_peer(initiator)
    initiator.ping(6, responder)
    responder.ping(4, initiator)


@ENDS
@pytest.mark.parametrize("version", [4, 6])
def test_an_end_that_moves_is_followed(site: Site, number: int, version: int) -> None:
    mover, follower = join(site, number, version)
    mover.ping(4, follower)
    site.move(number, 77, version)
    mover.ping(6, follower)
    assert follower.shown("endpoints") == [OUTSIDE[version].endpoint(77)]
    follower.ping(4, mover)


def test_packets_are_not_padded_beyond_a_changed_mtu(site: Site) -> None:
    first, second = join(site, OURS)
    first.set_mtu(1390)
    second.set_mtu(1390)

    def not_padded() -> bool:
        before = passed(site, OURS)
        first.network.run("ping", "-c", "1", "-w", "20", "-s", str(1390 - 28), INSIDE[4][THEIRS])
        return passed(site, OURS) - before == 1390 + KEEPALIVE

    first.ping(4, second)
    assert come_true(not_padded, 30)  # The new MTU is known after the next handshake.


@pytest.mark.parametrize("version", [4, 6])
def test_answers_come_from_the_local_address_that_was_used(site: Site, version: int) -> None:
    """The system would choose another local address, and the other end would roam to it."""
    asker, asked = site.ends[THEIRS], site.ends[OURS]
    site.add_address(OURS, 99, version)
    asked.set_peer(asker)
    asker.set_peer(asked, "endpoint", OUTSIDE[version].endpoint(99))
    asker.ping(4, asked)
    asked.ping(6, asker)
    transfer(asked.network, asker.network, INSIDE[4][THEIRS], MIB)
    assert asker.shown("endpoints") == [OUTSIDE[version].endpoint(99)]
    site.remove_address(OURS, 99, version)
    asked.ping(4, asker)  # The answer comes from the remaining address, and the other end roams to it.
    assert asker.shown("endpoints") == [OUTSIDE[version].endpoint(1)]
    transfer(asked.network, asker.network, INSIDE[4][THEIRS], MIB)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("inside", [4, 6])
def test_a_mark_of_congestion_reaches_the_program_behind_the_tunnel(version: int, inside: int) -> None:
    """The kernel of the sender marks each outer packet that is ECN-capable, as a router does instead of dropping it."""
    family = "ip" if version == 4 else "ip6"
    rule = f"add rule inet t out udp dport {PORT} {family} ecn != not-ect {family} ecn set ce"
    chain = "add table inet t; add chain inet t out { type filter hook output priority mangle; }"
    level, *options = TRAFFIC_CLASS[inside]
    with started("threepipe", "threepipe") as site:
        first, second = join(site, OURS, version)
        first.ping(inside, second)
        first.network.run("nft", f"{chain}; {rule}")
        receiver = udp_socket(second.network, INSIDE[inside][THEIRS])
        sender = udp_socket(first.network, INSIDE[inside][OURS])
        with receiver, sender:
            receiver.setsockopt(level, options[1], 1)
            for sent, arrives in ((1, 3), (2, 3), (3, 3), (0, 0)):
                sender.setsockopt(level, options[0], sent)
                sender.sendto(b"marked", receiver.getsockname())
                _, ((_, _, data),), _, _ = receiver.recvmsg(100, 100)
                assert int.from_bytes(data, sys.byteorder) == arrives


def test_packets_with_ecn_pass_to_and_from_programs_that_carry_none(site: Site) -> None:
    first, second = join(site, OURS)
    first.ping(4, second)
    for ecn in ("1", "2", "3"):
        first.network.run("ping", "-c", "1", "-w", "20", "-Q", ecn, INSIDE[4][THEIRS])


@ENDS
def test_keepalives_are_sent_without_traffic(site: Site, number: int) -> None:
    join(site, number, keepalive=1)
    # A handshake, its confirmation, and two more keepalives.
    assert come_true(lambda: passed(site, number) >= INITIATION + 3 * KEEPALIVE, 30)
    assert site.ends[OURS].shown("latest-handshakes") != ["0"]


HASTY = Timing(rekey_after=1, reject_after=4, rekey_timeout=0.5, keepalive=1)


@ENDS
def test_keys_are_renewed_in_mid_stream(other: str, number: int, tmp_path: Path) -> None:
    """Our keys expire soon. If ours was the responder, it initiates when the first keys are too old."""
    log = tmp_path / "events"
    with started(hasty(HASTY, log), other) as site:
        first, second = join(site, number)
        first.ping(4, second)

        def handshakes() -> int:
            return log.read_text().split().count("handshake")

        def stream(sender: End, receiver: End) -> int:
            """Send streams until keys were renewed during three of them; return the number of streams."""
            streams = renewed = 0
            while renewed < 3:
                before, streams = handshakes(), streams + 1
                transfer(sender.network, receiver.network, INSIDE[6][receiver.number], 32 * MIB)
                renewed += handshakes() - before
            return streams

        with ThreadPoolExecutor(2) as executor:
            streams = [executor.submit(stream, first, second), executor.submit(stream, second, first)]
            assert all(each.result() for each in streams)
        first.ping(4, second)


HANDSHAKES = {1: "initiation", 2: "response", 3: "cookie"}


def overheard(sniffing: socket.socket) -> list[str]:
    """Return the handshake messages on a link since the last call."""
    found = []
    try:
        while True:
            data = sniffing.recv(65536)[28:]  # After the headers of IPv4 and UDP.
            if (kind := HANDSHAKES.get(int.from_bytes(data[:4], "little"))) and len(data) in (148, 92, 64):
                found.append(f"{kind} with a cookie" if kind != "cookie" and any(data[-16:]) else kind)
    except BlockingIOError:
        return found


@ENDS
def test_an_end_under_load_demands_a_cookie_and_accepts_it(other: str, number: int, tmp_path: Path) -> None:
    """The flooded end is under load. Its peer keeps its tunnel, and gets new keys with a cookie."""
    if number == THEIRS and not PROGRAMS[other].asks_all:
        pytest.skip(f"{other} sends cookies only to flooding addresses")
    with started(hasty(Timing(rekey_timeout=1), tmp_path / "events"), other) as site:
        honest, flooded_end = join(site, 1 - number)
        honest.ping(4, flooded_end)
        link = honest.network.namespace.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM))
        with link, flooded(flooded_end) as asked:
            link.bind((f"v{honest.number}", ETH_P_ALL))
            link.setblocking(False)
            assert asked.wait(20)
            honest.ping(4, flooded_end)
            flooded_end.ping(6, honest)
            for _ in range(5):  # After a burst, the end may accept an initiation without a cookie for a moment.
                honest.stop()
                honest.start()
                overheard(link)
                honest.set_peer(flooded_end, *place(flooded_end))
                honest.ping(4, flooded_end)
                if "cookie" in (seen := overheard(link)):
                    break
            assert "cookie" in seen, seen
            after = seen[seen.index("cookie") :]
            shown = after[after.index("initiation with a cookie") :]  # In a flood, a message may be lost.
            assert any(message.startswith("response") for message in shown), seen
            flooded_end.ping(6, honest)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_key_renewals_of_other_programs_lose_no_packets(tmp_path: Path) -> None:
    """Others are the initiators, and renew keys every two minutes: all at once, three times each."""
    names = [name for name, program in PROGRAMS.items() if name != "threepipe" and not program.missing()]

    def live(other: str) -> int:
        log = tmp_path / other
        with started(hasty(Timing(), log), other) as site:
            initiator, responder = join(site, THEIRS)
            initiator.ping(4, responder)
            inside = INSIDE[4][responder.number]
            pings = initiator.network.command("ping", "-q", "-c", "3700", "-i", "0.1", inside)
            done = subprocess.run(pings, capture_output=True, text=True, timeout=600)
            assert " 0% packet loss" in done.stdout, f"{other}: {done.stdout}{done.stderr}"
        return log.read_text().split().count("handshake")

    with ThreadPoolExecutor(len(names)) as executor:
        handshakes = dict(zip(names, executor.map(live, names), strict=True))
    assert min(handshakes.values()) >= 4, handshakes
