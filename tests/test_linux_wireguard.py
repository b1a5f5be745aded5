"""threepipe-wg and the devices of others, as each other's peers: what goes through, and what is lived through."""

import base64
import time
from collections.abc import Iterator

import pytest

from conftest import come_true
from transfers import MIB, transfer
from wireguard_peers import INSIDE, OUTSIDE, PROGRAMS, End, Site, sites

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
"""Bytes of the first message of a handshake, and of a message with nothing in it."""


@pytest.fixture(params=OTHERS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Threepipe at one end, and another program at the other; started, and without peers."""
    names = ("threepipe", request.param)
    for name in names:
        if reason := PROGRAMS[name].missing():
            pytest.skip(reason)
    with sites(*names) as made:
        for end in made.ends:
            end.start()
        yield made


def join(
    site: Site, knowing: int, version: int = 4, secrets: tuple[str, str] = ("", ""), keepalive: int = 0
) -> tuple[End, End]:
    """Make the ends each other's peers; only one knows where the other is, and keeps alive. That one comes first."""
    first, second = site.ends[knowing], site.ends[1 - knowing]
    second.set_peer(first, preshared_key=secrets[second.number])
    settings = [*place(second, version), "persistent-keepalive", str(keepalive)]
    first.set_peer(second, *settings, preshared_key=secrets[first.number])
    return first, second


def place(end: End, version: int = 4) -> list[str]:
    return ["endpoint", OUTSIDE[version].endpoint(end.number + 1)]


def passed(site: Site, number: int) -> int:
    """Bytes that end has sent the other, as ours says: not all count handshakes, nor bear to be asked so often."""
    received, sent = site.ends[OURS].shown("transfer")
    return int(sent if number == OURS else received)


@ENDS
@pytest.mark.parametrize("secret", ["", KEY], ids=["", "preshared"])
@pytest.mark.parametrize("version", [4, 6])
def test_what_initiates_reaches_what_responds_and_is_reached(
    site: Site, number: int, version: int, secret: str
) -> None:
    started = int(time.time())
    initiator, responder = join(site, number, version, (secret, secret))
    for end, other in ((initiator, responder), (responder, initiator)):
        for inside in INSIDE:
            end.ping(inside, other)
        assert end.shown("endpoints") == [OUTSIDE[version].endpoint(other.number + 1)]
        assert int(end.shown("latest-handshakes")[0]) >= started or not end.program.tells_time
        assert all(int(count) > INITIATION for count in end.shown("transfer"))


def test_streams_come_through_unchanged(site: Site) -> None:
    first, second = join(site, OURS)
    for sender, receiver, inside in ((first, second, 4), (second, first, 6)):
        transfer(sender.network, receiver.network, INSIDE[inside][receiver.number], 64 * MIB)


@ENDS
def test_another_preshared_key_is_no_peer(site: Site, number: int) -> None:
    join(site, number, secrets=(KEY, ANOTHER_KEY), keepalive=1)
    # What makes it ask a second time is that there was no answer to be content with.
    assert come_true(lambda: passed(site, number) >= 2 * INITIATION, 30)
    assert site.ends[OURS].shown("latest-handshakes") == ["0"]


@ENDS
def test_restarted_end_that_knows_the_other_is_back_at_once(site: Site, number: int) -> None:
    initiator, responder = join(site, number)
    initiator.ping(4, responder)
    initiator.stop()
    initiator.start()
    initiator.set_peer(responder, *place(responder))
    initiator.ping(4, responder)
    responder.ping(6, initiator)


@ENDS
def test_restarted_end_that_knows_nothing_is_found_again(site: Site, number: int) -> None:
    """The other notices that nothing comes back, and asks for new keys."""
    initiator, responder = join(site, 1 - number)
    initiator.ping(4, responder)
    responder.stop()
    responder.start()
    responder.set_peer(initiator)
    initiator.ping(6, responder)
    responder.ping(4, initiator)


@ENDS
@pytest.mark.parametrize("version", [4, 6])
def test_end_that_moves_is_followed(site: Site, number: int, version: int) -> None:
    mover, follower = join(site, number, version)
    mover.ping(4, follower)
    site.move(number, 77, version)
    mover.ping(6, follower)
    assert follower.shown("endpoints") == [OUTSIDE[version].endpoint(77)]
    follower.ping(4, mover)


def test_packets_are_not_padded_beyond_an_mtu_that_was_set_later(site: Site) -> None:
    first, second = join(site, OURS)
    first.set_mtu(1390)
    second.set_mtu(1390)

    def not_padded() -> bool:
        before = passed(site, OURS)
        first.network.run("ping", "-c", "1", "-w", "20", "-s", str(1390 - 28), INSIDE[4][THEIRS])
        return passed(site, OURS) - before == 1390 + KEEPALIVE

    first.ping(4, second)
    assert come_true(not_padded, 30)  # The handshake tells it, which may have been a moment ago.


@pytest.mark.parametrize("version", [4, 6])
def test_answers_come_from_the_address_that_was_asked(site: Site, version: int) -> None:
    """And not from the one that the system would choose, to which the other end would move."""
    asker, asked = site.ends[THEIRS], site.ends[OURS]
    site.add_address(OURS, 99, version)
    asked.set_peer(asker)
    asker.set_peer(asked, "endpoint", OUTSIDE[version].endpoint(99))
    asker.ping(4, asked)
    asked.ping(6, asker)
    transfer(asked.network, asker.network, INSIDE[4][THEIRS], MIB)
    assert asker.shown("endpoints") == [OUTSIDE[version].endpoint(99)]


@ENDS
def test_keepalives_go_without_anything_to_say(site: Site, number: int) -> None:
    join(site, number, keepalive=1)
    # A handshake, what confirms it, and two more.
    assert come_true(lambda: passed(site, number) >= INITIATION + 3 * KEEPALIVE, 30)
    assert site.ends[OURS].shown("latest-handshakes") != ["0"]
