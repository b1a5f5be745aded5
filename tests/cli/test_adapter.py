"""`threepipe adapter`: every command and option on real adapters, and bad input."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import threepipe
from tests.support.commands import Done, run, run_here
from tests.support.kernel import AS_ROOT, Network, links, needs_root
from threepipe import Adapter, AdapterInfo, AdapterStatistics

pytestmark = pytest.mark.kernel

FIELDS = list(AdapterInfo._fields)
COUNTS = list(AdapterStatistics._fields)


class Command:
    """`threepipe adapter`: each call is one run; for bad input it checks the form of the error message."""

    def __init__(self, network: Network, here: Callable[..., Done]) -> None:
        self._netns = network.path
        self._here = here

    def __call__(self, *arguments: str, status: int = 0, netns: str | None = None) -> str:
        """Run it and return its output, or its error message if it is expected to fail."""
        where = ["--netns", self._netns if netns is None else netns]
        done = self._here("adapter", *arguments[:1], *where, *arguments[1:])
        assert done.status == status, done.complaint
        if not status:
            assert done.complaint == ""
            return done.printed
        assert done.printed == ""
        assert "Traceback" not in done.complaint
        assert status == 2 or (done.complaint.startswith("threepipe: ") and done.complaint.count("\n") == 1)
        return done.complaint

    def shown(self, name: str) -> dict[str, Any]:
        info = json.loads(self("show", name, "--json"))
        assert list(info) == FIELDS
        assert list(info["statistics"]) == COUNTS
        return dict(info)


@pytest.fixture
def adapter(network: Network, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(network, partial(run_here, monkeypatch, capfd))


def test_create_prints_the_name_of_a_persistent_adapter(network: Network, adapter: Command) -> None:
    assert adapter("create", "tp%d") == "tp0\n"
    assert adapter("create", "tp%d") == "tp1\n"
    assert links(network) == {"tp0", "tp1"}
    assert all(info.persistent and not info.link_up for info in threepipe.adapters(network.path))


def test_create_with_every_option_makes_such_an_adapter(network: Network, adapter: Command) -> None:
    addresses = ["10.6.7.1/24", "10.6.8.1/32", "fd00::1/64"]
    routes = ["10.77.0.0/16", "fd77::/16"]
    options = [f"--address={item}" for item in addresses] + [f"--route={item}" for item in routes]
    # A user namespace has only one user.
    owner, group = (4321, 8765) if AS_ROOT else (0, 0)
    made = json.loads(
        adapter(
            "create", "tp0", *options, "--mtu=1420", "--metric=77", f"--owner={owner}", f"--group={group}", "--json"
        )
    )
    assert made == adapter.shown("tp0")
    index = json.loads(network.run("ip", "-j", "link", "show", "tp0"))[0]["ifindex"]
    assert (made["name"], made["index"], made["mtu"]) == ("tp0", index, 1420)
    assert (made["link_up"], made["persistent"], made["owner"], made["group"]) == (False, True, owner, group)
    assert set(addresses) <= set(made["addresses"])
    assert set(made["routes"]) == set(routes)
    has = network.run("ip", "route") + network.run("ip", "-6", "route")
    assert all(f"{route} dev tp0" in has for route in routes)
    assert has.count("metric 77") == len(addresses) - 1 + len(routes)  # A single host has no route.
    rows = adapter("show", "tp0").splitlines()
    assert [row.split()[1:] for row in rows if row.startswith("routes")] == [["10.77.0.0/16,", "fd77::/16"]]


def test_create_accepts_names_of_user_and_group(network: Network, adapter: Command) -> None:
    adapter("create", "tp0", "--owner", "root", "--group", "root")
    info = adapter.shown("tp0")
    assert (info["owner"], info["group"]) == (0, 0)
    heading, row = [line.split() for line in adapter("list").splitlines()]
    assert heading == ["name", "index", "MTU", "link", "persistent", "owner", "group", "addresses"]
    assert row[3:7] == ["down", "yes", "root", "root"]


@needs_root
def test_list_shows_ids_without_a_name_as_numbers(network: Network, adapter: Command) -> None:
    adapter("create", "tp0", "--owner", "43210", "--group", "98765")
    assert adapter("list").splitlines()[1].split()[5:7] == ["43210", "98765"]


def test_create_prints_warnings_to_standard_error(network: Network) -> None:
    for scope in ("all", "default"):
        network.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
    addresses = ["--address=10.6.7.1/24", "--address=fd00::1/64"]
    done = run("adapter", "create", "tp0", "--netns", network.path, "--json", *addresses)
    assert done.status == 0
    assert done.complaint.startswith("threepipe: warning: IPv6 is disabled here, so tp0 does not get fd00::1/64")
    assert done.complaint.count("\n") == 1
    assert json.loads(done.printed)["addresses"] == ["10.6.7.1/24"]


def test_create_with_ipv6_alone_while_it_is_disabled_fails(network: Network, adapter: Command) -> None:
    for scope in ("all", "default"):
        network.run("sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
    assert "IPv6 is disabled here" in adapter("create", "tp0", "--address=fd00::1/64", status=1)
    assert links(network) == set()


def test_delete_removes_one_adapter(network: Network, adapter: Command) -> None:
    for name in ("tp0", "tp1"):
        Adapter.create(name, netns=network.path, persistent=True).close()
    assert adapter("delete", "tp0") == ""
    assert links(network) == {"tp1"}


def test_list_without_adapters_prints_the_heading_alone(network: Network, adapter: Command) -> None:
    assert json.loads(adapter("list", "--json")) == []
    assert adapter("list").split()[0] == "name"
    assert len(adapter("list").splitlines()) == 1


def test_list_prints_every_adapter(network: Network, adapter: Command) -> None:
    network.run("ip", "tuntap", "add", "tap0", "mode", "tap")
    with Adapter.create("tp0", netns=network.path, addresses=["10.6.7.1/24"], mtu=1400) as made:
        Adapter.create("tp1", netns=network.path, persistent=True).close()
        with made.start_session():
            listed = json.loads(adapter("list", "--json"))
            rows = [line.split() for line in adapter("list").splitlines()[1:]]
    assert [list(info) for info in listed] == [FIELDS] * 2
    assert [(info["name"], info["link_up"], info["persistent"]) for info in listed] == [
        ("tp0", True, False),
        ("tp1", False, True),
    ]
    assert [row[0] for row in rows] == ["tp0", "tp1"]
    assert rows[0][2:5] == ["1400", "up", "no"]
    assert rows[0][5].startswith("10.6.7.1/24")
    assert rows[1][2:5] == ["1500", "down", "yes"]


def test_show_prints_the_counts_of_an_open_adapter(network: Network, adapter: Command) -> None:
    packet = bytes.fromhex("4500001c000000004011000a0a0607020a060701") + bytes(8)
    with Adapter.create("tp0", netns=network.path) as made, made.start_session() as session:
        before = adapter.shown("tp0")["statistics"]
        assert session.send([packet] * 3) == 3
        info = adapter.shown("tp0")
        rows = [line.split() for line in adapter("show", "tp0").splitlines()]
    assert info["link_up"] is True
    counts = info["statistics"]
    assert counts["sent_packets"] + counts["sent_dropped"] - before["sent_packets"] - before["sent_dropped"] == 3
    assert ["name", "tp0"] in rows
    assert ["link", "up"] in rows
    assert [" ".join(row[:2]) for row in rows[-6:]] == [count.replace("_", " ") for count in COUNTS]
    assert all(row[2].isdecimal() for row in rows[-6:])


def test_commands_without_netns_use_the_namespace_of_the_caller(network: Network) -> None:
    command = [sys.executable, "-m", "threepipe", "adapter"]
    assert network.run(*command, "create", "tp0") == "tp0\n"
    assert [info["name"] for info in json.loads(network.run(*command, "list", "--json"))] == ["tp0"]
    assert "tp0" in network.run(*command, "show", "tp0")
    assert network.run(*command, "delete", "tp0") == ""
    assert links(network) == set()


def test_netns_accepts_the_id_of_a_process(network: Network, adapter: Command) -> None:
    with subprocess.Popen(network.command("cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"there")
        process.stdin.flush()
        process.stdout.read(5)  # Now the process is in the namespace.
        assert adapter("create", "tp0", netns=str(process.pid)) == "tp0\n"
    assert links(network) == {"tp0"}


NAMES = {
    "": "give 1 to 15",
    "sixteen-letters-": "give 1 to 15",
    ".": "cannot be used",
    "..": "cannot be used",
    "a/b": "cannot be used",
    "a b": "cannot be used",
    "a\nb": "cannot be used",
    "tp0:1": "cannot be used",
    "tp%s": "percent signs",
    "%d%d": "percent signs",
    "lo": "exists",
}


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_create_with_an_invalid_name_fails(network: Network, adapter: Command, name: str) -> None:
    assert NAMES[name] in adapter("create", name, status=1)
    assert links(network) == set()


OPTIONS = [
    ("--address", "", "does not appear to be an IPv4 or IPv6"),
    ("--address", "10.6.7.300/24", "write it like 10.6.7.1/24"),
    ("--address", "10.6.7.1/33", "write it like 10.6.7.1/24"),
    ("--address", "224.0.0.1/24", "cannot be assigned to an adapter"),
    ("--route", "", "does not appear to be an IPv4 or IPv6"),
    ("--route", "10.6.7.1/24", "has host bits set"),
    ("--route", "everything", "write it like 10.0.0.0/8"),
    ("--metric", "0", "give 1 to 4294967295"),
    ("--mtu", "67", "give 68 to 65535"),
    ("--mtu", "65536", "give 68 to 65535"),
    ("--mtu", "-1", "give 68 to 65535"),
    ("--mtu", "99999999999999999999", "give 68 to 65535"),
    ("--owner", "", "''"),
    ("--owner", "nobody-at-all", "'nobody-at-all'"),
    ("--owner", "-1", "'-1'"),
    ("--owner", "4294967295", "from 0 to 4294967294"),
    ("--group", "4294967295", "from 0 to 4294967294"),
    ("--address", "0.0.0.0/0", "cannot be assigned to an adapter"),
    ("--group", "", "''"),
    ("--group", "nobody-at-all", "'nobody-at-all'"),
    ("--group", "-1", "'-1'"),
]


@pytest.mark.parametrize(("option", "value", "text"), OPTIONS)
def test_create_with_an_invalid_value_fails(
    network: Network, adapter: Command, option: str, value: str, text: str
) -> None:
    fine = ["--address", "10.6.7.1/24", "--address", "fd00::1/64", "--route", "10.77.0.0/16", "--mtu", "1400"]
    assert text in adapter("create", "tp0", *fine, option, value, status=1)
    assert links(network) == set()


def test_create_with_contradictory_options_fails(network: Network, adapter: Command) -> None:
    assert "IPv6 needs at least 1280" in adapter("create", "tp0", "--address", "fd00::1/64", "--mtu", "1279", status=1)
    with Adapter.create("taker", netns=network.path, routes=["10.77.0.0/16"]):
        complaint = adapter("create", "tp0", "--address", "10.6.7.1/24", "--route", "10.77.0.0/16", status=1)
    assert "10.77.0.0/16 for tp0: " in complaint
    assert links(network) == set()


def test_create_with_a_taken_name_fails(network: Network, adapter: Command) -> None:
    adapter("create", "tp0", "--mtu", "1300")
    assert "tp0 exists; choose another name" in adapter("create", "tp0", "--mtu", "1400", status=1)
    assert adapter.shown("tp0")["mtu"] == 1300


USAGE = [
    ["create"],
    ["create", "tp0", "tp1"],
    ["create", "tp0", "--mtu", "large"],
    ["create", "tp0", "--mtu", ""],
    ["create", "tp0", "--mtu"],
    ["create", "tp0", "--address"],
    ["create", "tp0", "--route"],
    ["create", "tp0", "--owner"],
    ["create", "tp0", "--group"],
    ["create", "tp0", "--json=yes"],
    ["create", "tp0", "--persistent"],
    ["delete"],
    ["delete", "tp0", "tp1"],
    ["delete", "tp0", "--json"],
    ["list", "tp0"],
    ["list", "--json=yes"],
    ["list", "--netns"],
    ["show"],
    ["show", "tp0", "tp1"],
    ["show", "tp0", "--json=yes"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_usage_exits_with_2(network: Network, adapter: Command, arguments: list[str]) -> None:
    assert "Error" in adapter(*arguments, status=2)
    assert links(network) == set()


NAMESPACES = {
    "": "no network namespace",
    "none-of-this-name": "no network namespace none-of-this-name",
    "/none/of/this/path": "/none/of/this/path cannot be opened",
    "/etc/passwd": "is not a network namespace",
    "/": "no network namespace",
    "/proc/self/ns/mnt": "is not a network namespace",
    "999999999": "no network namespace 999999999",
    "-1": "no network namespace -1",
    "a\nb": "no network namespace a\\nb",
}


@pytest.mark.parametrize("netns", NAMESPACES, ids=repr)
@pytest.mark.parametrize("command", [["create", "tp0"], ["delete", "tp0"], ["list"], ["show", "tp0"]], ids=" ".join)
def test_every_command_with_an_invalid_namespace_fails(
    network: Network, adapter: Command, command: list[str], netns: str
) -> None:
    assert NAMESPACES[netns] in adapter(*command, netns=netns, status=1)
    assert links(network) == set()


@pytest.mark.parametrize("command", ["delete", "show"])
@pytest.mark.parametrize("name", ["tp0", "lo", "tp", "tp0 "])
def test_show_and_delete_of_a_missing_adapter_fail(network: Network, adapter: Command, command: str, name: str) -> None:
    with Adapter.create("tp00", netns=network.path):
        complaint = adapter(command, name, status=1)
        assert links(network) == {"tp00"}
    if command == "show":
        assert complaint == f"threepipe: there is no adapter {name}; threepipe adapter list shows all adapters\n"


def test_delete_of_a_busy_or_foreign_interface_fails(network: Network, adapter: Command) -> None:
    network.run("ip", "tuntap", "add", "tap0", "mode", "tap")
    with Adapter.create("tp0", netns=network.path):
        for name in ("lo", "tap0"):
            assert f"{name} is not a layer-3 TUN adapter" in adapter("delete", name, status=1)
        assert "tp0 is in use by another program" in adapter("delete", "tp0", status=1)
        assert links(network) == {"tap0", "tp0"}


def test_control_characters_in_names_are_escaped(network: Network, adapter: Command) -> None:
    with Adapter.create("a\x1b[31mb", netns=network.path):
        assert r"a\x1b[31mb" in adapter("list")
        assert r"a\x1b[31mb" in adapter("show", "a\x1b[31mb")
        assert json.loads(adapter("list", "--json"))[0]["name"] == "a\x1b[31mb"
    assert r"no adapter a\x1b[31mb;" in adapter("show", "a\x1b[31mb", status=1)


def test_create_without_a_tun_device_makes_nothing(network: Network) -> None:
    shell = ("unshare", "--mount", "sh", "-ec", 'mount -t tmpfs tmpfs /dev/net; exec "$@"', "sh")
    done = run("adapter", "create", "tp0", "--netns", network.path, prefix=shell)
    assert (done.status, done.printed) == (1, "")
    assert done.complaint.startswith("threepipe: /dev/net/tun is missing; load the module")
    assert links(network) == set()


@needs_root
def test_create_and_delete_without_privilege_fail(network: Network) -> None:
    nobody = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    inside = tuple(network.command(*nobody))
    done = run("adapter", "create", "tp0", prefix=inside)
    assert (done.status, done.printed) == (1, "")
    assert done.complaint.startswith("threepipe: creating tp0 needs CAP_NET_ADMIN; give this root the capability")
    assert links(network) == set()
    run("adapter", "create", "tp0", "--owner=4321", prefix=tuple(network.command()))
    assert run("adapter", "list", "--json", prefix=inside).status == 0
    done = run("adapter", "delete", "tp0", prefix=inside)
    assert (done.status, done.printed) == (1, "")
    assert done.complaint.startswith("threepipe: tp0 belongs to another user")
    assert links(network) == {"tp0"}
