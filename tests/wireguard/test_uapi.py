"""The configuration protocol as text, its socket, and threepipe wg show."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import run
from tests.support.descriptors import no_free_descriptor
from tests.support.kernel import Network, links
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.net import connect
from threepipe.wireguard import Change, PeerChange, PeerStatus, Status, key_to_text, parse_networks
from threepipe.wireguard.uapi import UapiError, emit_status, parse_change, parse_status

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
PEER = f"public_key={OTHER.hex()}"

unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")


def test_a_change_with_every_key_parses() -> None:
    text = f"""private_key={KEY.hex()}
listen_port=51820
fwmark=51820
replace_peers=true
public_key={KEY.hex()}
preshared_key={OTHER.hex()}
endpoint=[fe80::1%2]:51820
persistent_keepalive_interval=25
protocol_version=1
replace_allowed_ips=true
allowed_ip=-10.1.0.0/16
allowed_ip=10.0.0.0/8
allowed_ip=fd00::/8
public_key={OTHER.hex()}
remove=true
public_key={OTHER.hex()}
update_only=true
endpoint=192.0.2.1:1"""
    first = PeerChange(
        KEY,
        preshared_key=OTHER,
        endpoint=("fe80::1%2", 51820),
        persistent_keepalive=25,
        replace_allowed_ips=True,
        allowed_ips=parse_networks(["10.0.0.0/8", "fd00::/8"]),
        removed_ips=parse_networks(["10.1.0.0/16"]),
    )
    others = PeerChange(OTHER, remove=True), PeerChange(OTHER, update_only=True, endpoint=("192.0.2.1", 1))
    assert parse_change(text.splitlines()) == Change(KEY, 51820, 51820, replace_peers=True, peers=(first, *others))
    assert parse_change([]) == Change()


def test_an_emitted_status_parses_to_itself() -> None:
    status = Status(
        KEY,
        bytes(32),
        51820,
        7,
        (
            PeerStatus(OTHER, KEY, ("::1", 9), parse_networks(["10.0.0.0/8"]), 25, 1_700_000_000.5, 10, 20),
            PeerStatus(KEY),
        ),
    )
    assert parse_status(emit_status(status) + "errno=0\n\n") == status
    assert parse_status("listen_port=0\nnew_key=1\nerrno=0\n\n") == Status()
    assert parse_status("listen_port=0\nnew_key=1\x85fwmark=1\u2028fwmark=2\nerrno=0\n\n") == Status()
    for number in (19, -19):
        with pytest.raises(UapiError, match=r"errno 19 \(No such device\)") as caught:
            parse_status(f"errno={number}\n\n")
        assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize(
    "text",
    [
        "rx_bytes=abc",
        f"{PEER}\nrx_bytes=-1",
        f"{PEER}\nlisten_port=5",
        f"{PEER}\npersistent_keepalive_interval=off",
        "allowed_ip=10.0.0.0/8",
        "last_handshake_time_nsec=1",
        "listen_port=65536",
        "public_key=00",
        "",
        "listen_port=5",
        "errno=0\nlisten_port=5",
        "errno=",
        "errno=-",
        "errno=--19",
        "errno=\N{SUPERSCRIPT TWO}",
    ],
)
def test_an_invalid_status_raises(text: str) -> None:
    with pytest.raises(UapiError) as caught:
        parse_status(f"{text}\n")
    assert caught.value.errno in (errno.EPROTO, errno.EINVAL)


ANSWERED = ["last_handshake_time_sec", "last_handshake_time_nsec", "rx_bytes", "listen_port", "errno"]


@given(st.lists(st.builds("{}={}".format, st.sampled_from(ANSWERED), st.text(max_size=9) | st.integers())))
def test_any_answer_parses_or_raises_uapi_error(lines: list[str]) -> None:
    for text in ("\n".join(lines), "\n".join([PEER, *lines])):
        try:
            parse_status(text)
        except UapiError as error:
            assert error.errno >= 0  # noqa: PT017 -- no error is right, too.


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        (["private_key"], errno.EPROTO),
        (["private_key=00"], errno.EINVAL),
        ([f"private_key={'0' * 63}g"], errno.EINVAL),
        (["listen_port=65536"], errno.EINVAL),
        (["listen_port=-1"], errno.EINVAL),
        (["fwmark=4294967296"], errno.EINVAL),
        (["replace_peers=false"], errno.EINVAL),
        (["endpoint=1.2.3.4:5"], errno.EINVAL),
        ([PEER, "listen_port=5"], errno.EINVAL),
        ([PEER, "endpoint=1.2.3.4"], errno.EINVAL),
        ([PEER, "endpoint=::1:5"], errno.EINVAL),
        ([PEER, "endpoint=[1.2.3.4]:5"], errno.EINVAL),
        ([PEER, "endpoint=name:5"], errno.EINVAL),
        ([PEER, "allowed_ip=10.0.0.0"], errno.EINVAL),
        ([PEER, "allowed_ip=10.0.0.0/33"], errno.EINVAL),
        ([PEER, "allowed_ip=10.0.0.0/255.0.0.0"], errno.EINVAL),
        ([PEER, "allowed_ip=+10.0.0.0/8"], errno.EINVAL),
        ([PEER, "allowed_ip=--10.0.0.0/8"], errno.EINVAL),
        ([PEER, "allowed_ip=fe80::1%1/64"], errno.EINVAL),
        ([PEER, "persistent_keepalive_interval=65536"], errno.EINVAL),
        ([PEER, "protocol_version=2"], errno.EINVAL),
        ([PEER, "remove=yes"], errno.EINVAL),
    ],
)
def test_an_invalid_change_raises_with_its_errno(lines: list[str], number: int) -> None:
    with pytest.raises(UapiError) as caught:
        parse_change(lines)
    assert caught.value.errno == number


KEYS = ["private_key", "listen_port", "public_key", "endpoint", "allowed_ip", "remove", "protocol_version", "x", ""]


@given(
    st.lists(st.one_of(st.text(max_size=40), st.builds("{}={}".format, st.sampled_from(KEYS), st.text(max_size=70))))
)
def test_any_request_parses_or_raises_uapi_error(lines: list[str]) -> None:
    try:
        parse_change(lines)
    except UapiError as error:
        assert error.errno in (errno.EINVAL, errno.EPROTO)  # noqa: PT017 -- no error is right, too.


class Fake:
    """A device that records its changes."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.peers: tuple[PeerStatus, ...] = ()

    def configure(self, change: Change) -> None:
        if change.listen_port == 1:
            raise EndpointError(errno.EADDRINUSE, "taken")
        if change.listen_port == 2:
            raise OSError(errno.EBADF, "closed")
        self.changes.append(change)

    def status(self) -> Status:
        return Status(KEY, listen_port=7, peers=self.peers)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Fake]:
    from threepipe.wireguard.uapi_server import UapiServer
    from threepipe.wireguard.uapi_socket import listen

    device = Fake()
    with UapiServer(listen("fake", tmp_path), device, lambda: None):
        yield device


