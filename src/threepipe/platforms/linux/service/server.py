"""The server: it makes adapters for callers on a Unix socket, and removes each when its caller's connection ends.

Everything is done in one thread, one request after another. A caller cannot make it wait: a request is one message,
an answer that the caller does not take ends the connection, and so does silence before an adapter is asked for. No
packet passes here. It identifies a caller by the credentials that the kernel reports, and takes no descriptors.
"""

import sys

assert sys.platform == "linux"

import errno
import fcntl
import io
import logging
import os
import resource
import selectors
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from threepipe.errors import AdapterError, AdapterGone, InvalidSetting, PermissionDenied, ThreepipeError, text_of
from threepipe.net.connect import close_on_error
from threepipe.net.doorbell import Doorbell
from threepipe.platforms.linux import device, wire
from threepipe.platforms.linux.service.policy import Caller, Rule, read_policy
from threepipe.platforms.linux.service.request import MAX_REQUEST, Request, parse_request
from threepipe.settings import Address, Network

__all__ = ["NAMESPACES", "Server"]

NAMESPACES = Path("/run/netns")

SO_PEERGROUPS = 59  # <asm-generic/socket.h>
SIOCGSKNS = 0x894C  # <linux/sockios.h>
_UCRED = struct.Struct("iII")  # struct ucred: process, user and group.

_MAX_OPTION = 1024  # Bytes that Python takes of a socket option: 256 groups.

_MAX_CALLERS = 1024
_MAX_CALLERS_OF_A_USER = 256
_SECONDS_OF_SILENCE = 10.0
_SECONDS_OF_SHORTAGE = 1.0  # Between attempts to accept a caller when descriptors or memory are used up.
_MAX_ADDED = 1024  # Addresses and routes that a caller may add to its adapter; each takes memory of the kernel.

log = logging.getLogger("threepipe.service")


class Server:
    """The service on a listening socket of the kind SOCK_SEQPACKET, which it owns."""

    def __init__(self, listening: socket.socket, policy: Path) -> None:
        """Read the policy. Raises as `read_policy` does."""
        self._policy_path = policy
        self._policy = read_policy(policy)
        self._listening = listening
        self._listening.setblocking(False)
        self._connections: set[_Connection] = set()
        self._selector = selectors.DefaultSelector()
        self._bell = Doorbell()
        self._ended = False
        self._own_namespace = os.stat("/proc/thread-self/ns/net")
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def run(self) -> None:
        """Serve until `stop` is called; then remove all adapters and close everything."""
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._selector.register(self._listening, selectors.EVENT_READ)
        try:
            while not self._ended:
                ready = self._selector.select(self._patience())
                with suppress(KeyError):
                    self._selector.register(self._listening, selectors.EVENT_READ)  # Again, after a shortage.
                for key, _ in ready:
                    if isinstance(key.data, _Connection):
                        self._serve(key.data)
                    elif key.fileobj is self._listening:
                        self._accept()
                for silent in [each for each in self._connections if each.is_overdue()]:
                    self._drop(silent)
        finally:
            for connection in list(self._connections):
                self._drop(connection)
            self._selector.close()
            self._listening.close()
            self._bell.close()

    def stop(self) -> None:
        """End `run`; from a signal handler or another thread."""
        self._ended = True
        self._bell.ring()

    def reload(self) -> None:
        """Read the policy again, for later adapters; if it cannot be used, keep the present one and log why."""
        try:
            self._policy = read_policy(self._policy_path)
        except ThreepipeError as error:
            log.error("the policy stays as it was: %s", error)

    def _patience(self) -> float | None:
        """Return the seconds until the next deadline, of a silent caller or of a shortage; None without one."""
        deadlines = [each.deadline for each in self._connections if each.device is None]
        if self._listening not in self._selector.get_map():
            deadlines.append(time.monotonic() + _SECONDS_OF_SHORTAGE)
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _accept(self) -> None:
        try:
            peer, _ = self._listening.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                log.error("no caller can be heard: %s", error.strerror)
                self._selector.unregister(self._listening)  # For a moment.
            return
        peer.setblocking(False)
        try:
            caller = _caller(peer)
        except OSError:
            peer.close()  # It has left.
            return
        connection = _Connection(peer, caller)
        same = sum(each.caller.uid == caller.uid for each in self._connections)
        try:
            self._policy.rules_for(caller)
            if same >= _MAX_CALLERS_OF_A_USER or len(self._connections) >= _MAX_CALLERS:
                raise PermissionDenied(errno.EAGAIN, "the service has too many callers; try again later")
        except PermissionDenied as error:
            log.warning("%s", text_of(error))
            connection.answer(wire.encode_error(error))
            peer.close()
            return
        self._connections.add(connection)
        self._selector.register(peer, selectors.EVENT_READ, connection)

    def _serve(self, connection: "_Connection") -> None:
        """Read a request and answer it; drop the connection at its end, and after a refused adapter."""
        try:
            data = connection.peer.recv(MAX_REQUEST + 1)  # Descriptors in the message are discarded by the kernel.
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        descriptors: list[int] = []
        try:
            if len(data) > MAX_REQUEST:
                raise InvalidSetting(f"the request has more than {MAX_REQUEST} bytes; ask for less")
            request = parse_request(data)
            answer = self._create(connection, request) if request.operation == "create" else connection.do(request)
            if request.operation == "create":
                assert connection.device is not None
                descriptors = [file.fileno() for file in connection.device.descriptors.files]
        except (ThreepipeError, OSError) as error:
            log.warning("%s: %s", connection.caller, text_of(error))
            answer = wire.encode_error(error)
        if not connection.answer(answer, descriptors) or connection.device is None:
            self._drop(connection)

    def _create(self, connection: "_Connection", request: Request) -> dict[str, object]:
        settings = request.arguments["settings"]
        if connection.device is not None:
            raise InvalidSetting("a connection has one adapter; connect again for another")
        used = Counter(each.rule for each in self._connections if each.caller.uid == connection.caller.uid)
        rule = self._policy.grant(connection.caller, settings, lambda rule: used[rule])
        if settings.netns is None:
            self._check_namespace(connection.peer)
        else:
            settings = settings._replace(netns=NAMESPACES / settings.netns)
        made = device.create(settings)
        with close_on_error(made):
            answer = {"name": made.name, "index": made.index, "offload": made.descriptors.offload.value}
        connection.device, connection.rule = made, rule
        log.info("%s has got the adapter %s", connection.caller, answer["name"])
        return answer

    def _check_namespace(self, peer: socket.socket) -> None:
        """Raise `PermissionDenied` unless the caller is in the service's network namespace, where its adapter goes."""
        with suppress(PermissionError), io.FileIO(fcntl.ioctl(peer, SIOCGSKNS)) as file:  # It may not even look there.
            if os.path.samestat(os.fstat(file.fileno()), self._own_namespace):
                return
        raise PermissionDenied(errno.EPERM, "the service is in another network namespace; create the adapter there")

    def _drop(self, connection: "_Connection") -> None:
        self._selector.unregister(connection.peer)
        self._connections.discard(connection)
        connection.close()


