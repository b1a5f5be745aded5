"""The table of kinds: every opener matches its row, and every mistake is answered with advice."""

import inspect
from contextlib import ExitStack
from importlib import import_module
from ipaddress import ip_interface

import pytest

import threepipe
from threepipe.echo import echo_reply, echo_request
from threepipe.endpoints.address import parse_address
from threepipe.endpoints.kinds import KINDS, Kind

SECONDS = 10.0


def opened(stack: ExitStack, address: str) -> threepipe.Endpoint:
    endpoint = threepipe.open_endpoint(address)
    stack.callback(endpoint.close)
    return endpoint


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_opener_has_exactly_the_options_of_its_kind(kind: Kind) -> None:
    module, _, function = kind.opener.partition(":")
    parameters = list(inspect.signature(getattr(import_module(module), function)).parameters.values())
    assert [each.name for each in parameters[1:]] == [option.name.replace("-", "_") for option in kind.options]
    assert [each.name for each in parameters[1:] if each.default is inspect.Parameter.empty] == [
        option.name for option in kind.options if option.required
    ]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_help_text_is_one_short_line(kind: Kind) -> None:
    for text in (kind.help, *(option.help for option in kind.options)):
        assert 10 < len(text) < 160
        assert text[0].islower()
        assert not text.endswith(".")


MISTAKES = [
    ("", "unknown kind ''; expected one of tun, udp, "),
    ("tap:t0", "unknown kind 'tap'; expected one of tun, udp, "),
    ("TUN:t0", r"unknown kind 'TUN'; did you mean tun\?$"),
    ("udp-listn:1", r"unknown kind 'udp-listn'; did you mean udp-listen\?$"),
    ("tun:t0,addr=10.6.7.7/24", r"unknown option 'addr' of tun; did you mean address\?$"),
    ("tun", "tun needs a parameter; write tun:NAME"),
    ("udp", "udp needs a parameter; write udp:HOST:PORT"),
    ("udp-listen", r"udp-listen needs a parameter; write udp-listen:\[HOST:\]PORT"),
    ("tcp-listen:", r"tcp-listen needs a parameter; write tcp-listen:\[HOST:\]PORT"),
    ("unix:", "unix needs a parameter; write unix:PATH"),
    ("exec", "exec needs a parameter; write exec:COMMAND"),
    ("fd", "fd needs a parameter; write fd:NUMBER"),
    ("pcap", "pcap needs a parameter; write pcap:PATH"),
    ("echo:here", "echo takes no parameter; write echo"),
    ("discard:x", "discard takes no parameter; write discard"),
    ("stdio:x", "stdio takes no parameter; write stdio"),
    ("echo,loud", "unknown option 'loud' of echo; it has no options"),
    ("tcp-listen:1,once", "unknown option 'once' of tcp-listen; expected one of reuse"),
    ("tun:t0,mtu", "option mtu of tun is written mtu=BYTES"),
    ("tun:t0,persistent=yes", "option persistent of tun is written persistent$"),
    ("tun:t0,mtu=1400,mtu=1500", "option mtu of tun is given twice"),
    ("tun:t0,mtu=much", "mtu=much of tun: expected a whole number; write mtu=BYTES"),
    ("tun:t0,queues=1.5", "queues=1.5 of tun: expected a whole number; write queues=NUMBER"),
    ("tun:t0,offload=yes", r"offload=yes of tun: expected on or off; write offload=on\|off"),
    ("tcp-listen:1,reuse=", r"reuse= of tcp-listen: expected on or off; write reuse=on\|off"),
    ("pcap:x,speed=0", "speed=0 of pcap: expected a number greater than 0; write speed=FACTOR"),
    ("pcap:x,speed=inf", "expected a number greater than 0"),
    ("pcap:x,speed=nan", "expected a number greater than 0"),
    ("pcap:x,speed=fast", "speed=fast of pcap: expected a number greater than 0; write speed=FACTOR"),
    ("tcp:localhost", "'localhost' is not HOST:PORT; write it like vpn.example.org:4242"),
    ("tcp:4242", "'4242' is not HOST:PORT"),
    ("tcp:host:0", "'host:0' is not HOST:PORT"),
    ("tcp:host:65536", "'host:65536' is not HOST:PORT"),
    ("tcp:host:-1", "'host:-1' is not HOST:PORT"),
    ("tcp:host:http", "'host:http' is not HOST:PORT"),
    ("tcp:host:\u0661", "is not HOST:PORT"),
    ("tcp:host:" + "1" * 5000, "is not HOST:PORT"),
    ("tcp::4242", "':4242' is not HOST:PORT"),
    ("tcp:.example.org:4242", "'.example.org' cannot be a host name; its parts between dots have 1 to 63 characters"),
    ("udp-listen:a..b:4242", "'a..b' cannot be a host name"),
    ("udp:host:4242,bind=a..b:4242", "'a..b' cannot be a host name"),
    ("tcp:" + "a" * 64 + ".org:4242", "cannot be a host name"),
    ("tcp:::1:4242", "'::1:4242': write an IPv6 address in brackets, as in \\[::1\\]:4242"),
    ("tcp-listen:::1:4242", "write an IPv6 address in brackets"),
    ("tcp-listen:host:99999", "'host:99999' is not \\[HOST:\\]PORT; write it like 4242, 127.0.0.1:4242"),
    ("udp:h:1,bind=x", "'x' is not \\[HOST:\\]PORT"),
    ("tls:host:4242", "tls needs cert=FILE, key=FILE, ca=FILE"),
    ("tls:host:4242,cert=a,key=b,ca=c,name=.example.org", "'.example.org' cannot be a host name"),
    ("tls-listen:4242,cert=a,key=b", "tls-listen needs cert=FILE, key=FILE, ca=FILE"),
    ("tun:a/b", "adapter name 'a/b': slashes"),
    ("tun:t0,address=10.6.7.256/24", r"'10\.6\.7\.256/24'.*; write it like 10\.6\.7\.1/24"),
    ("tun:t0,route=10.6.7.1/24", r"'10\.6\.7\.1/24'.*; write it like 10\.0\.0\.0/8"),
    ("tun:t0,dns=host", "'host'.*; write it like 10.6.7.53"),
    ("tun:t0,search=a..b", "'a..b'.*; write it like example.org"),
    ("tun:t0,mtu=67", "MTU 67: give 68 to 65535 bytes"),
    ("tun:t0,mtu=1000,address=fd00::1/64", "IPv6 needs at least 1280 bytes"),
    ("tun:t0,metric=0", "metric 0: give 1 to"),
    ("tun:t0,queues=256", "256 queues: give 1 to 255"),
    ("tun:t0,capacity=1000000", "capacity 1000000: give a power of two"),
    ("tun:t0,owner=user", "owner and group need a persistent adapter"),
    ("fd:3:3", "descriptor 3 is given twice; write fd:3 if it goes both ways"),
    ("exec:'a", "No closing quotation"),
    ("exec: ", "exec needs a command"),
]


