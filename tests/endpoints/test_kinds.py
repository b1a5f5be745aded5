"""The table of kinds: every opener fits its row, and every mistake is answered with what to write instead."""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module

import pytest

import threepipe
from threepipe.echo import echo_reply, echo_request
from threepipe.endpoints.kinds import KINDS, Kind

SECONDS = 10.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def opened(stack: ExitStack, address: str) -> threepipe.Endpoint:
    endpoint = threepipe.open_endpoint(address)
    stack.callback(endpoint.close)
    return endpoint


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_opener_of_a_kind_takes_its_options_and_no_others(kind: Kind) -> None:
    module, _, function = kind.opener.partition(":")
    parameters = list(inspect.signature(getattr(import_module(module), function)).parameters.values())
    assert [each.name for each in parameters[1:]] == [option.name for option in kind.options]
    assert all(each.default is not inspect.Parameter.empty for each in parameters[1:])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_is_described_in_a_line(kind: Kind) -> None:
    for text in (kind.help, *(option.help for option in kind.options)):
        assert 10 < len(text) < 160
        assert text[0].islower()
        assert not text.endswith(".")


MISTAKES = [
    ("", "'' is no kind; there are tun, udp, "),
    ("tap:t0", "'tap' is no kind; there are tun, udp, "),
    ("TUN:t0", "'TUN' is no kind"),
    ("tun", "tun is written tun:NAME"),
    ("udp", "udp is written udp:HOST:PORT"),
    ("udp-listen", r"udp-listen is written udp-listen:\[HOST:\]PORT"),
    ("tcp-listen:", r"tcp-listen is written tcp-listen:\[HOST:\]PORT"),
    ("unix:", "unix is written unix:PATH"),
    ("exec", "exec is written exec:COMMAND"),
    ("fd", "fd is written fd:NUMBER"),
    ("pcap", "pcap is written pcap:PATH"),
    ("echo:here", "echo is written without a place"),
    ("discard:x", "discard is written without a place"),
    ("stdio:x", "stdio is written without a place"),
    ("echo,loud", "echo has no option 'loud': it has none"),
    ("tcp-listen:1,once", "tcp-listen has no option 'once': it has reuse"),
    ("tun:t0,mtu", "option mtu of tun is written mtu=BYTES"),
    ("tun:t0,persistent=yes", "option persistent of tun is written persistent$"),
    ("tun:t0,mtu=1400,mtu=1500", "option mtu of tun is given twice"),
    ("tun:t0,mtu=much", "mtu=much of tun: .*; write mtu=BYTES"),
    ("tun:t0,queues=1.5", "queues=1.5 of tun: .*; write queues=NUMBER"),
    ("tun:t0,offload=yes", r"offload=yes of tun: say on or off; write offload=on\|off"),
    ("tcp-listen:1,reuse=", r"reuse= of tcp-listen: say on or off; write reuse=on\|off"),
    ("pcap:x,speed=0", "speed=0 of pcap: give a number greater than 0; write speed=FACTOR"),
    ("pcap:x,speed=inf", "give a number greater than 0"),
    ("pcap:x,speed=nan", "give a number greater than 0"),
    ("pcap:x,speed=fast", "speed=fast of pcap: .*; write speed=FACTOR"),
    ("tcp:localhost", "'localhost' is no place for this kind; write it like vpn.example.org:4242"),
    ("tcp:4242", "'4242' is no place for this kind"),
    ("tcp:host:0", "'host:0' is no place for this kind"),
    ("tcp:host:65536", "'host:65536' is no place"),
    ("tcp:host:-1", "'host:-1' is no place"),
    ("tcp:host:http", "'host:http' is no place"),
    ("tcp:host:\u0661", "is no place"),
    ("tcp:host:" + "1" * 5000, "is no place"),
    ("tcp::4242", "':4242' is no place"),
    ("tcp:::1:4242", "'::1:4242': an IPv6 address stands in brackets, as in \\[::1\\]:4242"),
    ("tcp-listen:::1:4242", "an IPv6 address stands in brackets"),
    ("tcp-listen:host:99999", "'host:99999' is no place for this kind; write it like 4242, 127.0.0.1:4242"),
    ("udp:h:1,bind=x", "'x' is no place for this kind"),
    ("tls:host:4242", "TLS needs cert=FILE, key=FILE and ca=FILE"),
    ("tls-listen:4242,cert=a,key=b", "TLS needs cert=FILE, key=FILE and ca=FILE"),
]


@pytest.mark.parametrize(("address", "text"), MISTAKES, ids=[address[:30] for address, _ in MISTAKES])
def test_a_mistake_is_answered_with_what_to_write(address: str, text: str) -> None:
    with pytest.raises(threepipe.InvalidSetting, match=text):
        threepipe.open_endpoint(address)


# The kinds that need nothing.

REQUESTS = [echo_request(*pair, 1, 2, b"data") for pair in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"))]


def test_echo_answers_requests_of_both_families_and_nothing_else(stack: ExitStack) -> None:
    echo = opened(stack, "echo")
    others = [echo_reply(request) or b"" for request in REQUESTS]
    assert echo.send(REQUESTS + others) == 4
    assert list(echo.receive(SECONDS)) == others
    assert not echo.receive(0)
    assert echo.statistics[:5] == (2, sum(map(len, REQUESTS)), 1, 4, 2 * sum(map(len, REQUESTS)))


def test_echo_keeps_a_bounded_number_of_replies_and_then_has_no_room(stack: ExitStack) -> None:
    echo = opened(stack, "echo")
    taken = 0
    while count := echo.send(REQUESTS * 50):
        taken += count
        assert taken < 10_000
    assert echo.statistics.sent_dropped == 100 + -taken % 100
    replies = 0
    while bundle := echo.receive(0):
        replies += len(bundle)
    assert replies == taken
    assert echo.send(REQUESTS) == 2


def test_discard_takes_everything_and_gives_nothing(stack: ExitStack) -> None:
    discard = opened(stack, "discard")
    assert discard.send(REQUESTS * 1000) == 2000
    assert discard.statistics.sent_packets == 2000
    assert not discard.receive(0)
    with pytest.raises(threepipe.InvalidPacket):
        discard.send([b"no packet"])


@pytest.mark.parametrize("address", ["memory", "memory:", "memory:named"])
def test_memory_joins_two_of_one_name_and_then_the_next_two(stack: ExitStack, address: str) -> None:
    for _ in range(2):
        with ExitStack() as pair:
            one, other = opened(pair, address), opened(pair, address)
            for source, target in ((one, other), (other, one)):
                assert source.send(REQUESTS) == 2
                assert list(target.receive(SECONDS)) == REQUESTS


def test_memory_of_another_name_is_another(stack: ExitStack) -> None:
    names = ("memory:a", "memory:b", "memory:a", "memory:b")
    ends = [opened(stack, name) for name in names]
    ends[0].send(REQUESTS[:1])
    ends[1].send(REQUESTS[1:])
    assert list(ends[2].receive(SECONDS)) == REQUESTS[:1]
    assert list(ends[3].receive(SECONDS)) == REQUESTS[1:]


@pytest.mark.parametrize("address", ["echo", "discard"])
def test_what_is_closed_says_so_and_may_be_closed_again(address: str) -> None:
    endpoint = threepipe.open_endpoint(address)
    endpoint.close()
    endpoint.close()
    with pytest.raises(threepipe.SessionClosed):
        endpoint.receive(0)
    with pytest.raises(threepipe.SessionClosed):
        endpoint.send(REQUESTS)
