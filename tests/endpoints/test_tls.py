"""TLS of endpoints: versions, names, authorities and files."""

import re
import socket
import ssl
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import load_pem_x509_certificate

import threepipe
from tests.support.endpoints import SECONDS, Place, at_work, opened, served
from tests.support.revocation import issued, revoke
from threepipe.endpoints import openers


def test_a_connection_uses_tls_1_3(stack: ExitStack, secure: Place) -> None:
    with at_work(opened(stack, secure.listening)), secure.connect() as program:
        assert cast(ssl.SSLSocket, program).version() == "TLSv1.3"


def test_a_listener_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, secure: Place) -> None:
    monkeypatch.setattr(openers, "_HANDSHAKE_TIMEOUT", 0.01)
    port = int(re.split("[:,]", secure.calling)[2])
    with (
        socket.create_server((secure.host, port)),
        pytest.raises(threepipe.EndpointError, match=r"TLS with .*: the handshake took too long"),
    ):
        threepipe.open_endpoint(secure.calling)


def test_a_caller_rejects_a_certificate_for_another_name(stack: ExitStack, secure: Place) -> None:
    with at_work(opened(stack, secure.listening)):
        with pytest.raises(threepipe.EndpointError, match=r"certificate is not valid for 'vpn\.example\.org'"):
            threepipe.open_endpoint(secure.calling + ",name=vpn.example.org")
        served(secure)


