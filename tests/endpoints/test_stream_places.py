"""Places where stream endpoints listen and connect, and the warning about plaintext."""

import socket
from contextlib import ExitStack

import pytest

import threepipe
from tests.support.endpoints import HAS_UNIX, SECONDS, Place, here, opened, packet, received, record


def test_connect_without_a_listener_raises_with_advice() -> None:
    with pytest.raises(threepipe.EndpointError, match="start the listener there first") as refused:
        threepipe.open_endpoint(f"tcp:{here()}")
    assert isinstance(refused.value, OSError)
    if HAS_UNIX:
        with pytest.raises(threepipe.EndpointError, match="start the listener there first"):
            threepipe.open_endpoint("unix:/nonexistent/socket")


def test_a_listener_at_a_taken_place_raises(stack: ExitStack, place: Place) -> None:
    opened(stack, place.listening)
    with pytest.raises(threepipe.EndpointError, match="another program uses it"):
        threepipe.open_endpoint(place.listening)


def test_a_listener_at_an_address_of_another_machine_raises() -> None:
    with pytest.raises(threepipe.EndpointError, match="choose an address of this machine"):
        threepipe.open_endpoint("tcp-listen:192.0.2.1:4242")


def test_an_unknown_host_name_raises_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(threepipe.EndpointError, match="check the spelling of the host name"):
        threepipe.open_endpoint("tcp:no-such-host.invalid:4242")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_plaintext_on_this_machine_logs_no_warning(
    host: str, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    opened(stack, f"tcp-listen:{host}:0")
    assert not caplog.records


@pytest.mark.parametrize(
    "address", ["tcp-listen:0.0.0.0:0", "tcp-listen:[::]:0", "udp-listen:0.0.0.0:0", "udp:192.0.2.1:9"]
)
def test_plaintext_beyond_this_machine_logs_one_warning(
    address: str, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        opened(stack, address)
    except threepipe.EndpointError:
        pass  # This machine has no network; the warning comes first.
    (line,) = caplog.records
    assert line.getMessage().startswith(address)
    assert "use tls and tls-listen, or exec with ssh" in line.getMessage()


def test_a_listener_without_a_host_is_at_loopback(stack: ExitStack) -> None:
    port = 0
    while not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    listener = opened(stack, f"tcp-listen:{port}")
    with socket.create_connection(("127.0.0.1", port), SECONDS) as program:
        program.sendall(record(packet(1)))
        assert received(listener, 1) == [packet(1)]
        assert program.getpeername()[0] == "127.0.0.1"
