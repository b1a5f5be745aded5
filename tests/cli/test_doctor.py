"""`threepipe doctor`: its findings on several kinds of machines, and that it leaves nothing behind."""

import json
import platform
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import threepipe
from tests.support.commands import run
from tests.support.kernel import Network, links, needs_root
from threepipe import platforms
from threepipe.backend import Finding
from threepipe.core import fast

pytestmark = pytest.mark.kernel

NAMES = [
    "kernel",
    "TUN device",
    "network namespaces",
    "adapters",
    "carrier",
    "TCP offload",
    "UDP offload",
    "multi-queue",
    "IPv6",
]
VERSIONS = ["threepipe", "Python", "libraries"]
ESSENTIAL = {"TUN device", "adapters"}
EMPTY = "mount -t tmpfs -o mode=755 tmpfs /dev/net"
FOR_ALL = f"{EMPTY}; mknod -m 666 /dev/net/tun c 10 200"
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def mounted(mounts: str) -> tuple[str, ...]:
    """Return the prefix of a command that runs in a mount namespace of its own, after the shell has run `mounts`."""
    return ("unshare", "--mount", "sh", "-ec", f'{mounts}; exec "$@"', "sh")


def doctor(*prefix: str, status: int) -> dict[str, dict[str, Any]]:
    """Run doctor with `prefix`, check its exit status, and return its findings by name."""
    done = run("doctor", "--json", prefix=prefix)
    assert (done.status, done.complaint) == (status, "")
    report = json.loads(done.printed)
    assert list(report) == ["adapters_possible", "findings"]
    assert report["adapters_possible"] == (status == 0)
    for finding in report["findings"]:
        assert list(finding) == ["name", "ok", "detail", "advice", "essential"]
        assert finding["detail"]
        assert finding["ok"] or finding["advice"], finding
        assert finding["essential"] == (finding["name"] in ESSENTIAL)
    return {finding["name"]: finding for finding in report["findings"]}


def test_doctor_with_root_finds_everything(network: Network) -> None:
    found = doctor(*network.command(), status=0)
    assert list(found) == [*VERSIONS, *NAMES, "native core"]
    assert found["native core"]["ok"] == fast.NATIVE
    assert found["kernel"]["detail"] == f"Linux {platform.release()}"
    assert found["adapters"]["detail"] == "one was created with this user's privileges"
    assert all(found[name]["ok"] for name in NAMES if name not in ("UDP offload", "IPv6"))
    version = tuple(int(part) for part in platform.release().split(".")[:2])
    assert found["UDP offload"]["ok"] == (version >= (6, 2))


def test_doctor_names_versions_and_missing_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    from threepipe.cli import doctor as command

    monkeypatch.setattr(command, "_LIBRARIES", {"typer": "", "no-such-library": "", "no-such-extra": "wireguard"})
    own, interpreter, libraries = command._versions()
    assert own[:3] == ("threepipe", True, threepipe.__version__)
    assert interpreter.detail.endswith(platform.python_version())
    assert not libraries.ok
    assert not libraries.essential
    assert libraries.detail.startswith("typer ")
    assert libraries.detail.endswith("; without no-such-extra")
    assert libraries.advice == 'optional: pip install "threepipe[wireguard]"'


def test_doctor_with_threepipe_pure_reports_the_native_core_unused(network: Network) -> None:
    core = doctor("env", "THREEPIPE_PURE=1", *network.command(), status=0)["native core"]
    assert not core["ok"]
    assert core["detail"] == "not in use, Python does the work per packet: disabled by THREEPIPE_PURE"


def test_doctor_without_json_prints_a_table(network: Network) -> None:
    done = run("doctor", prefix=tuple(network.command()))
    assert (done.status, done.complaint) == (0, "")
    heading, *rows = done.printed.splitlines()
    assert heading.split("  ")[0] == "check"
    assert [row[: heading.index("ok")].rstrip() for row in rows] == [*VERSIONS, *NAMES, "native core"]
    assert {row[heading.index("ok") :].split()[0] for row in rows} <= {"yes", "optional"}, "nothing that it needs lacks"


@pytest.mark.parametrize(
    ("mounts", "seen", "advice"),
    [
        (EMPTY, "/dev/net/tun is missing", "modprobe tun"),
        (f"{EMPTY}; touch /dev/net/tun", "/dev/net/tun belongs to another driver", "mknod /dev/net/tun c 10 200"),
        (f"{EMPTY}; mkdir /dev/net/tun", "Is a directory", "mknod /dev/net/tun c 10 200"),
        # Major number 61 is reserved for experiments; no driver has it.
        pytest.param(
            f"{EMPTY}; mknod /dev/net/tun c 61 0", "the kernel has no TUN driver", "modprobe tun", marks=needs_root
        ),
    ],
)
def test_doctor_without_a_tun_device_fails_with_advice(mounts: str, seen: str, advice: str) -> None:
    found = doctor(*mounted(mounts), status=1)
    assert not found["TUN device"]["ok"]
    assert seen in found["TUN device"]["detail"]
    assert advice in found["TUN device"]["advice"]
    assert list(found) == [*VERSIONS, "kernel", "TUN device", "network namespaces", "IPv6", "native core"]