@pytest.mark.parametrize(("address", "text"), MISTAKES, ids=[address[:30] for address, _ in MISTAKES])
def test_a_mistake_in_an_address_raises_with_advice(address: str, text: str) -> None:
    with pytest.raises(threepipe.InvalidSetting, match=text) as refused:
        parse_address(address)
    assert str(refused.value).startswith(f"address {address!r}")


@pytest.mark.parametrize("address", ["pcap:a,speed=2", "pcap:a,loop"])
def test_an_option_of_the_other_side_raises(address: str) -> None:
    assert parse_address(address, "left").text == address
    with pytest.raises(threepipe.InvalidSetting, match="of pcap is for the left end of a pipe only"):
        parse_address(address, "right")


def test_a_parsed_address_has_typed_values() -> None:
    address = parse_address("tun:t%d,address=10.6.7.1/24,address=fd00::1/64,mtu=1400,persistent,offload=off")
    assert (address.kind, address.parameter) == (KINDS["tun"], "t%d")
    assert address.options == {
        "address": [ip_interface("10.6.7.1/24"), ip_interface("fd00::1/64")],
        "mtu": 1400,
        "persistent": True,
        "offload": False,
    }
    assert parse_address("udp:[::1]:4242,bind=4243").parameter == ("::1", 4242)
    assert parse_address("udp:[::1]:4242,bind=4243").options == {"bind": ("127.0.0.1", 4243)}
    assert parse_address("fd:3:4").parameter == (3, 4)
    assert parse_address("exec:a 'b c'").parameter == ["a", "b c"]


# Kinds that need nothing of the system.

REQUESTS = [echo_request(*pair, 1, 2, b"data") for pair in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"))]


def test_echo_answers_echo_requests_of_both_families_only(stack: ExitStack) -> None:
    echo = opened(stack, "echo")
    others = [echo_reply(request) or b"" for request in REQUESTS]
    assert echo.send(REQUESTS + others) == 4
    assert list(echo.receive(SECONDS)) == others
    assert not echo.receive(0)
    assert echo.statistics[:5] == (2, sum(map(len, REQUESTS)), 1, 4, 2 * sum(map(len, REQUESTS)))


def test_echo_with_too_many_unread_replies_has_no_room(stack: ExitStack) -> None:
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


def test_discard_accepts_all_packets_and_returns_none(stack: ExitStack) -> None:
    discard = opened(stack, "discard")
    assert discard.send(REQUESTS * 1000) == 2000
    assert discard.statistics.sent_packets == 2000
    assert not discard.receive(0)
    with pytest.raises(threepipe.InvalidPacket):
        discard.send([b"no packet"])


@pytest.mark.parametrize("address", ["memory", "memory:", "memory:named"])
def test_memory_joins_each_two_endpoints_of_one_name(stack: ExitStack, address: str) -> None:
    for _ in range(2):
        with ExitStack() as pair:
            one, other = opened(pair, address), opened(pair, address)
            for source, target in ((one, other), (other, one)):
                assert source.send(REQUESTS) == 2
                assert list(target.receive(SECONDS)) == REQUESTS


def test_memory_endpoints_of_other_names_are_not_joined(stack: ExitStack) -> None:
    names = ("memory:a", "memory:b", "memory:a", "memory:b")
    ends = [opened(stack, name) for name in names]
    ends[0].send(REQUESTS[:1])
    ends[1].send(REQUESTS[1:])
    assert list(ends[2].receive(SECONDS)) == REQUESTS[:1]
    assert list(ends[3].receive(SECONDS)) == REQUESTS[1:]


@pytest.mark.parametrize("address", ["echo", "discard"])
def test_a_closed_endpoint_raises_and_can_be_closed_again(address: str) -> None:
    endpoint = threepipe.open_endpoint(address)
    endpoint.close()
    endpoint.close()
    with pytest.raises(threepipe.SessionClosed):
        endpoint.receive(0)
    with pytest.raises(threepipe.SessionClosed):
        endpoint.send(REQUESTS)
