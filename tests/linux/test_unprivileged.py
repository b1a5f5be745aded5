"""Rights of an ordinary user on Linux with a persistent adapter that root made."""

import errno
import re
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

import threepipe
from tests.support.hosts import answers
from tests.support.kernel import STRANGER, Network, call_elsewhere, links, needs_root, tun_node
from threepipe import Adapter
from threepipe.wireguard.quick.daemon import serve
from threepipe.wireguard.uapi_socket import FOLDER, make_folder, names, status_of, take_down

pytestmark = [pytest.mark.kernel, needs_root]

GROUP = 61235
OTHER = 61236


def as_user(network: Network, function: Callable[..., Any], *arguments: Any, groups: tuple[int, ...] = ()) -> Any:
    """Call `function` as an ordinary user who may open /dev/net/tun, as on most machines."""
    return call_elsewhere(network, function, *arguments, user=STRANGER, groups=groups, mounts=tun_node())


def manage() -> list[str]:
    """Try to list, show and take down WireGuard devices, and to start one; return the errors."""
    said = []
    for attempt in (names, lambda: status_of("wg0"), lambda: take_down("wg0", 1), make_folder):
        try:
            attempt()
        except threepipe.EndpointError as error:
            said.append(str(error.strerror))
    return said


@pytest.mark.parametrize("mode", ["700", "711", "744", "755"])
def test_wireguard_devices_of_root_are_not_reported_missing(network: Network, mode: str) -> None:
    bound = "import socket; socket.socket(socket.AF_UNIX).bind('/run/wireguard/wg0.sock')"
    folder = f"mount -t tmpfs -o mode=755 none /run; mkdir -m {mode} /run/wireguard"
    mounts = f'{folder}; {sys.executable} -c "{bound}"; chmod 700 /run/wireguard/wg0.sock'
    said = call_elsewhere(network, manage, user=STRANGER, mounts=mounts)
    assert len(said) == (3 if mode == "755" else 4)  # The names are for everybody then.
    for text in said:
        assert re.match(r"/var/run/wireguard.*: Permission denied; run this as root, or ", text), text


def serve_wireguard() -> tuple[str, int, bool]:
    """Run `threepipe-wg tp0` until it is ready; return its adapter's name, its port, and whether the link is up."""
    found = []

    def ready() -> None:
        (info,) = threepipe.adapters()
        found.append((info.name, status_of("tp0").listen_port, info.link_up))
        (FOLDER / "tp0.sock").unlink()  # This ends it.

    serve("tp0", ready)
    return found[0]


FOLDER_FOR_ALL = "mount -t tmpfs -o mode=755 none /run; mkdir -m 1777 /run/wireguard"


def test_threepipe_wg_takes_a_persistent_adapter_and_leaves_it(network: Network) -> None:
    make(network, owner=STRANGER, mtu=1380)
    for user in (STRANGER, 0):
        served = call_elsewhere(network, serve_wireguard, user=user, mounts=f"{tun_node()}; {FOLDER_FOR_ALL}")
        assert served[::2] == ("tp0", True)
        assert served[1]
        (info,) = threepipe.adapters(network.path)
        assert (info.name, info.owner, info.persistent, info.mtu, info.link_up) == ("tp0", STRANGER, True, 1380, False)


def test_threepipe_wg_says_why_it_cannot_take_an_interface(network: Network) -> None:
    make(network, owner=OTHER)
    mounts = f"{tun_node()}; {FOLDER_FOR_ALL}"
    with pytest.raises(threepipe.PermissionDenied, match="tp0 belongs to another user"):
        call_elsewhere(network, serve_wireguard, user=STRANGER, mounts=mounts)
    with Adapter.open("tp0", netns=network.path), pytest.raises(threepipe.AdapterBusy, match="tp0 is in use"):
        call_elsewhere(network, serve_wireguard, mounts=mounts)
    Adapter.open("tp0", netns=network.path).delete()
    network.run("ip", "link", "add", "tp0", "type", "veth")
    with pytest.raises(threepipe.NameTaken, match="tp0"):
        call_elsewhere(network, serve_wireguard, mounts=mounts)


def make(network: Network, **settings: Any) -> None:
    addresses = ["10.6.7.1/24", "fd00::1/64"]
    Adapter.create("tp0", netns=network.path, addresses=addresses, persistent=True, **settings).close()


