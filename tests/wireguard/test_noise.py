"""The handshake against an independent implementation of Noise; cookies, timestamps, load and allowed IPs."""

import ipaddress
import os
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import Keypair as NoiseKeypair
from noise.connection import NoiseConnection

from threepipe.settings import Network
from threepipe.wireguard.allowed_ips import AllowedIPs
from threepipe.wireguard.constants import CONSTRUCTION, COOKIE_LIFETIME, IDENTIFIER
from threepipe.wireguard.cookie import CookieChecker, CookieGenerator, Load, _hchacha20
from threepipe.wireguard.message import INITIATION, RESPONSE, type_of
from threepipe.wireguard.noise import (
    Identity,
    initiate,
    read_initiation,
    read_response,
    read_timestamp,
    respond,
)
from threepipe.wireguard.tai64n import timestamp

MACS = bytes(32)
NOW = timestamp(1_700_000_000.5)


def new_key() -> bytes:
    return X25519PrivateKey.generate().private_bytes_raw()


def independent(own: bytes, preshared: bytes, remote: bytes | None = None) -> NoiseConnection:
    noise = NoiseConnection.from_name(CONSTRUCTION)
    noise.set_prologue(IDENTIFIER)
    noise.set_psks(psk=preshared)
    noise.set_keypair_from_private_bytes(NoiseKeypair.STATIC, own)
    if remote is None:
        noise.set_as_responder()
    else:
        noise.set_keypair_from_public_bytes(NoiseKeypair.REMOTE_STATIC, remote)
        noise.set_as_initiator()
    noise.start_handshake()
    return noise


def shared(identity: Identity, remote: bytes) -> bytes:
    secret = identity.shared(remote)
    assert secret is not None
    return secret


@pytest.mark.parametrize("preshared", [bytes(32), os.urandom(32)], ids=["no-psk", "psk"])
def test_another_implementation_answers_our_initiation(preshared: bytes) -> None:
    own, theirs = Identity(new_key()), new_key()
    remote = Identity(theirs).public
    noise = independent(theirs, preshared)
    begun = initiate(own, remote, shared(own, remote), 7, NOW)
    assert begun is not None
    handshake, message = begun
    assert noise.read_message(message[8:]) == NOW
    response = RESPONSE.pack(2, 9, 7, *_cut(bytes(noise.write_message()), 32))
    keys = read_response(own, handshake, preshared, memoryview(response + MACS))
    assert keys is not None
    sealed = noise.encrypt(b"from the responder")
    assert _open(keys.receive, sealed) == b"from the responder"
    assert noise.decrypt(_seal(keys.send, b"from the initiator")) == b"from the initiator"


@pytest.mark.parametrize("preshared", [bytes(32), os.urandom(32)], ids=["no-psk", "psk"])
def test_we_answer_an_initiation_of_another_implementation(preshared: bytes) -> None:
    own, theirs = Identity(new_key()), new_key()
    remote = Identity(theirs).public
    noise = independent(theirs, preshared, own.public)
    body = bytes(noise.write_message(NOW))
    received = read_initiation(own, memoryview(INITIATION.pack(1, 5, *_cut(body, 32, 80)) + MACS))
    assert received is not None
    assert (received.sender_index, received.static) == (5, remote)
    opened = read_timestamp(received, shared(own, remote))
    assert opened is not None
    assert opened[1] == NOW
    responded = respond(opened[0], remote, preshared, 6, 5)
    assert responded is not None
    keys, response = responded
    assert RESPONSE.unpack(response)[:3] == (2, 6, 5)
    assert noise.read_message(response[12:]) == b""
    assert noise.decrypt(_seal(keys.send, b"hello")) == b"hello"
    assert _open(keys.receive, noise.encrypt(b"well met")) == b"well met"


def test_a_flipped_bit_or_another_key_fails_to_open() -> None:
    own, other = Identity(new_key()), Identity(new_key())
    begun = initiate(own, other.public, shared(own, other.public), 7, NOW)
    assert begun is not None
    handshake, message = begun

    def respond_to(text: bytes, preshared: bytes = bytes(32)) -> bytes | None:
        received = read_initiation(other, memoryview(text + MACS))
        opened = read_timestamp(received, shared(other, own.public)) if received else None
        responded = respond(opened[0], own.public, preshared, 8, 7) if opened else None
        return responded[1] if responded else None

    for index in range(8, len(message)):  # The hash does not cover the index before.
        assert respond_to(_flipped(message, index)) is None
    response = respond_to(message)
    assert response is not None
    assert read_response(own, handshake, bytes(32), memoryview(response + MACS)) is not None
    for index in range(12, len(response)):
        assert read_response(own, handshake, bytes(32), memoryview(_flipped(response, index) + MACS)) is None
    assert read_response(own, handshake, os.urandom(32), memoryview(response + MACS)) is None
    assert read_initiation(own, memoryview(message + MACS)) is None


def test_a_public_key_of_small_order_is_rejected() -> None:
    own = Identity(new_key())
    assert own.shared(bytes(32)) is None
    assert initiate(own, bytes(32), bytes(32), 1, NOW) is None
    received = read_initiation(own, memoryview(INITIATION.pack(1, 5, bytes(32), bytes(48), bytes(28)) + MACS))
    assert received is None