@unix
def test_get_and_set_requests_are_answered(device: Fake, tmp_path: Path) -> None:
    from threepipe.wireguard.uapi_socket import ask, names

    assert names(tmp_path) == ["fake"]
    assert ask("fake", "get=1\n\n", tmp_path) == f"private_key={KEY.hex()}\nlisten_port=7\nerrno=0\n\n"
    assert ask("fake", "set=1\nlisten_port=5\n\n", tmp_path) == "errno=0\n\n"
    assert device.changes == [Change(listen_port=5)]
    assert ask("fake", "set=1\nlisten_port=1\n\n", tmp_path) == f"errno=-{errno.EADDRINUSE}\n\n"
    assert ask("fake", "set=1\nlisten_port=2\n\n", tmp_path) == f"errno=-{errno.EBADF}\n\n"
    assert ask("fake", "set=1\nlisten_port\n\n", tmp_path) == f"errno=-{errno.EPROTO}\n\n"
    assert ask("fake", "please\n\n", tmp_path) == f"errno=-{errno.EINVAL}\n\n"


@unix
def test_a_folder_without_devices_is_empty_and_one_that_cannot_be_read_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threepipe.wireguard.uapi_socket import make_folder, names

    folder, loop, file = tmp_path / "new" / "wireguard", tmp_path / "loop", tmp_path / "file"
    assert names(folder) == []
    make_folder(folder)
    make_folder(folder)
    (folder / "gone.sock").symlink_to("nowhere")
    (folder / "file.sock").touch()
    assert names(folder) == []
    loop.symlink_to(loop)
    with pytest.raises(EndpointError, match=r"loop: ") as raised:
        names(loop)
    assert raised.value.errno == errno.ELOOP
    file.touch()
    assert names(file) == []
    with pytest.raises(EndpointError, match=r"file: File exists$"):
        make_folder(file)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(EndpointError, match=r"wireguard: .*; run this as root, or have root give .* to this user"):
        make_folder(folder)


@unix
@pytest.mark.usefixtures("device")
def test_silent_clients_do_not_keep_out_others(tmp_path: Path) -> None:
    from threepipe.wireguard.uapi_socket import ask

    silent = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    try:
        for client in silent:
            client.connect(str(tmp_path / "fake.sock"))
        silent[-1].send(b"get=")
        assert ask("fake", "get=1\n\n", tmp_path).endswith("errno=0\n\n")
        silent[-1].settimeout(10)
        silent[-1].send(b"1\n\nget=1\n\n")
        answer = b""
        while answer.count(b"errno=0\n\n") < 2:
            answer += silent[-1].recv(1000)
    finally:
        for client in silent:
            client.close()