def test_a_caller_rejects_a_certificate_of_another_authority(stack: ExitStack, secure: Place, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    calling = secure.calling.partition(",")[0] + secure.files("client", "other")
    with at_work(opened(stack, secure.listening)):
        with pytest.raises(threepipe.EndpointError, match="CERTIFICATE_VERIFY_FAILED"):
            threepipe.open_endpoint(calling)
        served(secure)


def fingerprint(folder: Path, side: str) -> str:
    """Return it as OpenSSL prints it."""
    digest = load_pem_x509_certificate((folder / f"{side}.pem").read_bytes()).fingerprint(hashes.SHA256())
    return digest.hex(":").upper()


OTHER = ":".join(["AB"] * 32)


def refused(stack: ExitStack, secure: Place, options: str) -> None:
    """Call a listener with these options, which must end the connection, not in an orderly way, and go on listening."""
    listening = opened(stack, secure.listening + options)
    with at_work(listening):
        caller = opened(stack, secure.calling)
        with pytest.raises(threepipe.EndpointError, match="the other end does not accept this one"):
            caller.receive(SECONDS)
    assert listening.statistics.received_packets == 0


def test_a_listener_takes_a_client_of_one_of_its_names_and_fingerprints(
    stack: ExitStack, secure: Place, tmp_path: Path
) -> None:
    issued(secure, "client", "Laptop.example.org", "10.1.2.3", "fd00::0:1")
    print_ = fingerprint(tmp_path, "client")
    for options in (
        ",name=other.example.org,name=laptop.EXAMPLE.org",
        ",name=10.1.2.3",
        ",name=FD00::1",
        f",fingerprint={print_}",
        f",fingerprint={OTHER},fingerprint={print_.replace(':', '').lower()}",
        f",name=laptop.example.org,fingerprint={print_}",
    ):
        listening = opened(stack, secure.listening + options)
        with at_work(listening):
            served(secure)
        assert listening.statistics.received_packets == 1


@pytest.mark.parametrize(
    "options",
    [
        ",name=laptop.example.com",
        ",name=example.org",
        ",name=*.example.org",
        ",name=10.1.2.4",
        f",fingerprint={OTHER}",
        f",name=laptop.example.org,fingerprint={OTHER}",
    ],
)
def test_a_listener_refuses_a_client_of_another_name_or_fingerprint(
    stack: ExitStack, secure: Place, caplog: pytest.LogCaptureFixture, options: str
) -> None:
    issued(secure, "client", "laptop.example.org", "10.1.2.3")
    refused(stack, secure, options)
    assert "failed the TLS handshake (its certificate " in caplog.text


def test_a_wildcard_in_a_client_certificate_stands_for_itself_alone(
    stack: ExitStack, secure: Place, caplog: pytest.LogCaptureFixture
) -> None:
    issued(secure, "client", "*.example.org")
    refused(stack, secure, ",name=laptop.example.org")
    assert "its certificate is for *.example.org (fingerprint " in caplog.text


def test_a_common_name_is_not_a_name(stack: ExitStack, secure: Place, caplog: pytest.LogCaptureFixture) -> None:
    """RFC 9525, section 2: names are those of the subjectAltName."""
    issued(secure, "client", "10.1.2.3", common_name="laptop.example.org")
    refused(stack, secure, ",name=laptop.example.org")
    assert "its certificate is for 10.1.2.3 (fingerprint " in caplog.text


def test_a_caller_takes_a_listener_of_its_fingerprint_alone(stack: ExitStack, secure: Place, tmp_path: Path) -> None:
    calling = secure.calling
    with at_work(opened(stack, secure.listening)):
        with pytest.raises(
            threepipe.EndpointError, match=r"TLS with .*: its certificate has the fingerprint [0-9a-f]{64}, "
        ):
            threepipe.open_endpoint(f"{calling},fingerprint={OTHER}")
        with pytest.raises(threepipe.EndpointError, match="certificate is not valid for 'vpn"):
            threepipe.open_endpoint(f"{calling},name=vpn.example.org,fingerprint={fingerprint(tmp_path, 'server')}")
        opened(stack, f"{calling},fingerprint={OTHER},fingerprint={fingerprint(tmp_path, 'server')}").close()
        served(secure)


@pytest.mark.parametrize("text", ["", "AB", "AB:" * 19 + "AB", "G" * 64, "sha256:" + "A" * 64])
def test_a_fingerprint_that_is_not_sha_256_raises(secure: Place, text: str) -> None:
    for address in (secure.calling, secure.listening):
        with pytest.raises(threepipe.InvalidSetting, match="not a SHA-256 fingerprint; print it with: openssl"):
            threepipe.open_endpoint(f"{address},fingerprint={text}")


def test_a_listener_refuses_a_revoked_client(
    stack: ExitStack, secure: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    revoke(secure, "crl.pem")
    with at_work(opened(stack, f"{secure.listening},crl={tmp_path / 'crl.pem'}")):
        served(secure)
    revoke(secure, "crl.pem", "client")
    with at_work(opened(stack, f"{secure.listening},crl={tmp_path / 'crl.pem'}")):
        caller = opened(stack, secure.calling)
        with pytest.raises(threepipe.EndpointError, match="broke off"):
            caller.receive(SECONDS)
    assert "failed the TLS handshake (certificate revoked)" in caplog.text


def test_a_caller_refuses_a_revoked_listener(stack: ExitStack, secure: Place, tmp_path: Path) -> None:
    calling = f"{secure.calling},crl={tmp_path / 'crl.pem'}"
    revoke(secure, "crl.pem", "server")
    with at_work(opened(stack, secure.listening)):
        with pytest.raises(threepipe.EndpointError, match="certificate revoked"):
            threepipe.open_endpoint(calling)
        revoke(secure, "crl.pem", "client")
        opened(stack, calling).close()


def test_a_list_of_another_authority_or_of_the_past_refuses_everyone(
    stack: ExitStack, secure: Place, tmp_path: Path
) -> None:
    calling = f"{secure.calling},crl={tmp_path / 'crl.pem'}"
    with at_work(opened(stack, secure.listening)):
        revoke(secure, "crl.pem", authority=trustme.CA())
        with pytest.raises(threepipe.EndpointError, match="unable to get certificate CRL"):
            threepipe.open_endpoint(calling)
        revoke(secure, "crl.pem", age=timedelta(days=9))
        with pytest.raises(threepipe.EndpointError, match="CRL has expired"):
            threepipe.open_endpoint(calling)


@pytest.mark.parametrize(
    ("content", "advice"),
    [("", "give revocation lists in PEM"), ("nonsense", "give revocation lists in PEM"), (None, "cannot be read")],
)
def test_a_file_without_a_list_raises(secure: Place, tmp_path: Path, content: str | None, advice: str) -> None:
    path = tmp_path / "crl.pem"
    if content is not None:
        path.write_text(content)
    for address in (secure.calling, secure.listening):
        with pytest.raises(threepipe.EndpointError, match=f"crl.pem.*{advice}"):
            threepipe.open_endpoint(f"{address},crl={path}")


@pytest.mark.parametrize("with_a_list", [False, True])
def test_a_list_file_with_a_certificate_raises_as_it_would_add_an_authority(
    secure: Place, tmp_path: Path, with_a_list: bool
) -> None:
    path = tmp_path / "crl.pem"
    revoke(secure, "crl.pem")
    listed = path.read_bytes() if with_a_list else b""
    path.write_bytes(listed + trustme.CA().cert_pem.bytes())
    with pytest.raises(threepipe.EndpointError, match=r"must hold revocation lists .* and nothing else"):
        threepipe.open_endpoint(f"{secure.listening},crl={path}")


def test_a_list_that_is_replaced_counts_from_the_next_client_on(
    stack: ExitStack, secure: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    revoke(secure, "crl.pem")
    with at_work(opened(stack, f"{secure.listening},crl={tmp_path / 'crl.pem'}")):
        served(secure)
        (tmp_path / "crl.pem").write_text("nonsense")
        served(secure)
        assert "new files cannot be used, and those before them stay in force: " in caplog.text
        revoke(secure, "new.pem", "client")
        (tmp_path / "new.pem").replace(tmp_path / "crl.pem")
        with pytest.raises(threepipe.EndpointError, match="broke off"):
            opened(stack, secure.calling).receive(SECONDS)


@pytest.mark.parametrize("left_out", ["cert", "key", "ca"])
def test_tls_without_one_of_its_files_raises(secure: Place, left_out: str) -> None:
    for address in (secure.listening, secure.calling):
        parts = [part for part in address.split(",") if not part.startswith(f"{left_out}=")]
        with pytest.raises(threepipe.InvalidSetting, match=r"tls.* needs cert=FILE, key=FILE, ca=FILE"):
            threepipe.open_endpoint(",".join(parts))


def test_mismatched_or_missing_files_raise_with_their_names(secure: Place, tmp_path: Path) -> None:
    key = tmp_path / "server.key"
    key.write_text((tmp_path / "client.key").read_text())
    with pytest.raises(
        threepipe.EndpointError, match=f"{re.escape(str(key))}.*KEY_VALUES_MISMATCH.*PEM files of a matching pair"
    ):
        threepipe.open_endpoint(secure.listening)
    key.write_text("nonsense")
    with pytest.raises(threepipe.EndpointError, match="PEM files of a matching pair"):
        threepipe.open_endpoint(secure.listening)
    key.unlink()
    with pytest.raises(threepipe.EndpointError, match="cannot be read: No such file"):
        threepipe.open_endpoint(secure.listening)


def test_an_encrypted_key_raises_without_a_prompt(secure: Place, tmp_path: Path) -> None:
    key = tmp_path / "server.key"
    secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.TraditionalOpenSSL
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(plain.private_bytes(serialization.Encoding.PEM, form, secret))
    with pytest.raises(threepipe.InvalidSetting, match="the key is encrypted"):
        threepipe.open_endpoint(secure.listening)
