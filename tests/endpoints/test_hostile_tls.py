"""Hostile TLS clients: a listener logs each fault and serves the next honest caller."""

import os
import random
import socket
import ssl
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from tests.support.endpoints import (
    HTTP,
    SECONDS,
    Place,
    at_work,
    gone,
    issue,
    junk,
    opened,
    packet,
    record,
    served,
)

if sys.platform == "win32":
    pytest.skip("Windows has neither all these kinds nor limits of descriptors", allow_module_level=True)


LOGGER = "threepipe.endpoints"


def refused(program: ssl.SSLSocket) -> bool:
    """Return True if reading fails: in TLS 1.3, a client learns only there that its certificate was rejected."""
    with program, pytest.raises((ssl.SSLError, ConnectionError)):
        program.recv(1)
    return True


def test_a_tls_client_without_a_certificate_is_rejected(
    stack: ExitStack, secure: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work(opened(stack, secure.listening)):
        assert refused(secure.secure(secure.connect_bare(), ""))
        served(secure)
    assert "failed the TLS handshake (PEER_DID_NOT_RETURN_A_CERTIFICATE)" in caplog.text


def test_a_tls_client_of_another_authority_is_rejected(
    stack: ExitStack, secure: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    issue(trustme.CA(), tmp_path, "stranger", "client")
    with at_work(opened(stack, secure.listening)):
        assert refused(secure.secure(secure.connect_bare(), "stranger"))
        served(secure)
    assert "failed the TLS handshake (unable to get local issuer certificate)" in caplog.text


def test_a_client_with_an_older_tls_is_rejected(stack: ExitStack, secure: Place, tmp_path: Path) -> None:
    with at_work(opened(stack, secure.listening)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(tmp_path / "ca.pem")
        context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with secure.connect_bare() as bare, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(bare, server_hostname=bare.getpeername()[0])
        served(secure)


@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", junk(0), HTTP])
def test_a_client_that_stalls_in_the_handshake_does_not_keep_out_others(
    stack: ExitStack, secure: Place, sent: bytes
) -> None:
    with at_work(opened(stack, secure.listening)), secure.connect_bare() as stalled:
        stalled.sendall(sent)
        served(secure)


def test_a_client_without_tls_is_rejected(stack: ExitStack, secure: Place, caplog: pytest.LogCaptureFixture) -> None:
    with at_work(opened(stack, secure.listening)):
        with secure.connect_bare() as program:
            program.sendall(record(packet(1)))
            assert gone(program)
        served(secure)
    assert "failed the TLS handshake" in caplog.text


def test_a_client_that_sends_random_bytes_after_the_handshake_is_disconnected(
    stack: ExitStack, secure: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with at_work(opened(stack, secure.listening)):
        with secure.connect() as program:
            assert isinstance(program, ssl.SSLSocket)
            with socket.socket(fileno=os.dup(program.fileno())) as beneath:
                beneath.settimeout(SECONDS)
                beneath.sendall(random.Random(1).randbytes(100))
                assert gone(beneath)
        served(secure)
    assert "broke off" in caplog.text