@unix
@pytest.mark.usefixtures("device")
def test_a_client_is_refused_without_a_free_descriptor_and_served_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from threepipe.wireguard.uapi_socket import ask

    with socket.socket(socket.AF_UNIX) as client, no_free_descriptor():
        client.settimeout(10)
        client.connect(str(tmp_path / "fake.sock"))
        assert client.recv(1) == b""
    assert ask("fake", "get=1\n\n", tmp_path).endswith("errno=0\n\n")
    assert caplog.text.count("the limit of open files is reached") == 1


MANAGED_HERE = 'mount -t tmpfs none /run; mkdir /run/wireguard; mount --bind "$0" /run/wireguard; exec "$@"'


@unix
@pytest.mark.kernel
def test_show_prints_the_status_without_secrets(device: Fake, tmp_path: Path) -> None:
    from threepipe.wireguard.uapi_socket import listen

    secret, public = bytes(range(2, 34)), bytes(range(3, 35))
    device.peers = (
        PeerStatus(OTHER, secret, ("fe80::1%1", 9), parse_networks(["10.0.0.0/8", "fd00::/8"]), 25, 1.5, 10, 20),
        PeerStatus(public),
    )
    listen("left", tmp_path).close()  # A killed process leaves such a file.
    inside = ("unshare", "--mount", "sh", "-ec", MANAGED_HERE, str(tmp_path))
    shown = run("wg", "show", "fake", prefix=inside)
    assert shown.status == 0, shown.complaint
    lines = [line.split() for line in shown.printed.splitlines()]
    for line in (["interface", "fake"], ["endpoint", "[fe80::1%lo]:9"], ["preshared", "key", "(hidden)"]):
        assert lines.count(line) == 1
    with socket.socket(socket.AF_UNIX) as rude:
        rude.bind(str(tmp_path / "rude.sock"))
        rude.listen()
        answering = threading.Thread(target=_answer_once, args=(rude, b"listen_port=5\n"))
        answering.start()
        told = run("wg", "show", "--json", prefix=inside)
        answering.join()
    assert (told.status, told.complaint) == (1, "threepipe: rude: the device's answer is incomplete\n")
    (status,) = json.loads(told.printed).values()
    assert [peer["peer"] for peer in status["peers"]] == [key_to_text(OTHER), key_to_text(public)]
    first, second = (
        [peer[key] for key in ("endpoint", "preshared_key", "latest_handshake")] for peer in status["peers"]
    )
    assert first == ["[fe80::1%lo]:9", True, 1.5]
    assert second == [None, False, None]
    for key in (KEY, secret):
        assert key.hex() not in shown.printed + told.printed
        assert key_to_text(key) not in shown.printed + told.printed


def _answer_once(listening: socket.socket, answer: bytes) -> None:
    client, _ = listening.accept()
    with client:
        client.recv(100)
        client.sendall(answer)


@unix
def test_a_slow_client_does_not_block_others_and_gets_its_whole_answer(device: Fake, tmp_path: Path) -> None:
    from threepipe.wireguard.uapi_socket import ask

    device.peers = tuple(PeerStatus(number.to_bytes(32)) for number in range(5000))
    whole = emit_status(device.status()) + "errno=0\n\n"
    with socket.socket(socket.AF_UNIX) as slow:
        slow.settimeout(10)
        slow.connect(str(tmp_path / "fake.sock"))
        slow.sendall(b"get=1\n\n" * 3)
        answer = slow.recv(1000)  # So the answer has begun.
        started = time.monotonic()
        assert ask("fake", "set=1\nlisten_port=9\n\n", tmp_path) == "errno=0\n\n"
        assert time.monotonic() - started < 5
        while len(answer) < 3 * len(whole):
            answer += slow.recv(1 << 16)
    assert answer.decode() == 3 * whole


@unix
@pytest.mark.usefixtures("device")
def test_a_request_in_pieces_is_answered_and_an_endless_one_is_not(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(tmp_path / "fake.sock"))
        for byte in b"set=1\nlisten_port=9\n\n":
            client.sendall(bytes([byte]))
        assert client.recv(1000) == b"errno=0\n\n"
        with pytest.raises(ConnectionError):
            client.sendall(bytes(32 << 20))