def test_doctor_without_json_prints_advice() -> None:
    done = run("doctor", prefix=mounted(EMPTY))
    assert (done.status, done.complaint) == (1, "")
    (row,) = [line for line in done.printed.splitlines() if line.startswith("TUN device")]
    assert " no " in row
    assert row.endswith("load the module (modprobe tun), or in a container pass the device (--device /dev/net/tun)")


@needs_root
def test_doctor_as_root_without_capabilities_reports_them() -> None:
    found = doctor(*mounted(FOR_ALL), *WITHOUT_CAPABILITIES, status=1)
    assert "CAP_NET_ADMIN" in found["adapters"]["detail"]
    assert found["adapters"]["advice"].startswith("give this root the capability (a container: --cap-add=NET_ADMIN)")
    assert "CAP_SYS_ADMIN" in found["network namespaces"]["detail"]
    # The kernel requires CAP_SETFCAP to map root into a user namespace.
    assert not found["user namespaces"]["ok"]
    assert "sysctl" in found["user namespaces"]["advice"]
    assert "carrier" not in found


@needs_root
def test_doctor_with_cap_net_admin_alone_can_make_adapters(network: Network) -> None:
    """Root of a container often has these capabilities."""
    but_one = network.command("setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all")
    found = doctor(*mounted(FOR_ALL), *but_one, status=0)
    assert found["adapters"]["detail"] == "one was created with this user's privileges"
    assert found["carrier"]["ok"]
    assert not found["network namespaces"]["ok"]
    assert links(network) == set()


def made_readable(scratch: Path) -> str:
    """Return mounts that let any user read the files of this Python, which may be below closed directories."""
    places = [sys.base_prefix, sys.prefix, str(Path(threepipe.__file__).parents[1])]
    bound, closed = [], []
    for number, place in enumerate(dict.fromkeys(places)):
        shut = [parent for parent in reversed(Path(place).parents) if not parent.stat().st_mode & 1]
        if shut:
            copy = scratch / str(number)
            copy.mkdir()
            bound.append((place, copy))
            closed.append(shut[0])
    return "; ".join(
        [
            "cd /",
            *[f"mount --bind '{place}' '{copy}'" for place, copy in bound],
            # The directories are unchanged; these mounts cover them for this process.
            *[f"mount -t tmpfs -o mode=755 tmpfs '{directory}'" for directory in dict.fromkeys(closed)],
            *[f"mkdir -p '{place}'; mount --bind '{copy}' '{place}'" for place, copy in bound],
        ]
    )


@needs_root
def test_doctor_as_an_ordinary_user_reports_user_namespaces(tmp_path: Path) -> None:
    found = doctor(*mounted(f"{made_readable(tmp_path)}; {FOR_ALL}"), *NOBODY, status=1)
    assert found["TUN device"]["ok"]
    assert found["user namespaces"]["ok"]
    for name, capability in (("adapters", "CAP_NET_ADMIN"), ("network namespaces", "CAP_SYS_ADMIN")):
        lack = f"creating one needs {capability}, which this user lacks; one was created in a user namespace"
        assert (found[name]["ok"], found[name]["detail"]) == (False, lack)
        assert found[name]["advice"].startswith("run as root")
        assert found[name]["advice"].endswith("start programs in one: unshare --user --map-root-user --net COMMAND")
    assert found["carrier"]["ok"]
    assert found["TCP offload"]["ok"]


@needs_root
def test_doctor_as_a_user_without_access_to_the_device_fails_with_advice(tmp_path: Path) -> None:
    mounts = f"{made_readable(tmp_path)}; {FOR_ALL}; chmod 600 /dev/net/tun"
    found = doctor(*mounted(mounts), *NOBODY, status=1)
    assert found["TUN device"]["detail"] == "this user may not open /dev/net/tun"
    assert "chmod 0666 /dev/net/tun" in found["TUN device"]["advice"]
    assert not found["network namespaces"]["ok"]
    assert "adapters" not in found


def test_the_probe_reports_a_python_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = import_module("threepipe.platforms.linux.probe")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    found, refusal = probe._ask_child()
    assert found == {}
    assert refusal.startswith("/nowhere/python cannot be run")


def test_doctor_with_ipv6_disabled_reports_it(network: Network) -> None:
    network.disable_ipv6()
    found = doctor(*network.command(), status=0)
    assert not found["IPv6"]["ok"]
    assert "sysctl net.ipv6.conf.all.disable_ipv6=0" in found["IPv6"]["advice"]


def next_index(network: Network) -> int:
    with threepipe.Adapter.create("counter", netns=network.path) as adapter:
        return adapter.index


def test_doctor_leaves_no_interface_in_its_network(network: Network) -> None:
    before = next_index(network)
    doctor(*network.command(), status=0)
    assert links(network) == set()
    # The kernel numbers interfaces in the order of creation.
    assert next_index(network) == before + 1


def test_the_probe_leaves_nothing_in_its_process(network: Network) -> None:
    def traces() -> tuple[int, str, list[str]]:
        mounts = Path("/proc/self/mountinfo").read_text()
        return threading.active_count(), mounts, [info.name for info in threepipe.adapters()]

    before = traces()
    findings = network.namespace.run(platforms.probe)
    assert traces() == before
    assert [finding.name for finding in findings] == NAMES
    assert all(isinstance(finding, Finding) for finding in findings)
