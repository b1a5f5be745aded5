"""The running process of a takeover: it hands its device over."""

import errno
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from threepipe import platforms
from threepipe.adapter import Adapter, give_away, share
from threepipe.backend import HandoverLink
from threepipe.errors import AdapterUnavailable, EndpointError
from threepipe.net.doorbell import Doorbell
from threepipe.pump import kept
from threepipe.session import Session
from threepipe.takeover import Giving as AnyGiving
from threepipe.takeover import Server
from threepipe.wireguard import clock
from threepipe.wireguard.device import Device
from threepipe.wireguard.state import Writer, wipe, write_packets
from threepipe.wireguard.takeover.exchange import CLOCKS_DIFFER, VERSION
from threepipe.wireguard.uapi_server import UapiServer
from threepipe.wireguard.uapi_socket import FOLDER, Listening, takeover_path

__all__ = ["Giving", "Running", "handing_over"]

log = logging.getLogger("threepipe")


@dataclass(frozen=True)
class Running:
    """A running device with its adapter, and everything else that its process hands over."""

    name: str
    kind: str
    """The command that runs it; the new process has to run the same."""
    adapter: Adapter
    inside: Session
    device: Device
    server: UapiServer
    given: Callable[[int], None]
    """A function that is called with the id of the new process, once the device and its parts are given away."""
    settings: str = ""
    """A text for the new process, in a form that is known to this kind alone."""
    descriptors: Sequence[int] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def handing_over(running: Running, listening: Listening | None = None, folder: Path = FOLDER) -> Iterator[None]:
    """Let other processes take the device over while the block runs.

    `listening` is the socket of the process that it was taken from. Does nothing if adapters cannot be taken over.
    """
    try:
        share(running.adapter)
        listening = listening or Listening(*platforms.listen_handover(takeover_path(running.name, folder)))
    except AdapterUnavailable:
        yield
        return
    except EndpointError as error:
        log.info(f"{running.name} cannot be taken over by another process: {error}")
        yield
        return
    server = Server(running.name, listening, partial(Giving, running, listening))
    try:
        yield
    finally:
        server.close()
        if not server.given:
            listening.remove()
        listening.close()


class Giving(AnyGiving):
    """One takeover of a device at the running process."""

    version = VERSION
    again = "take it down, and up again"

    def __init__(self, running: Running, listening: socket.socket, link: HandoverLink, bell: Doorbell) -> None:
        super().__init__(running.name, link, bell)
        self.kind = running.kind
        self._running, self._listening = running, listening
        self._suspended = False

    def check(self, hello: dict[str, Any]) -> None:
        """Check that the clocks of both processes are the same."""
        if not abs(hello.get("clock", 0.0) - clock.now()) < CLOCKS_DIFFER:
            text = f"{self._name} is in another time namespace than the new process; start that one there"
            raise EndpointError(errno.EPROTO, text)

    def offer(self) -> None:
        """Send descriptors and settings that do not change."""
        running = self._running
        shared, settings = share(running.adapter), bytearray(running.settings.encode())
        listening, _ = running.server.share()
        offer = {
            "takeover": "offer",
            "share": [shared.name, shared.index, shared.form, len(shared.descriptors)],
            "facts": running.facts,
            "settings": len(settings),
        }
        numbers = [*shared.descriptors, listening.fileno(), self._listening.fileno(), *running.descriptors]
        self._link.send(offer, numbers)
        self._link.send_memory(settings)

    def suspend(self) -> None:
        """Stop all work. Packets that arrive wait in the kernel."""
        self._running.server.suspend()
        try:
            self._running.device.suspend()
        except BaseException:
            self._running.server.resume()
            raise
        self._suspended = True

    def send_state(self) -> None:
        """Send everything that changes while the device works."""
        running, writer = self._running, Writer()
        write_packets(writer, kept(running.inside))
        running.device.write_state(writer)
        state = writer.joined()
        try:
            _, clients = running.server.share()
            sockets = running.device.sockets
            message = {"takeover": "state", "state": len(state), "sockets": len(sockets), "clients": len(clients)}
            self._link.send(message, [each.fileno() for each in (*sockets, *clients)])
            self._link.send_memory(state)
        finally:
            wipe(state)

    def forget(self) -> None:
        """Wipe all keys that the other process uses now."""
        self._running.device.forget_sessions()

    def go_on(self) -> None:
        """Work as if nothing had happened."""
        if self._suspended:
            self._running.device.resume()
            self._running.server.resume()

    def recover(self) -> str:
        """Work again, with new keypairs."""
        self._running.device.resume(renew=True)
        self._running.server.resume()
        return "makes new keypairs"

    def give_away(self) -> None:
        """Leave everything to the other process and end, even if a part of that fails."""
        running = self._running
        with ExitStack() as stack:  # The last one first.
            stack.callback(running.given, self._link.pid)
            stack.callback(running.device.give_away)
            stack.callback(running.server.give_away)
            stack.callback(give_away, running.adapter)
            log.info(f"{running.name} is run by process {self._link.pid} now")