def test_timestamps_sort_by_time() -> None:
    assert timestamp(0.0) == bytes.fromhex("400000000000000a00000000")
    times = [1.0, 1.1, 1.9, 2.0, 1e9, 1e9 + 0.02, 2e9]
    stamps = [timestamp(time) for time in times]
    assert stamps == sorted(set(stamps))


def test_hchacha20_gives_the_result_of_its_draft() -> None:
    key = bytes(range(32))
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert _hchacha20(key, nonce).hex() == expected


def test_a_cookie_proves_an_address_for_two_minutes() -> None:
    own = Identity(new_key())
    checker, generator = CookieChecker(own.public), CookieGenerator(own.public)
    message = memoryview(generator.add_macs(b"some message", 100.0))
    source = b"\x0a\0\0\1\x12\x34"
    assert checker.has_mac1(message)
    assert not checker.has_mac2(message, source, 100.0)
    reply = memoryview(checker.reply(message, 7, source, 100.0))
    assert type_of(reply) == 3
    assert not CookieGenerator(own.public).receive(reply, 100.0)  # It has sent no message that this could answer.
    wrong = bytearray(reply)
    wrong[-1] ^= 1
    assert not generator.receive(memoryview(wrong), 100.0)
    assert generator.receive(reply, 100.0)
    assert not generator.receive(reply, 100.0)  # A reply counts once.
    message = memoryview(generator.add_macs(b"another", 101.0))
    assert checker.has_mac1(message)
    assert checker.has_mac2(message, source, 101.0)
    assert not checker.has_mac2(message, b"\x0a\0\0\2\x12\x34", 101.0)
    assert not checker.has_mac2(message, source, 100.0 + COOKIE_LIFETIME)
    assert bytes(generator.add_macs(b"late", 100.0 + COOKIE_LIFETIME))[-16:] == bytes(16)
    assert not CookieChecker(Identity(new_key()).public).has_mac1(message)


def test_load_is_high_until_a_second_after_many_initiations() -> None:
    load = Load()
    assert not any(load.is_high(10.0) for _ in range(128))
    assert load.is_high(10.5)
    assert load.is_high(11.0)
    assert not load.is_high(12.0)
    assert not any(load.is_too_high_from(b"1234") for _ in range(20))
    assert load.is_too_high_from(b"1234")
    assert not load.is_too_high_from(b"5678")
    load.is_high(13.0)
    assert not load.is_too_high_from(b"1234")


def networks(version: int) -> st.SearchStrategy[Network]:
    """Draw networks that contain one another."""
    base, bits = (0x0A << 24, 32) if version == 4 else (0xFD << 120, 128)
    numbers = st.integers(0, 255).map(lambda n: base | n << bits // 2 | n)
    return st.builds(lambda n, p: ipaddress.ip_network((n, p), strict=False), numbers, st.integers(0, bits))


@given(
    st.lists(st.tuples(st.sampled_from("+-x"), networks(4) | networks(6), st.sampled_from("abc")), max_size=40),
    st.data(),
)
def test_allowed_ips_agree_with_a_naive_model(changes: list[tuple[str, Network, str]], data: st.DataObject) -> None:
    allowed: AllowedIPs[str] = AllowedIPs()
    model: dict[Network, str] = {}
    for change, network, owner in changes:
        if change == "+":
            allowed.insert(network, owner)
            model[network] = owner
        elif change == "-":
            allowed.remove(network, owner)
            if model.get(network) == owner:
                del model[network]
        else:
            allowed.remove_all(owner)
            model = {other: its for other, its in model.items() if its != owner}
    for _ in range(3):
        address = data.draw(st.sampled_from([network[0] for _, network, _ in changes] or [ipaddress.ip_address("::")]))
        matching = [network for network in model if address.version == network.version and address in network]
        longest = max(matching, key=lambda network: network.prefixlen, default=None)
        for _ in range(2):  # The second look-up comes from the cache.
            assert allowed.find(address.packed) == (model[longest] if longest else None)
    for owner in "abc":
        assert set(allowed.of(owner)) == {network for network, its in model.items() if its == owner}


def test_the_cache_of_allowed_ips_is_bounded() -> None:
    allowed: AllowedIPs[str] = AllowedIPs()
    allowed.insert(ipaddress.ip_network("0.0.0.0/0"), "a")
    for number in random.Random(1).sample(range(2**32), 70_000):
        assert allowed.find(number.to_bytes(4, "big")) == "a"
    assert len(allowed._known) <= 1 << 16


def _cut(body: bytes, *places: int) -> list[bytes]:
    ends = [*places, len(body)]
    return [body[start:end] for start, end in zip([0, *places], ends, strict=True)]


def _flipped(message: bytes, index: int) -> bytes:
    changed = bytearray(message)
    changed[index] ^= 0x80 if index == 8 + 31 else 1
    return bytes(changed)


def _seal(key: bytes, plain: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), plain, b"")


def _open(key: bytes, sealed: bytes) -> bytes:
    return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, b"")
