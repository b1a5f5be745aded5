"""The process inside of an enclosure: it makes the namespaces and the adapter, and runs a program there.

It is started by `enclosure` with an `Order` as its standard input, and a socket over which it hands back the adapter's
descriptor and gets commands. It forks once: a process that makes a new PID namespace is not in it, but its child is, as
process 1, whose end ends all others there. It ends when the other end of the socket is closed, however that happens.

The constants are those of <linux/mount.h>.
"""

import sys

assert sys.platform == "linux"

import ctypes
import errno
import os
import pickle
import re
import select
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from threepipe.errors import AdapterError, PermissionDenied, ThreepipeError
from threepipe.platforms.linux import device, netlink, wire
from threepipe.platforms.linux.namespace import CLONE_NEWNET, CLONE_NEWUSER, unshare
from threepipe.settings import AdapterSettings

__all__ = ["Order", "main"]

CLONE_NEWNS = 0x00020000  # <linux/sched.h>
CLONE_NEWPID = 0x20000000
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 2

_RESOLVER_SOCKETS = ("/run/systemd/resolve", "/run/nscd")
"""Folders of sockets by which the C library asks resolvers, which would ask servers outside."""
_INSIDE_SOURCES = {"files", "dns", "myhostname"}
"""The sources of hosts in nsswitch.conf(5) that ask no process outside."""
_TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}
"""How to read and write files whose comments may have any encoding."""
_FORKED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores them, and programs would inherit that.


class Order(NamedTuple):
    """All that is needed to make an enclosure."""

    settings: AdapterSettings
    capacity: int
    """Bytes of packets that may wait for the reader of the descriptor."""
    servers: Sequence[str] | None = None
    """The DNS servers that programs inside ask; None to change nothing."""
    search: Sequence[str] = ()
    """Their search domains."""


def main(number: int) -> None:
    """Run with the descriptor `number` of the socket, until the end of the program or of the other end."""
    ignored = {each for each in _FORKED_SIGNALS if signal.getsignal(each) == signal.SIG_IGN}
    for each in _FORKED_SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # A terminal sends them to the program as well, which decides.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    peer = socket.socket(fileno=number)
    peer.set_inheritable(False)
    try:
        order: Order = pickle.load(sys.stdin.buffer)  # From the process that started this one.
        _enter_namespaces()
    except (ThreepipeError, OSError) as error:
        _report(peer, error)
        return
    if child := os.fork():
        peer.close()
        os.waitpid(child, 0)
        return
    _serve(peer, order, set(_FORKED_SIGNALS) - ignored)


def _enter_namespaces() -> None:
    """Make namespaces for users (but not for root), mounts, the network and the processes to come."""
    uid, gid = os.geteuid(), os.getegid()
    kinds = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID
    if not uid:
        unshare(kinds)
        return
    try:
        unshare(CLONE_NEWUSER | kinds)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError as error:
        raise no_user_namespace(error) from None


SETTINGS = Path("/proc/sys")
_SWITCHES = (
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("user/max_user_namespaces", "0", "10000"),
)
"""Settings of sysctl(8) about user namespaces: the value that forbids them, and one that allows them."""


def no_user_namespace(error: OSError) -> PermissionDenied:
    """Return the error for a system that does not allow user namespaces, with the setting that is the reason."""
    advice = _forbidding_switch() or (
        "a container or a security module may forbid them (Docker: --security-opt seccomp=unconfined)"
    )
    text = f"this system keeps ordinary users from user namespaces ({os.strerror(error.errno or 0)}); {advice}"
    return PermissionDenied(error.errno, text)


def _forbidding_switch() -> str:
    for path, forbidding, allowing in _SWITCHES:
        with suppress(OSError):
            if (SETTINGS / path).read_text().strip() == forbidding:
                advice = f"as root: sysctl {path.replace('/', '.')}={allowing}"
                return f"{advice}, or give this Python an AppArmor profile with userns" * ("apparmor" in path) or advice
    return ""


def _serve(peer: socket.socket, order: Order, heeded: set[signal.Signals]) -> NoReturn:
    """Set everything up, hand over the descriptor, and carry out commands."""
    try:
        descriptor = _set_up(order)
    except (ThreepipeError, OSError) as error:
        # AppArmor lets a process make the namespaces, and then refuses everything in them.
        refused = getattr(error, "errno", None) in (errno.EPERM, errno.EACCES) and os.geteuid()
        _report(peer, no_user_namespace(error) if refused and "apparmor" in _forbidding_switch() else error)  # type: ignore[arg-type]
        os._exit(1)
    _tell(peer, {}, [descriptor])
    os.close(descriptor)
    _carry_out(peer, heeded)


def _set_up(order: Order) -> int:
    """Mount the file systems of programs inside, and return the descriptor of a new adapter."""
    _mount(None, "/", None, MS_SLAVE | MS_REC)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if order.servers is not None:
        _replace_resolver(order.servers, order.search)
    with netlink.open_netlink("lo") as ipr:
        ipr.link("set", index=1, state="up")
    return device.create(order.settings).detach(order.capacity)


