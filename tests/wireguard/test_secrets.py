"""Keys are never shown: not in errors about the place where one was written, in reprs, or by the command line."""

import base64
import gc
import os
import re
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from types import MethodType

import pytest

from tests.support.commands import run, run_here
from tests.support.wireguard_pair import THERE, joined, new_key
from threepipe.cli.output import complain
from threepipe.wireguard import Change, PeerChange, PeerStatus, Status, key_to_text, parse_networks
from threepipe.wireguard.noise import Handshake, Identity, Keys, initiate, read_initiation, read_timestamp, respond
from threepipe.wireguard.quick.commands import call
from threepipe.wireguard.quick.config import parse_config
from threepipe.wireguard.quick.names import resolve
from threepipe.wireguard.tai64n import timestamp
from threepipe.wireguard.uapi import UapiError, parse_change, parse_status

KEY = bytes.fromhex("fbff3a7d10e94bbb62c8aa8f20c47fd21a77f0d3d1c2be55aa01ffeebb239c71")
BASE64, HEX = key_to_text(KEY), KEY.hex()
OTHER = key_to_text(bytes(range(32)))
SLASHES = "abcdefghijklmnop/qrstuvwxyz+ABCDEFGHIJKLMN/="
SPELLINGS = [
    BASE64,
    HEX,
    HEX.upper(),
    base64.urlsafe_b64encode(KEY).decode(),
    BASE64[:-1],
    BASE64[:30],
    f"{BASE64}{BASE64}",
    f"{BASE64[:-2]}!=",
    f"{BASE64}/32",
    f"[{BASE64}]",
    f"[{BASE64}]:51820",
    f"{BASE64}:51820",
    f"{BASE64[:-1]}:99999",
]
"""Keys, and parts of keys as a mistake may leave them."""
CONFIG_LINES = (
    *("{}", "{} = x", "PrivateKey {}", "PrivateKey: {}", "Private Key = {}", "PrivateKey = {}", "ListenPort = {}"),
    *("FwMark = {}", "Address = {}", "DNS = {},!", "MTU = {}", "Table = {}", "SaveConfig = {}", "[{}]"),
)
PEER_LINES = ("{}", "PublicKey = {}", "PresharedKey = {}", "AllowedIPs = {}", "Endpoint = {}")
DEVICE_KEYS = ("{}", "private_key {}", "private_key={}", "listen_port={}", "fwmark={}", "replace_peers={}", "{}=1")
PEER_KEYS = (
    *("public_key={}", "preshared_key={}", "endpoint={}", "allowed_ip={}", "allowed_ip=-{}", "remove={}"),
    *("persistent_keepalive_interval={}", "protocol_version={}", "{}"),
)


def shows(text: str, key: bytes = KEY) -> bool:
    """Return True if `text` has 20 characters in a row of the key in any of its forms."""
    forms = key_to_text(key), base64.urlsafe_b64encode(key).decode(), key.hex(), key.hex().upper()
    windows = [form[start : start + 20] for form in forms for start in range(len(form) - 19)]
    return any(window in text for window in (*windows, repr(key), repr(bytearray(key))))


