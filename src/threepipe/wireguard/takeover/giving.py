"""The running process of a takeover: it hands its device over."""

import errno
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from threepipe import platforms
from threepipe.adapter import Adapter, give_away, share
from threepipe.backend import HandoverLink
from threepipe.errors import AdapterUnavailable, EndpointError, ThreepipeError, text_of
from threepipe.net.doorbell import Doorbell
from threepipe.pump import kept
from threepipe.session import Session
from threepipe.wireguard import clock
from threepipe.wireguard.device import Device
from threepipe.wireguard.state import Writer, wipe, write_packets
from threepipe.wireguard.takeover.exchange import (
    CLOCKS_DIFFER,
    SECONDS_TO_ANSWER,
    SECONDS_TO_BEGIN,
    SECONDS_TO_PREPARE,
    VERSION,
)
from threepipe.wireguard.uapi_server import UapiServer
from threepipe.wireguard.uapi_socket import FOLDER, Listening, takeover_path

__all__ = ["Giving", "Running", "handing_over"]

log = logging.getLogger("threepipe")


@dataclass(frozen=True)
class Running:
    """A running device with its adapter, and what else its process hands over."""

    name: str
    kind: str
    """The command that runs it, which the new process must be too."""
    adapter: Adapter
    inside: Session
    device: Device
    server: UapiServer
    given: Callable[[int], None]
    """Called with the number of the new process once that has everything, with the device's own parts given away."""
    settings: str = ""
    """A text for the new process, which has its meaning for this kind alone."""
    descriptors: Sequence[int] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def handing_over(running: Running, listening: Listening | None = None, folder: Path = FOLDER) -> Iterator[None]:
    """Let other processes take the device over while the block runs.

    `listening` is the socket of the process that it was taken from. Where adapters cannot be taken over, do nothing.
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
    server = _Server(running, listening)
    try:
        yield
    finally:
        server.close()


class _Server:
    """Serves one new process after another, in a thread of its own, until one has taken the device over."""

    def __init__(self, running: Running, listening: Listening) -> None:
        self._running, self._listening = running, listening
        listening.setblocking(False)
        self._bell = Doorbell()
        self._given = False
        self._thread = threading.Thread(target=self._run, name="threepipe-takeover", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a takeover that has not come to `mine` fails, and one that has is complete."""
        self._bell.ring(for_ever=True)
        self._thread.join()
        if not self._given:
            self._listening.remove()
        self._listening.close()
        self._bell.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while not self._given and all(key.fileobj is not self._bell for key, _ in selector.select()):
                self._serve()

    def _serve(self) -> None:
        try:
            link = platforms.accept_handover(self._listening)
        except (ThreepipeError, OSError) as error:
            if not isinstance(error, BlockingIOError):
                log.warning(f"{self._running.name}: a takeover failed: {text_of(error)}")
            return
        giving = Giving(self._running, link, self._listening, self._bell)
        try:
            giving.run()
        except (ThreepipeError, OSError) as error:
            log.warning(f"{self._running.name}: a takeover failed: {text_of(error)}")
            link.send_error(error)
        except Exception as error:  # Another process may still take the device over.
            log.exception(f"{self._running.name}: a takeover failed, by a defect of one of the two processes")
            link.send_error(error)
        finally:
            self._given = giving.given
            link.close()


