"""The abilities of this Linux machine, found by trying them. Leaves nothing behind.

Each is tried with this user's privileges, in a new network namespace if possible. A child process in a user namespace
tries the failed ones again, as a process cannot leave a user namespace. Nothing depends on the findings: adapters are
created the same way whatever they are.
"""

import sys

assert sys.platform == "linux"

import errno
import fcntl
import io
import json
import os
import struct
import subprocess
from pathlib import Path

from threepipe.backend import Finding
from threepipe.errors import AdapterError, PermissionDenied
from threepipe.platforms.linux import device, tun
from threepipe.platforms.linux.namespace import Namespace, enter_user_namespace
from threepipe.platforms.linux.privilege import become
from threepipe.platforms.linux.tun import (
    IFF_MULTI_QUEUE,
    IFF_NO_PI,
    IFF_TUN,
    IFF_VNET_HDR,
    IFREQ,
    TUN_F_CSUM,
    TUN_F_TSO4,
    TUN_F_TSO6,
    TUN_F_USO4,
    TUN_F_USO6,
    TUNGETFEATURES,
    TUNSETCARRIER,
    TUNSETIFF,
    TUNSETOFFLOAD,
)
from threepipe.settings import AdapterSettings

__all__ = ["abilities", "may_create", "probe", "report_from_user_namespace"]

_CHILD = "from threepipe.platforms.linux.probe import report_from_user_namespace as report; report()"
_SECONDS_FOR_CHILD = 60

_PRIVILEGED = ("network namespaces", "adapters")

_USER_NAMESPACE_ADVICE = (
    "or allow them: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone"
    " or kernel.apparmor_restrict_unprivileged_userns"
)

_PLAIN = "a plain one, without superpackets, several queues, persistent adapters and a carrier: the link is always up"

_FEATURES: dict[str, tuple[list[str], str]] = {
    "carrier": (["TUNSETCARRIER"], "adapters need Linux 5.0 or newer"),
    "TCP offload": (["TSO4", "TSO6"], "superpackets of TCP need Linux 2.6.27 or newer"),
    "UDP offload": (["USO4", "USO6"], "superpackets of UDP need Linux 6.2 or newer"),
    "multi-queue": (["IFF_MULTI_QUEUE"], "several queues need Linux 3.8 or newer"),
}
"""The abilities (see `abilities`) behind each finding about the driver, and their needs."""


def probe() -> list[Finding]:
    """Return findings in the order to show; adapters can be created if every essential one is `ok`."""
    found = _attempts("with this user's privileges")
    if any(not found[name].ok for name in found if name in _PRIVILEGED):
        found |= _second_attempts(found)
    return [Finding("kernel", True, f"Linux {os.uname().release}"), *found.values(), _ipv6(), *_left_on()]


def report_from_user_namespace() -> None:
    """Print the findings from a new user namespace as JSON; exit with a text if none can be created."""
    try:
        enter_user_namespace()
        namespace = Namespace.fresh()
        try:
            found = namespace.run(lambda: _attempts("in a user namespace"))
        finally:
            namespace.close()
    except OSError as error:
        sys.exit(error.strerror or str(error))
    json.dump([finding._asdict() for finding in found.values()], sys.stdout)


def _attempts(where: str) -> dict[str, Finding]:
    """Try all that depends on privilege in the namespaces of this thread, which `where` describes."""
    found = [_tun_device(), _namespaces(where)]
    if found[0].ok:
        found += _adapters(where)
    return {finding.name: finding for finding in found}


def _second_attempts(first: dict[str, Finding]) -> dict[str, Finding]:
    """Return the abilities that a user namespace adds to the `first` ones, and a finding about user namespaces."""
    second, refusal = _ask_child()
    added = {}
    for name, finding in second.items():
        if name not in first:
            added[name] = finding
        elif finding.ok and not first[name].ok:
            # Still not `ok`: programs are not in a user namespace unless they are started in one.
            detail = f"{first[name].detail}; {finding.detail}"
            advice = f"{first[name].advice}; or start programs in one: unshare --user --map-root-user --net COMMAND"
            added[name] = first[name]._replace(detail=detail, advice=advice)
    detail, advice = (
        (f"none was created: {refusal}", f"{become('CAP_SYS_ADMIN')}, {_USER_NAMESPACE_ADVICE}")
        if refusal
        else ("one was created", "")
    )
    return added | {"user namespaces": Finding("user namespaces", not refusal, detail, advice)}


def _ask_child() -> tuple[dict[str, Finding], str]:
    """Return the findings of a child in a user namespace, and the reason if there are none."""
    # The child must find the same modules as this process.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS_FOR_CHILD,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return {}, f"{sys.executable} cannot be run: {error}"
    if done.returncode:
        return {}, (done.stderr.splitlines() or [f"exit status {done.returncode}"])[-1]
    findings = [Finding(**fields) for fields in json.loads(done.stdout)]
    return {finding.name: finding for finding in findings}, ""


