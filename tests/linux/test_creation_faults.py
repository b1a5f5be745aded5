"""Creating an adapter fails: exception class, errno, a text with advice, and nothing left behind."""

import errno
import sys
from typing import Any

import pytest

import threepipe
from tests.support.kernel import NO_TUN_NODE, STRANGER, Network, call_elsewhere, links, needs_root, tun_node
from tests.support.refusals import create, open_existing, refused
from threepipe import Adapter
from threepipe.platforms.linux import tun

pytestmark = pytest.mark.kernel


def test_create_without_a_device_node_raises(network: Network) -> None:
    with refused(network, threepipe.AdapterUnavailable, errno.ENOENT, "modprobe tun", "--device /dev/net/tun"):
        call_elsewhere(network, create, "tp0", mounts=NO_TUN_NODE)


@needs_root
@pytest.mark.parametrize(("major", "code"), [(10, errno.ENODEV), (60, errno.ENXIO)])
def test_create_without_a_driver_raises(network: Network, major: int, code: int) -> None:
    # A misc device number that no driver has, and a major number for local use.
    with refused(network, threepipe.AdapterUnavailable, code, "no TUN driver", "modprobe tun"):
        call_elsewhere(network, create, "tp0", mounts=tun_node(major=major, minor=250))


def test_create_with_another_file_at_the_device_node_raises(network: Network) -> None:
    with refused(network, threepipe.AdapterError, errno.EISDIR, "/dev/net/tun"):
        call_elsewhere(network, create, "tp0", mounts=f"{NO_TUN_NODE}; mkdir /dev/net/tun")
    with refused(network, threepipe.AdapterUnavailable, errno.ENOTTY, "/dev/net/tun is not"):
        call_elsewhere(network, create, "tp0", mounts=f"{NO_TUN_NODE}; touch /dev/net/tun")


@needs_root
def test_create_without_permission_for_the_device_node_raises(network: Network) -> None:
    with refused(network, threepipe.PermissionDenied, errno.EACCES, "run as root", "chmod 0666 /dev/net/tun"):
        call_elsewhere(network, create, "tp0", user=STRANGER, mounts=tun_node(mode="0600"))


WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
"""Makes root a user without privilege, as in a container."""

TRY = """
import threepipe
try:
    threepipe.Adapter.create("tp0")
except threepipe.PermissionDenied as error:
    print(error.errno, error)
"""


