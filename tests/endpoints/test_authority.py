"""`threepipe tls init`: the two ends accept each other and nobody else, and no file is replaced or left by an error."""

import os
import re
import ssl
import stat
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.commands import run_here
from tests.support.endpoints import at_work, here, opened, received
from threepipe.echo import echo_request
from threepipe.endpoints.authority import make_ends
from threepipe.endpoints.credentials import Credentials
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.net.connect import HostPort

FILES = {f"{end}/{file}" for end in ("listener", "client") for file in ("cert.pem", "key.pem", "ca.pem")}
PLACE = HostPort("vpn.example.org", 4242)


def made(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def credentials(folder: Path, end: str, authority: Path | None = None) -> Credentials:
    return Credentials(
        str(folder / end / "cert.pem"), str(folder / end / "key.pem"), str((authority or folder) / end / "ca.pem")
    )


def shake_hands(listener: Credentials, caller: Credentials, name: str) -> None:
    """Do the handshake of both sides in memory, as strictly as Python 3.13 does by itself. Raises `SSLError`."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    contexts = listener.context(server=True), caller.context(server=False)
    for context in contexts:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    server = contexts[0].wrap_bio(to_server, to_client, server_side=True)
    client = contexts[1].wrap_bio(to_client, to_server, server_hostname=name)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    assert client.version() == server.version() == "TLSv1.3"


def test_packets_pass_by_the_printed_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    place = here()
    done = run_here(monkeypatch, capfd, "tls", "init", place)
    assert done.status == 0, done.complaint
    assert made(tmp_path) == FILES
    at_listener, at_client = re.findall(r"^ +(tls\S+)", done.printed, re.MULTILINE)
    assert at_client.startswith(f"tls:{place},")
    listening = at_listener.replace("0.0.0.0", place.partition(":")[0])
    with ExitStack() as stack, at_work(opened(stack, listening)):
        client = opened(stack, at_client)
        client.send([echo_request("10.6.7.1", "10.6.7.2", 1, 1)])
        assert len(received(client, 1)) == 1


@pytest.mark.parametrize("host", ["vpn.example.org", "192.0.2.1", "2001:db8::1"])
def test_both_ends_accept_each_other_by_the_strict_rules(tmp_path: Path, host: str) -> None:
    at_listener, at_client = make_ends(HostPort(host, 4242), tmp_path)
    shake_hands(credentials(tmp_path, "listener"), credentials(tmp_path, "client"), host)
    assert at_listener.startswith("tls-listen:[::]:4242," if ":" in host else "tls-listen:0.0.0.0:4242,")
    assert at_client.startswith(f"tls:{HostPort(host, 4242)},")


@pytest.mark.parametrize(
    ("listener", "caller", "name"),
    [
        ("listener", "client", "other.example.org"),
        ("client", "listener", "client"),
        ("client", "client", "client"),
        ("listener", "listener", "vpn.example.org"),
    ],
)
def test_no_certificate_serves_for_the_other_end_or_another_name(
    tmp_path: Path, listener: str, caller: str, name: str
) -> None:
    make_ends(PLACE, tmp_path)
    with pytest.raises(ssl.SSLError):
        shake_hands(credentials(tmp_path, listener), credentials(tmp_path, caller), name)


def test_the_ends_of_two_pipes_refuse_each_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        make_ends(PLACE, folder)
    for trusting in (one, two):
        with pytest.raises(ssl.SSLError):
            shake_hands(credentials(one, "listener"), credentials(two, "client", trusting), PLACE.host)


def test_no_file_has_the_key_of_the_authority(tmp_path: Path) -> None:
    make_ends(PLACE, tmp_path)
    keys = [path for path in sorted(tmp_path.rglob("*.pem")) if "PRIVATE KEY" in path.read_text()]
    assert [path.relative_to(tmp_path).as_posix() for path in keys] == ["client/key.pem", "listener/key.pem"]
    for path in keys:
        with pytest.raises(ssl.SSLError):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path.with_name("ca.pem"), path)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the modes of files show no access rights here")
def test_files_and_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_ends(PLACE, tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in FILES} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o700}


@pytest.mark.parametrize("end", ["listener", "client"])
def test_an_existing_folder_is_kept_and_nothing_else_is_left(tmp_path: Path, end: str) -> None:
    (tmp_path / end).mkdir()
    with pytest.raises(EndpointError, match=f"{end} exists; it is never overwritten"):
        make_ends(PLACE, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [end]


def test_an_error_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(range(3))

    def full(file: int) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EndpointError, match=r"client.*: No space left on device"):
        make_ends(PLACE, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match=r"nosuch.listener: "):
        make_ends(PLACE, tmp_path / "nosuch")


@pytest.mark.parametrize("host", ["a b", "a,b", "*.example.org", "é.example.org", "a..b", "-a"])
def test_a_name_that_no_certificate_should_have_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidSetting, match="cannot be in a certificate"):
        make_ends(HostPort(host, 1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_a_port_is_refused_and_missing_cryptography_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_here(monkeypatch, capfd, "tls", "init", "host")
    assert (done.status, "is not HOST:PORT" in done.complaint) == (1, True)
    monkeypatch.delitem(sys.modules, "threepipe.endpoints.authority")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    done = run_here(monkeypatch, capfd, "tls", "init", "host:1")
    assert (done.status, done.complaint) == (
        1,
        "threepipe: certificates need cryptography; run: pip install cryptography\n",
    )