def use() -> list[bytes]:
    """Open the adapter and pass a packet each way in both families; return the payloads received."""
    echoed: list[bytes] = []
    with Adapter.open("tp0") as adapter:
        assert not adapter.link_up
        with adapter.start_session() as session:
            assert adapter.link_up
            for family, own, other in (
                (socket.AF_INET, "10.6.7.1", "10.6.7.2"),
                (socket.AF_INET6, "fd00::1", "fd00::2"),
            ):
                with socket.socket(family, socket.SOCK_DGRAM) as sock:
                    sock.settimeout(10)
                    sock.bind((own, 0))
                    sock.sendto(b"to " + other.encode(), (other, 9))
                    while not (answer := answers(session.receive(timeout=10))):
                        pass
                    assert session.send(answer) == 1
                    echoed.append(sock.recv(100))
        assert not adapter.link_up
    return echoed


def open_and_close() -> None:
    Adapter.open("tp0").close()


def delete() -> None:
    Adapter.open("tp0").delete()


def start_session() -> None:
    with Adapter.open("tp0") as adapter:
        adapter.start_session()


def set_mtu() -> None:
    with Adapter.open("tp0") as adapter:
        adapter.mtu = 1400


def add_address() -> None:
    with Adapter.open("tp0") as adapter:
        adapter.add_address("10.6.9.1/24")


@pytest.mark.parametrize(("settings", "groups"), [({"owner": STRANGER}, ()), ({"group": GROUP}, (OTHER, GROUP))])
def test_owner_and_group_members_can_open_and_use_it(
    network: Network, settings: dict[str, int], groups: tuple[int, ...]
) -> None:
    make(network, **settings)
    for _ in range(2):
        assert as_user(network, use, groups=groups) == [b"to 10.6.7.2", b"to fd00::2"]
        (info,) = threepipe.adapters(network.path)
        assert (info.name, info.persistent, info.link_up) == ("tp0", True, False)


@pytest.mark.parametrize("settings", [{}, {"owner": OTHER}, {"group": GROUP}, {"owner": 0, "group": 0}])
def test_open_by_another_user_raises(network: Network, settings: dict[str, int]) -> None:
    make(network, **settings)
    with pytest.raises(threepipe.PermissionDenied, match="tp0 belongs to another user or group; run as root") as caught:
        as_user(network, open_and_close)
    assert caught.value.errno == errno.EPERM
    assert links(network) == {"tp0"}


def test_open_of_an_adapter_with_owner_and_group_requires_both(network: Network) -> None:
    make(network, owner=STRANGER, group=GROUP)
    with pytest.raises(threepipe.PermissionDenied):
        as_user(network, open_and_close)
    as_user(network, open_and_close, groups=(GROUP,))


def test_the_owner_can_delete_it(network: Network) -> None:
    make(network, owner=STRANGER)
    as_user(network, delete)
    assert links(network) == set()


def test_set_up_by_the_owner_raises(network: Network) -> None:
    make(network, owner=STRANGER)
    for call in (set_mtu, add_address):
        with pytest.raises(threepipe.PermissionDenied, match="setting up tp0 needs CAP_NET_ADMIN; run as") as denied:
            as_user(network, call)
    assert denied.value.errno == errno.EPERM
    network.run("ip", "link", "set", "tp0", "down")
    with pytest.raises(threepipe.LinkDown, match="root: ip link set tp0 up") as down:
        as_user(network, start_session)
    assert down.value.errno == errno.ENETDOWN


def test_every_user_can_list_adapters(network: Network) -> None:
    make(network, owner=STRANGER)
    (info,) = as_user(network, threepipe.adapters)
    assert (info.name, info.owner) == ("tp0", STRANGER)


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/proc/1/ns/net", errno.EACCES, "may not enter the namespace /proc/1/ns/net; run as root"),
        ("/proc/self/ns/net", errno.EPERM, "needs CAP_SYS_ADMIN; run as root"),
    ],
)
def test_a_namespace_given_by_an_ordinary_user_raises(network: Network, path: str, code: int, text: str) -> None:
    with pytest.raises(threepipe.PermissionDenied, match=text) as caught:
        as_user(network, threepipe.adapters, path)
    assert caught.value.errno == code