@needs_root
@pytest.mark.parametrize(
    ("mounts", "code", "words"),
    [
        (tun_node(), errno.EPERM, ["creating tp0 needs CAP_NET_ADMIN", "this root", "--cap-add=NET_ADMIN"]),
        (tun_node(mode="0060"), errno.EACCES, ["the mode of /dev/net/tun keeps this root out", "chmod 0666"]),
    ],
)
def test_root_without_capabilities_is_not_told_to_be_root(
    network: Network, mounts: str, code: int, words: list[str]
) -> None:
    program = ["unshare", "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "sh", *WITHOUT_CAPABILITIES]
    printed = network.run(*program, sys.executable, "-c", TRY)
    assert printed.startswith(str(int(code)))
    assert "run as root" not in printed
    for word in words:
        assert word in printed


REDUCED = """
import importlib.abc
import sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Missing())
import threepipe
try:
    threepipe.Adapter.create("tp0")
except threepipe.AdapterUnavailable as error:
    print(error.strerror)
from threepipe.__main__ import main
sys.argv = ["threepipe", "demo", "--size", "1M"]
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["pyroute2", "ssl", "sqlite3"])
def test_a_python_without_what_pyroute2_needs_is_told_so_and_plays_the_demo_in_memory(
    network: Network, module: str
) -> None:
    printed = network.run(sys.executable, "-c", REDUCED.replace("MODULE", repr(module)))
    reason = f"pyroute2 cannot be loaded (No module named '{module}'); install what is missing"
    assert printed.startswith(reason)
    assert f"In memory, as no adapter can be created here: {reason}" in " ".join(printed.split())
    assert links(network) == set()


@needs_root
@pytest.mark.parametrize("user", [0, STRANGER])
def test_create_with_a_device_node_on_a_mount_without_devices_raises(network: Network, user: int) -> None:
    with refused(network, threepipe.PermissionDenied, errno.EACCES, "(nodev)", "option dev", "--device /dev/net/tun"):
        call_elsewhere(network, create, "tp0", user=user, mounts=f"{tun_node()}; mount -o remount,nodev /dev/net")


@needs_root
@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_create_that_something_else_forbids_raises(
    network: Network, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Device lists of containers and security modules cannot be made here, so their answers are."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, "")

    with monkeypatch.context() as patch:
        patch.setattr("threepipe.platforms.linux.tun.io.FileIO", refuse)
        with pytest.raises(
            threepipe.PermissionDenied, match=r"something other than its mode.*--device.*SELinux"
        ) as caught:
            tun.open_tun()
    assert caught.value.errno == code
    with monkeypatch.context() as patch:
        patch.setattr("threepipe.platforms.linux.tun.fcntl.ioctl", refuse)
        text = "security module" if code == errno.EACCES else "CAP_NET_ADMIN"
        with refused(network, threepipe.PermissionDenied, code, text):
            create("tp0", netns=network.path)


@needs_root
def test_create_without_privilege_raises(network: Network) -> None:
    with refused(network, threepipe.PermissionDenied, errno.EPERM, "CAP_NET_ADMIN", "root", "owner"):
        call_elsewhere(network, create, "tp0", user=STRANGER, mounts=tun_node())


def test_create_with_a_taken_name_raises(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, persistent=True) as adapter:
        with refused(network, threepipe.NameTaken, errno.EBUSY, "tp0", "another name", "tp%d", "open it"):
            create("tp0", netns=network.path)
        adapter.delete()
    network.run("ip", "tuntap", "add", "tap0", "mode", "tap")
    network.run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    for name, kind in (("tap0", "a TAP device, which carries Ethernet"), ("veth0", "an interface of the kind veth")):
        with refused(network, threepipe.NameTaken, errno.EBUSY, f"{name} exists, {kind}", "another name"):
            create(name, netns=network.path)
    with refused(network, threepipe.NameTaken, errno.EBUSY, "lo", "another name", "tp%d"):
        create("lo", netns=network.path)


def test_open_of_a_busy_adapter_raises(network: Network) -> None:
    with Adapter.create("tp0", netns=network.path, persistent=True):
        with refused(network, threepipe.AdapterBusy, errno.EBUSY, "tp0", "close it there first"):
            open_existing("tp0", netns=network.path)
        with refused(network, threepipe.AdapterBusy, errno.EBUSY, "tp0", "close it there first"):
            call_elsewhere(network, open_existing, "tp0")
    call_elsewhere(network, open_existing, "tp0")


BAD_NAMES = {
    "0 bytes": [""],
    "16 bytes; give 1 to 15": ["a" * 16, "é" * 8, "abcdefghijklmn%d"],
    "slashes, colons": [".", "..", "a/b", "a:b", "a b", "a\tb", "a\nb", "a\0b"],
    "percent": ["%", "tp%", "tp%s", "tp%d%d", "tp%%d", "%d%"],
    "adapter name": ["\ud800"],
}


@pytest.mark.parametrize(("word", "name"), [(word, name) for word, names in BAD_NAMES.items() for name in names])
def test_create_and_open_with_an_invalid_name_raise(network: Network, word: str, name: str) -> None:
    with refused(network, threepipe.InvalidSetting, None, word):
        create(name, netns=network.path)
    with refused(network, threepipe.InvalidSetting, None, word):
        open_existing(name, netns=network.path)


def test_open_with_a_template_raises(network: Network) -> None:
    with refused(network, threepipe.InvalidSetting, None, "percent"):
        open_existing("tp%d", netns=network.path)


@pytest.mark.parametrize("name", ["all", "default"])
def test_create_with_a_name_that_the_kernel_rejects_raises(network: Network, name: str) -> None:
    """These are names of folders of sysctl itself."""
    with refused(network, threepipe.AdapterError, errno.EINVAL, name, "another name"):
        create(name, netns=network.path)


def test_create_with_a_template_without_a_free_number_raises(network: Network) -> None:
    """All numbers that fit into 15 bytes are in use; the next name would be too long."""
    pairs = [f"link add abcdefghijklm{number} type veth peer name peer{number}" for number in range(100)]
    network.run("sh", "-c", "\n".join(["ip -batch - <<END", *pairs, "END"]))
    before = links(network)
    with pytest.raises(threepipe.NameTaken, match=r"every abcdefghijklm%d .* choose a shorter template") as caught:
        create("abcdefghijklm%d", netns=network.path)
    assert caught.value.errno in (errno.EEXIST, errno.ENFILE)  # The latter from older kernels, such as 6.1.
    assert links(network) == before


BAD_SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("write it like 10.6.7.1/24", {"addresses": ["garbage"]}),
    ("write it like 10.6.7.1/24", {"addresses": [""]}),
    ("write it like 10.6.7.1/24", {"addresses": ["10.6.7.256/24"]}),
    ("write it like 10.6.7.1/24", {"addresses": ["10.6.7.1/33"]}),
    ("write it like 10.6.7.1/24", {"addresses": ["10.6.7.1/24", "fd00::1/129"]}),
    ("cannot be assigned", {"addresses": ["224.0.0.1/24"]}),
    ("cannot be assigned", {"addresses": ["ff02::1/64"]}),
    ("cannot be assigned", {"addresses": ["0.0.0.0/8"]}),
    ("cannot be assigned", {"addresses": ["::/64"]}),
    ("give a list", {"addresses": "10.6.7.1/24"}),
    ("host bits", {"routes": ["10.77.0.1/16"]}),
    ("host bits", {"routes": ["fd77::1/16"]}),
    ("write it like 10.0.0.0/8", {"routes": ["garbage"]}),
    ("leave out the zone", {"routes": ["fe80::%1/64"]}),
    ("give a list", {"routes": "10.77.0.0/16"}),
    ("68 to 65535", {"mtu": 67}),
    ("68 to 65535", {"mtu": 65536}),
    ("68 to 65535", {"mtu": 0}),
    ("68 to 65535", {"mtu": -1}),
    ("1280", {"mtu": 1279, "routes": ["::/0"]}),
    ("persistent", {"owner": 0}),
    ("persistent", {"group": 0}),
    ("numeric id", {"owner": "no such user", "persistent": True}),
    ("numeric id", {"group": "no such group", "persistent": True}),
    ("numeric id", {"owner": "", "persistent": True}),
    ("owner", {"owner": -1, "persistent": True}),
    ("owner", {"owner": 2**32 - 1, "persistent": True}),
    ("owner", {"owner": "99999999999", "persistent": True}),
    ("numeric id", {"owner": "9" * 5000, "persistent": True}),
    ("group", {"group": -1, "persistent": True}),
    ("group", {"group": 2**40, "persistent": True}),
]


@pytest.mark.parametrize(("word", "settings"), BAD_SETTINGS, ids=[str(settings) for _, settings in BAD_SETTINGS])
def test_create_with_an_invalid_setting_raises(network: Network, word: str, settings: dict[str, Any]) -> None:
    with refused(network, threepipe.InvalidSetting, None, word):
        create("tp0", netns=network.path, **settings)


@pytest.mark.parametrize("mtu", [67, 65536])
def test_an_invalid_mtu_for_an_existing_adapter_raises(network: Network, mtu: int) -> None:
    with Adapter.create("tp0", netns=network.path) as adapter:
        with refused(network, threepipe.InvalidSetting, None, "68 to 65535"):
            adapter.mtu = mtu
        assert adapter.mtu == 1500


@pytest.mark.parametrize("route", ["10.77.0.0/16", "0.0.0.0/0", "fd77::/16", "::/0"])
def test_create_with_a_route_of_another_interface_raises(network: Network, route: str) -> None:
    with (
        Adapter.create("tp0", netns=network.path, routes=[route]),
        refused(network, threepipe.AdapterError, errno.EEXIST, route, "tp1", "the system has it already"),
    ):
        create("tp1", netns=network.path, addresses=["10.6.7.1/24", "fd00::1/64"], routes=[route])


@pytest.mark.parametrize(("address", "route"), [("10.6.7.1/24", "10.6.7.0/24"), ("fd00::1/64", "fd00::/64")])
def test_create_with_a_route_to_its_own_network_succeeds(network: Network, address: str, route: str) -> None:
    with Adapter.create("tp0", netns=network.path, addresses=[address], routes=[route]):
        assert route in network.run("ip", "-6" if ":" in route else "-4", "route")


def test_an_address_with_two_prefix_lengths_raises_without_naming_another_interface(network: Network) -> None:
    with pytest.raises(threepipe.AdapterError, match=r"fd00::1/80 for tp0: (?!another interface)"):
        create("tp0", netns=network.path, addresses=["fd00::1/64", "fd00::1/80"])
    assert links(network) == set()
