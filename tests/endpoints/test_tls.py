"""TLS of endpoints: versions, names, authorities and files."""

import re
import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

import threepipe
from tests.support.endpoints import Place, at_work, opened, served


def test_a_connection_uses_tls_1_3(stack: ExitStack, secure: Place) -> None:
    with at_work(opened(stack, secure.listening)), secure.connect() as program:
        assert cast(ssl.SSLSocket, program).version() == "TLSv1.3"


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