@unix
def test_a_name_is_taken_while_its_device_runs(tmp_path: Path) -> None:
    from threepipe.wireguard.uapi_server import UapiServer
    from threepipe.wireguard.uapi_socket import ask, listen

    with UapiServer(listen("fake", tmp_path), Fake(), lambda: None):
        assert os.stat(tmp_path / "fake.sock").st_mode & 0o777 == 0o700
        with pytest.raises(EndpointError, match="a device of that name is running"):
            listen("fake", tmp_path)
    assert list(tmp_path.iterdir()) == []
    listen("fake", tmp_path).close()  # A killed process leaves such a file.
    with UapiServer(listen("fake", tmp_path), Fake(), lambda: None):
        assert ask("fake", "get=1\n\n", tmp_path).endswith("errno=0\n\n")
    with pytest.raises(EndpointError, match="is fake running"):
        ask("fake", "get=1\n\n", tmp_path)


@unix
def test_removal_of_the_socket_file_ends_the_device(tmp_path: Path) -> None:
    from threepipe.wireguard.uapi_server import UapiServer
    from threepipe.wireguard.uapi_socket import listen

    gone = threading.Event()
    with UapiServer(listen("fake", tmp_path), Fake(), gone.set):
        (tmp_path / "fake.sock").unlink()
        assert gone.wait(10)


@unix
def test_take_down_returns_when_the_device_has_ended(tmp_path: Path) -> None:
    from threepipe.wireguard.uapi_server import UapiServer
    from threepipe.wireguard.uapi_socket import listen, take_down

    gone = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        with ExitStack() as waiting:
            with UapiServer(listen("fake", tmp_path), Fake(), gone.set, waiting):
                ended = executor.submit(take_down, "fake", 20, tmp_path)
                assert gone.wait(10)
            assert not ended.done()
        assert ended.result(20)
    with ExitStack() as waiting, UapiServer(listen("fake", tmp_path), Fake(), gone.set, waiting):
        assert not take_down("fake", 0.01, tmp_path)  # The device takes longer than the timeout.
        assert list(tmp_path.iterdir()) == []
    listen("fake", tmp_path).close()  # A killed process leaves such a file.
    assert take_down("fake", 20, tmp_path)
    with pytest.raises(EndpointError, match=r"fake\.sock"):
        take_down("fake", 20, tmp_path)


@unix
def test_take_down_leaves_alone_a_device_that_starts_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threepipe.wireguard import uapi_socket

    def reach(_: str) -> socket.socket:
        first.close()
        with pytest.raises(EndpointError, match=r"fake\.sock\.lock"):
            uapi_socket.listen("fake", tmp_path)
        raise ConnectionRefusedError

    first = uapi_socket.listen("fake", tmp_path)
    monkeypatch.setattr(uapi_socket, "reach_unix", reach)
    monkeypatch.setattr(connect, "_LOCK_TIMEOUT", 0.0)
    assert uapi_socket.take_down("fake", 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


@unix
def test_a_device_that_does_not_start_keeps_the_file_of_another(tmp_path: Path) -> None:
    from threepipe.wireguard.uapi_socket import listen, stop_listening

    first = listen("fake", tmp_path)
    (tmp_path / "fake.sock").unlink()
    with listen("fake", tmp_path) as second:
        stop_listening(first)
        assert (tmp_path / "fake.sock").exists()
        stop_listening(second)
        stop_listening(second)
    assert list(tmp_path.iterdir()) == []


@unix
def test_an_inherited_socket_must_be_a_named_unix_socket(tmp_path: Path) -> None:
    from threepipe.wireguard.uapi_server import UapiServer
    from threepipe.wireguard.uapi_socket import ask, inherit, listen

    with socket.socket(socket.AF_UNIX) as nameless, socket.socket(socket.AF_INET) as internet, open(os.devnull) as null:
        for number in ("x", "-1", "99999", nameless.fileno(), internet.fileno(), null.fileno()):
            with pytest.raises(InvalidSetting, match="descriptor"):
                inherit(str(number))
        os.fstat(nameless.fileno())  # A rejected descriptor stays open.
    with listen("fake", tmp_path) as gone:
        gone.remove()
        with pytest.raises(InvalidSetting, match="not a Unix socket bound to a file"):
            inherit(str(gone.fileno()))
        os.fstat(gone.fileno())
    with UapiServer(inherit(str(listen("fake", tmp_path).detach())), Fake(), lambda: None):
        assert ask("fake", "get=1\n\n", tmp_path).endswith("errno=0\n\n")


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("variable", "said"),
    [("WG_UAPI_FD", "is not a descriptor of an open socket"), ("WG_TUN_FD", "is not a descriptor")],
)
def test_a_daemon_that_cannot_start_prints_the_reason(
    network: Network, tmp_path: Path, variable: str, said: str
) -> None:
    inside = ["unshare", "--mount", "sh", "-ec", MANAGED_HERE, str(tmp_path)]
    program = [
        sys.executable,
        "-c",
        "import sys; from threepipe.wireguard.quick.daemon import main; sys.exit(main())",
        "wg-said",
    ]
    done = subprocess.run(
        network.command(*inside, *program), env=os.environ | {variable: "x"}, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert links(network) == set()