def _replace_resolver(servers: Sequence[str], search: Sequence[str]) -> None:
    """Have the C library ask these servers by the network and nobody else.

    Without any, those of the system's file stay, which are asked by the tunnel if at all.
    """
    texts = {}
    resolver, sources = [Path(os.path.realpath(f"/etc/{name}")) for name in ("resolv.conf", "nsswitch.conf")]
    if servers or search:
        lines = [f"nameserver {each}\n" for each in servers] + [f"search {' '.join(search)}\n"] * bool(search)
        texts[resolver] = "".join(lines)
    elif _is_hidden(resolver) and resolver.exists():
        texts[resolver] = resolver.read_text(**_TEXT)
    if sources.exists():  # Without it, hosts are looked up by dns and files.
        texts[sources] = inside_sources(sources.read_text(**_TEXT))
    for hidden in _RESOLVER_SOCKETS:
        if os.path.isdir(hidden):
            _mount("tmpfs", hidden, "tmpfs", MS_NOSUID | MS_NODEV)
    with tempfile.TemporaryDirectory() as folder:
        _mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV)
        try:
            for count, (target, text) in enumerate(texts.items()):
                source = Path(folder, str(count))
                source.write_text(text, **_TEXT)
                source.chmod(0o644)
                if _is_hidden(target) and target.parent.is_dir():
                    target.touch()
                elif not target.exists():
                    raise AdapterError(errno.ENOENT, f"{target} is missing; create it, be it empty")
                _mount(str(source), str(target), None, MS_BIND)
        finally:
            _check(_libc().umount2(os.fsencode(folder), MNT_DETACH), "umount", folder)  # The bound files stay.


def _is_hidden(path: Path) -> bool:
    return any(path.is_relative_to(hidden) for hidden in _RESOLVER_SOCKETS)


def inside_sources(text: str) -> str:
    """Return nsswitch.conf(5) with hosts looked up only by sources that ask no process outside."""

    def replace(found: re.Match[str]) -> str:
        kept = [word for word in re.sub(r"\[[^]]*\]", " ", found[2]).split() if word in _INSIDE_SOURCES]
        return f"{found[1]} {' '.join(kept or ['files', 'dns'])}"

    return re.sub(r"^(\s*hosts:)([^#\n]*)", replace, text, flags=re.MULTILINE)


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    given = [None if each is None else os.fsencode(each) for each in (source, target, kind)]
    _check(_libc().mount(*given, ctypes.c_ulong(flags), None), "mount", target)


def _check(result: int, call: str, target: str) -> None:
    if result:
        code = ctypes.get_errno()
        if code == errno.EPERM and target == "/proc":
            advice = "in a container unmask it (Docker: --security-opt systempaths=unconfined)"
            raise AdapterError(code, f"a new /proc cannot be mounted; {advice}")
        raise AdapterError(code, f"{call} of {target}: {os.strerror(code)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _carry_out(peer: socket.socket, heeded: set[signal.Signals]) -> NoReturn:
    """Start programs and send them signals as the other end says, and tell it how the last one ended."""
    program = 0
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready: list[object] = select.select([peer, reader], [], [])[0]  # type: ignore[type-var]
        if reader in ready:
            os.read(reader, 512)
            for child, status in _ended():
                if child == program:
                    # All stays until the other end closes: its adapter should not vanish before.
                    _tell(peer, {"status": os.waitstatus_to_exitcode(status)})
        if peer in ready:
            command, descriptors = wire.receive(peer)
            if command is None:
                os._exit(0)
            if "signal" in command:
                if program:
                    with suppress(ProcessLookupError):  # It has just ended.
                        os.kill(program, command["signal"])
                continue
            try:
                program = _start(command["words"], descriptors, heeded)
            except OSError as error:
                _report(peer, error)
            else:
                _tell(peer, {})


def _ended() -> list[tuple[int, int]]:
    """Return the id and status of each child that has ended: all processes inside become children of process 1."""
    found = []
    with suppress(ChildProcessError):
        while (pair := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(pair)
    return found


def _start(words: Sequence[str], descriptors: Sequence[int], heeded: set[signal.Signals]) -> int:
    """Start a program with these as its standard input, output and error; return its id. Raises `OSError`."""
    if shutil.which(words[0]) is None:  # The search of exec may end with "Permission denied" at a folder of root's.
        wire.close_all(descriptors)
        raise FileNotFoundError(errno.ENOENT, "it is not there, or not executable; install it")
    defaults = (*_DEFAULT_SIGNALS, *heeded)
    actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(descriptors)]
    try:
        return os.posix_spawnp(
            words[0],
            list(words),
            os.environ,
            file_actions=actions,
            setsigmask=(),
            setsigdef=defaults,
        )
    finally:
        wire.close_all(descriptors)


def _report(peer: socket.socket, error: Exception) -> None:
    _tell(peer, wire.encode_error(error))


def _tell(peer: socket.socket, message: dict[str, object], descriptors: Sequence[int] = ()) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # The next look at the socket finds its end.
        wire.send(peer, message, descriptors)