def _tun_device() -> Finding:
    name = "TUN device"
    try:
        with tun.open_tun() as file:
            if not tun.is_driver(file):
                raise AdapterError(errno.ENOTTY, f"{tun.TUN_PATH} belongs to another driver")
    except AdapterError as error:
        found = _refused(name, error)
        return found if found.advice else found._replace(advice=f"create it again: mknod {tun.TUN_PATH} c 10 200")
    return Finding(name, True, f"{tun.TUN_PATH} can be opened", essential=True)


def _namespaces(where: str) -> Finding:
    name = "network namespaces"
    try:
        Namespace.fresh().close()
    except PermissionDenied:
        return Finding(name, False, "creating one needs CAP_SYS_ADMIN, which this user lacks", become("CAP_SYS_ADMIN"))
    except AdapterError as error:
        return _refused(name, error)._replace(essential=False)
    return Finding(name, True, f"one was created {where}")


def _adapters(where: str) -> list[Finding]:
    with tun.open_tun() as file:
        if not may_create(file):
            detail = "creating one needs CAP_NET_ADMIN, which this user lacks"
            advice = f"{become('CAP_NET_ADMIN')}, or have root create a persistent adapter with this user as its owner"
            return [Finding("adapters", False, detail, advice, essential=True)]
    try:
        namespace = Namespace.fresh()
        namespace.run(lambda: None)
    except AdapterError:
        namespace = Namespace(None)  # This user may have the privilege for adapters, but not for namespaces.
    try:
        return namespace.run(lambda: [_adapter(where), *_features()])
    finally:
        namespace.close()


def _adapter(where: str) -> Finding:
    try:
        device.create(AdapterSettings("tpprobe%d")).close()
    except AdapterError as error:
        return _refused("adapters", error)
    return Finding("adapters", True, f"one was created {where}", essential=True)


def _features() -> list[Finding]:
    with tun.open_tun() as file:
        if tun.is_plain(file):
            return [Finding("TUN driver", False, _PLAIN, "run outside gVisor for more; all else works")]
        try:
            able = abilities(file)
        except OSError:
            return []  # The finding about adapters has the reason.
    found = []
    for name, (needed, advice) in _FEATURES.items():
        missing = [ability for ability in needed if ability not in able]
        if missing:
            found.append(Finding(name, False, f"missing: {', '.join(missing)}", advice))
        else:
            found.append(Finding(name, True, f"works: {', '.join(needed)}"))
    return found


def _ipv6() -> Finding:
    if not Path("/proc/thread-self/net/if_inet6").exists():
        advice = "boot without ipv6.disable=1, or load the module (modprobe ipv6)"
        return Finding("IPv6", False, "the kernel runs without IPv6", advice)
    disabled = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")  # The setting for new interfaces.
    if disabled.exists() and disabled.read_text().strip() != "0":
        advice = "sysctl net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0"
        return Finding("IPv6", False, "IPv6 is disabled for new adapters", advice)
    return Finding("IPv6", True, "new adapters have IPv6")


def _left_on() -> list[Finding]:
    """Return a finding for each persistent adapter that a killed program has left with superpackets on."""
    try:
        found = [info.name for info in device.adapters(None) if info.offload_left_on]
    except AdapterError:
        return []  # This system has no netlink; other findings say so.
    detail = "a killed program left superpackets on: with the next one pings may pass and TCP not"
    return [Finding(f"adapter {name}", False, detail, f"threepipe adapter reset {name}") for name in found]


def _refused(name: str, error: AdapterError) -> Finding:
    """Return an essential finding from an error, whose text has the advice after a semicolon."""
    detail, _, advice = str(error.strerror).partition("; ")
    return Finding(name, False, detail, advice, essential=True)


def may_create(tun: io.FileIO) -> bool:
    """Return True if this user may create interfaces in the namespace where `tun` was opened. Creates none."""
    try:
        # The driver checks the privilege before it refuses a request for neither TUN nor TAP.
        fcntl.ioctl(tun, TUNSETIFF, bytes(IFREQ.size))
    except OSError as error:
        return error.errno != errno.EPERM
    return True


def abilities(tun: io.FileIO) -> frozenset[str]:
    """Create an interface, which lives until `tun` is closed, and return the names of its abilities.

    The names are the keys of `_ABILITIES`, and "IFF_MULTI_QUEUE". Raises `OSError` as the kernel does.
    """
    fcntl.ioctl(tun, TUNSETIFF, IFREQ.pack(b"tpprobe%d", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    (features,) = struct.unpack("I", fcntl.ioctl(tun, TUNGETFEATURES, bytes(4)))
    able = {ability for ability, request in _ABILITIES.items() if _accepts(tun, *request)}
    return frozenset(able | ({"IFF_MULTI_QUEUE"} if features & IFF_MULTI_QUEUE else set()))


def _accepts(file: io.FileIO, request: int, argument: int | bytes) -> bool:
    try:
        fcntl.ioctl(file, request, argument)
    except OSError:
        return False
    return True


# The kernel takes USO4 and USO6 only together, so it has both or neither.
_ABILITIES: dict[str, tuple[int, int | bytes]] = {
    "TUNSETCARRIER": (TUNSETCARRIER, struct.pack("i", 0)),
    "TSO4": (TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4),
    "TSO6": (TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO6),
    "USO4": (TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6),
    "USO6": (TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6),
}