class Giving:
    """One takeover at the running process. Each step is a method."""

    def __init__(self, running: Running, link: HandoverLink, listening: socket.socket, bell: Doorbell) -> None:
        """`bell` is rung when this process is to end anyway."""
        self._running, self._link, self._listening, self._bell = running, link, listening, bell
        self._suspended = False
        self._late = False  # True if it said `mine` when it was about to be refused; it can say nothing more then.
        self.given = False
        """True if the device is the other process's now."""

    def run(self) -> None:
        """Hand the device over, and set `given`. Raises what went wrong; without `given` the device works on then."""
        self.greet()
        self.offer()
        self.wait_for("prepared", SECONDS_TO_PREPARE)
        try:
            self.suspend()
            self.send_state()
            self.wait_for("mine", SECONDS_TO_BEGIN)
        except Exception as error:
            if self.refuse():
                self.go_on()
                raise
            log.warning(f"{self._running.name}: {error}; process {self._link.pid} has the device all the same")
        self.given = True  # Whatever fails here from now on, the other process has the keys; unless it fails itself.
        try:
            self.forget()
            self.given = self._late or self.wait_for_running()
        finally:
            if self.given:
                self.give_away()
        if not self.given:
            self.recover()
            raise EndpointError(errno.ECONNRESET, "the new process has ended, so this one makes new keypairs")

    def greet(self) -> None:
        """Check what the other process says it is."""
        running = self._running
        hello = self.wait_for("hello", SECONDS_TO_ANSWER)
        if hello.get("version") != VERSION:
            text = f"{running.name} has version {VERSION} of the takeover, and the new process {hello.get('version')}"
            raise EndpointError(errno.EPROTO, f"{text}; take it down, and up again")
        if hello.get("kind") != running.kind:
            text = f"{running.name} is run by {running.kind}, and the new process is {hello.get('kind')}"
            raise EndpointError(errno.EPROTO, f"{text}; use {running.kind}")
        if hello.get("scope") != platforms.network_scope():
            text = f"{running.name} is in another network namespace than the new process; start that one there"
            raise EndpointError(errno.EPROTO, text)
        if not abs(hello.get("clock", 0.0) - clock.now()) < CLOCKS_DIFFER:
            text = f"{running.name} is in another time namespace than the new process; start that one there"
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
        """Stop all work. What arrives waits in the kernel."""
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

    def refuse(self) -> bool:
        """Return True if the other process cannot have the device any more, and False if it has said `mine` before."""
        message = self._link.revoke()
        self._late = message is not None and message.get("takeover") == "mine"
        return not self._late

    def forget(self) -> None:
        """Wipe all keys that the other process uses now."""
        self._running.device.forget_sessions()

    def wait_for_running(self) -> bool:
        """Wait until the other process says that packets pass. Return False if it has ended, or has failed."""
        try:
            self.wait_for("running", None)
        except _Ending:
            return True  # It has the keys.
        except ThreepipeError as error:
            log.warning(f"{self._running.name}: {text_of(error)}")
            return False
        return True

    def go_on(self) -> None:
        """Work as if nothing had happened."""
        if self._suspended:
            self._running.device.resume()
            self._running.server.resume()

    def recover(self) -> None:
        """Work again, with new keypairs."""
        self._running.device.resume(renew=True)
        self._running.server.resume()

    def give_away(self) -> None:
        """Leave everything to the other process, and end, also if a part of it fails."""
        running = self._running
        with ExitStack() as stack:  # The last one first.
            stack.callback(running.given, self._link.pid)
            stack.callback(running.device.give_away)
            stack.callback(running.server.give_away)
            stack.callback(give_away, running.adapter)
            log.info(f"{running.name} is run by process {self._link.pid} now")

    def wait_for(self, step: str, seconds: float | None) -> dict[str, Any]:
        """Return the message of a step. Raises its error, and `EndpointError`, also if this process is to end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._link, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(seconds)]
        if self._bell in ready:
            raise _Ending(errno.ECANCELED, f"{self._running.name} is about to end, so it cannot be taken over")
        if not ready:
            raise EndpointError(errno.ETIMEDOUT, f"the new process has not said {step} within {seconds:.0f} s")
        message, numbers = self._link.receive(seconds)
        for number in numbers:
            os.close(number)  # It has no use for any.
        if message.get("takeover") != step:
            raise EndpointError(errno.EPROTO, f"the new process did not say {step}; it is no threepipe")
        return message


class _Ending(EndpointError):
    """This process is to end."""