class _Connection:
    """A caller, and the adapter that it has."""

    def __init__(self, peer: socket.socket, caller: Caller) -> None:
        self.peer = peer
        self.caller = caller
        self.device: device.LinuxDevice | None = None
        self.rule: Rule | None = None
        self._added = 0
        self.deadline = time.monotonic() + _SECONDS_OF_SILENCE

    def is_overdue(self) -> bool:
        return self.device is None and time.monotonic() >= self.deadline

    def answer(self, message: dict[str, object], descriptors: list[int] | None = None) -> bool:
        """Return False if the caller does not take the answer."""
        try:
            wire.send(self.peer, message, descriptors or [])
        except OSError:
            return False
        return True

    def do(self, request: Request) -> dict[str, object]:
        """Carry out a request about the adapter, and return the answer. Raises `AdapterError` and `InvalidSetting`."""
        made, arguments = self.device, request.arguments
        if made is None or self.rule is None:
            raise InvalidSetting("this connection has no adapter yet; create one first")
        match request.operation:
            case "info":
                return _described(made)
            case "running":
                return {"running": made.is_running()}
            case "room":
                made.make_room(arguments["capacity"])
            case "mtu":
                made.set_mtu(arguments["mtu"])
            case "add_address" | "add_route":
                self._check(arguments["item"])
                made.add(arguments["item"])
            case "remove_address" | "remove_route":
                made.remove(arguments["item"])
        return {}

    def _check(self, item: Address | Network) -> None:
        assert self.rule is not None
        refused = self.rule.refused_route(item) if isinstance(item, Network) else self.rule.refused_address(item)
        self._added += 1
        if self._added > _MAX_ADDED:
            refused = iter([f"more than {_MAX_ADDED} further addresses and routes of an adapter"])
        for reason in refused:
            raise PermissionDenied(errno.EPERM, f"the policy of threepipe serve refuses {reason}")

    def close(self) -> None:
        """Remove the adapter, even if other processes have its descriptors or it was made persistent."""
        made, self.device, self.rule = self.device, None, None
        if made is not None:
            try:
                made.unpersist()
                made.remove_interface()
            except AdapterGone:
                pass  # Somebody else removed it.
            except AdapterError as error:
                log.error("the adapter of %s stays until its programs end: %s", self.caller, error)
            made.close()
        self.peer.close()


def _described(made: device.LinuxDevice) -> dict[str, object]:
    info = made.info()
    plain = {"addresses": [*map(str, info.addresses)], "routes": [*map(str, info.routes)]}
    return {"info": {**info._asdict(), **plain, "statistics": list(info.statistics)}}


def _caller(peer: socket.socket) -> Caller:
    """Return the credentials of the caller, as the kernel noted them when it connected. Raises `OSError`."""
    pid, uid, gid = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        groups = peer.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _MAX_OPTION)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        groups = b""  # There are more groups than fit, so only rules for the first one apply.
    return Caller(pid, uid, frozenset({gid, *(each for (each,) in struct.iter_unpack("I", groups))}))