def complaints() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield calls with a key in the wrong place or form."""
    for spelling in SPELLINGS:
        for line in CONFIG_LINES:
            wrong = f"[Interface]\n{line.format(spelling)}\nend"  # A spelling that is right is followed by a mistake.
            yield wrong, partial(parse_config, wrong, "wg0", "wg0.conf")
        for line in PEER_LINES:
            wrong = f"[Interface]\nPrivateKey = {BASE64}\n[Peer]\n{line.format(spelling)}\nend"
            yield wrong, partial(parse_config, wrong, "wg0", "wg0.conf")
        for line in DEVICE_KEYS:
            yield line, partial(parse_change, [line.format(spelling), "end"])
        for line in PEER_KEYS:
            yield line, partial(parse_change, [f"public_key={HEX}", line.format(spelling), "end"])
            yield line, partial(parse_status, f"public_key={HEX}\n{line.format(spelling)}\nerrno=22\n\n")
        yield "parse_networks", partial(parse_networks, [f"{spelling}!"])
        yield "endpoint", partial(PeerChange, KEY, endpoint=(spelling, 1))
        yield "private key", partial(Change, private_key=spelling.encode())
        yield "status", partial(parse_status, f"errno={spelling}\n\n")


def test_an_error_about_a_line_with_a_key_does_not_show_it() -> None:
    for place, parse in complaints():
        with pytest.raises((ValueError, UapiError)) as caught:
            parse()
        told = "".join(traceback.format_exception(caught.value))
        assert not shows(told), place


@pytest.mark.parametrize("name", [BASE64, f"{BASE64}\0", HEX], ids=["base64", "invalid", "hex"])
def test_an_endpoint_name_that_is_a_key_is_not_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *_: object) -> None:
        if "\0" in host:
            raise ValueError(f"embedded null character in {host}")
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(OSError, match="endpoint") as caught:
        resolve((name, 1))
    assert not shows(str(caught.value))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such shell")
@pytest.mark.parametrize("key", [BASE64, HEX], ids=["base64", "hex"])
def test_a_failed_command_with_a_key_does_not_show_it(key: str) -> None:
    with pytest.raises(ValueError, match=r"test \(hidden\) = /usr/share/wireguard/the-other-key: ended with") as caught:
        call([f"test {key} = /usr/share/wireguard/the-other-key"], "wg0")
    assert not shows(str(caught.value))


def test_what_is_wrong_is_shown_if_it_is_not_a_key() -> None:
    with pytest.raises(ValueError, match=r"line 2: unknown key 'PrivatKey'; did you mean PrivateKey"):
        parse_config("[Interface]\nPrivatKey = x", "wg0", "wg0.conf")
    with pytest.raises(ValueError, match=r"line 2: address .*2001:db8:1234:5678:9abc:def0:1234:5678/129"):
        parse_config("[Interface]\nAddress = 2001:db8:1234:5678:9abc:def0:1234:5678/129", "wg0", "wg0.conf")


def test_reprs_show_no_secrets() -> None:
    preshared = new_key()
    network, left, right = joined(preshared_key=preshared)
    left.send(THERE)
    network.settle()
    assert right.packets
    secrets = [left.key, right.key, preshared]
    for value in _reachable(left.tunnel):
        assert not any(shows(repr(value), secret) for secret in secrets), type(value)


def test_reprs_of_settings_and_handshakes_show_no_secrets() -> None:
    ours, theirs = Identity(KEY), Identity(os.urandom(32))
    static = ours.shared(theirs.public)
    assert static is not None
    begun = initiate(ours, theirs.public, static, 1, timestamp(1.0))
    assert begun is not None
    mine, message = begun
    received = read_initiation(theirs, memoryview(message + bytes(32)))
    assert received is not None
    opened = read_timestamp(received, static)
    assert opened is not None
    answered = respond(opened[0], ours.public, KEY, 2, 1)
    assert answered is not None
    keys, _ = answered
    assert isinstance(mine, Handshake)
    assert isinstance(keys, Keys)
    for value in (mine, received, opened, keys, [keys], ours):
        for secret in (KEY, mine.chain, opened[0].chain, *keys):
            assert not shows(repr(value), secret)
    config = parse_config(
        f"[Interface]\nPrivateKey={BASE64}\n[Peer]\nPublicKey={OTHER}\nPresharedKey={BASE64}", "wg0", ""
    )
    settings = (
        Change(KEY, peers=(PeerChange(theirs.public, preshared_key=KEY),)),
        Status(KEY, peers=(PeerStatus(theirs.public, KEY),)),
        config,
    )
    for setting in settings:
        assert not shows(repr(setting))


@pytest.mark.parametrize("words", [[], ["pubkey"], ["show", "wg0"]])
def test_a_key_among_the_arguments_is_refused_without_showing_it(words: list[str]) -> None:
    done = run("wg", *words, HEX if words else BASE64)
    assert done.status == 1
    assert not shows(done.plain)
    assert "keys are never arguments" in done.plain


@pytest.mark.parametrize("key", [BASE64, SLASHES, HEX], ids=["base64", "slashes", "hex"])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{}", "No such command '(hidden)'"),
        ("--{}=1", "No such option: --(hidden)"),
        ("adapter {}", "No such command '(hidden)'"),
        ("adapter create {}", "adapter name '(hidden)' has"),
        ("adapter create tp0 --address {}", "address '(hidden)'"),
        ("adapter create tp0 --mtu {}", "not a valid int"),
        ("capture {}", "(hidden)"),
        ("doctor {}", "(hidden)"),
        ("pipe {} memory:", "unknown kind '(hidden)'"),
        ("pipe wg:{} memory:", "(hidden)"),
        ("pipe wg:./{}.conf memory:", "(hidden)"),
        ("pipe exec:{} memory:", "(hidden)"),
        ("pipe tun:tp0,{} memory:", "(hidden)"),
        ("pipe tun:tp0,mtu={} memory:", "(hidden)"),
    ],
)
def test_a_key_among_the_arguments_of_any_command_is_not_repeated(
    line: str, said: str, key: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = run_here(monkeypatch, capfd, *line.format(key).split())
    assert done.status in (1, 2)
    assert said in done.plain
    assert not any(part in done.plain for part in re.split("[/+=]", key) if len(part) > 11)


def test_a_key_that_is_not_an_argument_stays_in_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["threepipe", "pipe", f"tls:there:1,fingerprint={HEX}"])
    complain(f"its certificate has the fingerprint {KEY[::-1].hex()}, which is not {HEX}")
    assert f"the fingerprint {KEY[::-1].hex()}, which is not (hidden)" in capfd.readouterr().err


FOLLOWED = (dict, list, tuple, set, frozenset, deque, partial, MethodType)


def _reachable(root: object) -> list[object]:
    """Return the objects of threepipe that `root` leads to, by themselves and by containers.

    Modules are not among them: CPython 3.12.1 puts freed objects of asyncio's module into the answer of
    `gc.get_referents`, and later collections never end (https://github.com/python/cpython/issues/122695).
    """
    found: dict[int, object] = {}
    waiting = [root]
    while waiting:
        value = waiting.pop()
        is_ours = type(value).__module__.startswith("threepipe")
        if id(value) not in found and (is_ours or isinstance(value, FOLLOWED)):
            found[id(value)] = value
            waiting += gc.get_referents(value)
    return [value for value in found.values() if type(value).__module__.startswith("threepipe")]
