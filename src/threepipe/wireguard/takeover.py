"""Takeover: another process goes on with a running device, and no packet is lost.

The running process listens at a Unix socket of its own, `NAME.takeover` beside the management socket. These are the
steps; the new process is on the left:

    hello       ->              who it is, and the version of this exchange
                <- offer        descriptors of the adapter, the listening sockets and the journal; the settings
    prepared    ->              it has loaded everything; only now does the running process stop
                <- state        UDP sockets and clients; keys, counters, replay windows, timers, peers, kept packets
    mine        ->              from here on, only the new process seals and opens
    running     ->              packets pass in both directions; the old process ends

From `prepared` on the old process stands still, and packets wait in the kernel's queues of adapter and sockets. A
process that ends closes its connection, however it ends. So if anything fails before `mine`, the old process goes on
as if nothing had happened. At `mine` it wipes its keys, as a counter that two processes use gives away what both
messages say. If the new process ends between `mine` and `running`, the old one goes on with new handshakes, as it does
not know the last counters, nor the messages that the new one has accepted. A message that arrives after a refusal
(`revoke`) cannot be lost, so both always agree on whose the device is.

Secrets pass through memory alone, which is wiped after use.
"""

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
from typing import Any, Self

from threepipe import platforms
from threepipe.adapter import Adapter, adopt, claim, give_away, share
from threepipe.backend import HandoverLink, Share
from threepipe.errors import AdapterUnavailable, EndpointError, ThreepipeError, text_of
from threepipe.net.connect import remover
from threepipe.net.doorbell import Doorbell
from threepipe.pump import give_kept, kept, wait_until_pumped
from threepipe.session import Session
from threepipe.wireguard import clock
from threepipe.wireguard.device import Device
from threepipe.wireguard.keys import generate_key, public_key
from threepipe.wireguard.peer_endpoint import to_socket
from threepipe.wireguard.settings import Change, PeerChange
from threepipe.wireguard.state import Reader, Writer, read_packets, wipe, write_packets
from threepipe.wireguard.tunnel import Event, Tunnel
from threepipe.wireguard.uapi_server import UapiServer
from threepipe.wireguard.uapi_socket import FOLDER, Listening, stop_listening, takeover_path

__all__ = ["VERSION", "Running", "Taking", "handing_over"]

VERSION = 1
"""The version of the exchange, and of the layout of `state`. A process refuses another one."""

_SECONDS_TO_ANSWER = 10.0
_SECONDS_TO_PREPARE = 60.0  # The device works meanwhile.
_SECONDS_TO_BEGIN = 5.0  # The device stands still meanwhile.
_CLOCKS_DIFFER = 30.0  # Seconds; more than a message takes. Another time namespace has another clock.

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
        self.wait_for("prepared", _SECONDS_TO_PREPARE)
        try:
            self.suspend()
            self.send_state()
            self.wait_for("mine", _SECONDS_TO_BEGIN)
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
        hello = self.wait_for("hello", _SECONDS_TO_ANSWER)
        if hello.get("version") != VERSION:
            text = f"{running.name} has version {VERSION} of the takeover, and the new process {hello.get('version')}"
            raise EndpointError(errno.EPROTO, f"{text}; take it down, and up again")
        if hello.get("kind") != running.kind:
            text = f"{running.name} is run by {running.kind}, and the new process is {hello.get('kind')}"
            raise EndpointError(errno.EPROTO, f"{text}; use {running.kind}")
        if hello.get("scope") != platforms.network_scope():
            text = f"{running.name} is in another network namespace than the new process; start that one there"
            raise EndpointError(errno.EPROTO, text)
        if not abs(hello.get("clock", 0.0) - clock.now()) < _CLOCKS_DIFFER:
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


def _load() -> None:
    """Load the modules that a state and its sockets need, as that takes longer than all else while packets wait."""
    tunnel, writer = Tunnel(), Writer()
    endpoint = ("127.0.0.1", 1)
    peer = PeerChange(public_key(generate_key()), endpoint=endpoint, persistent_keepalive=1)
    tunnel.configure(Change(generate_key(), peers=[peer]), 0.0)  # With a handshake, which is not sent.
    tunnel.write_state(writer)
    state = writer.joined()
    Tunnel().read_state(Reader(state))
    wipe(state)
    to_socket(endpoint)


class Taking:
    """One takeover at the new process, until the end of a `with` block. Call its methods in their order.

    Until `confirm` has returned, the device may be the old process's again, so closing what was taken has to change
    nothing. Adapter and device see to that by themselves, and `confirmed` tells the caller.
    """

    def __init__(self, name: str, kind: str, folder: Path = FOLDER) -> None:
        """Connect to the process that runs the device `name`. Raises `EndpointError` and `InvalidSetting`."""
        path = takeover_path(name, folder)
        if not path.exists():
            advice = f"is {name} running, by threepipe, on Linux, without Routing?"
            raise EndpointError(errno.ENOENT, f"{name} cannot be taken over: {path} is missing; {advice}")
        self._name, self._kind = name, kind
        self._folder = folder
        self._stopped_at = 0.0
        self.confirmed = False
        """True once the device is this process's for good."""
        self._resumed = False
        self._device: Device | None = None
        self._undo = ExitStack()
        self._link = platforms.connect_handover(path, _SECONDS_TO_ANSWER)
        self._undo.callback(self._link.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def ask(self) -> None:
        """Get settings, adapter and descriptors. Raises `EndpointError`, and the error of the old process."""
        hello = {
            "takeover": "hello",
            "version": VERSION,
            "kind": self._kind,
            "scope": platforms.network_scope(),
            "clock": clock.now(),
        }
        self._link.send(hello)
        offer, numbers = self._link.receive(_SECONDS_TO_ANSWER)
        name, index, form, count = offer["share"]
        self.facts: dict[str, Any] = offer["facts"]
        self.adapter = adopt(Share(name, index, form, numbers[:count]))
        self._undo.callback(self.adapter.close)
        management, takeover, *self.descriptors = numbers[count:]
        self.management, self.takeover = (
            Listening(socket.socket(fileno=number), lambda: None) for number in (management, takeover)
        )
        for listening in (self.management, self.takeover):
            self._undo.callback(stop_listening, listening)
        settings = self._link.receive_memory(offer["settings"], _SECONDS_TO_ANSWER)
        self.settings = settings.decode()
        _load()

    def take(self, inside: Session, on_event: Callable[[Event], None] | None = None) -> Device:
        """Have the old process stop, and return the device, which is suspended; `inside` is the adapter's session.

        Keep the time until `begin` short. Raises `EndpointError`.
        """
        self._stopped_at = clock.now()
        self._link.send({"takeover": "prepared"})
        message, numbers = self._link.receive(_SECONDS_TO_ANSWER)
        sockets = [socket.socket(fileno=number) for number in numbers]
        udp, self.clients = sockets[: message["sockets"]], sockets[message["sockets"] :]
        for each in sockets:
            self._undo.callback(each.close)
        state = self._link.receive_memory(message["state"], _SECONDS_TO_ANSWER)
        try:
            reader = Reader(state)
            give_kept(inside, read_packets(reader))
            self._device = Device.resumed(reader, udp, on_event)
        except ValueError as error:
            raise EndpointError(errno.EPROTO, f"{self._name}: {error}; take it down, and up again") from None
        finally:
            wipe(state)
        return self._device

    def leave(self) -> None:
        """Close the device, which sends nothing, unless it was begun."""
        device, self._device = self._device, None
        if device is not None and not self._resumed:
            device.give_away()

    def begin(self) -> None:
        """Tell the old process that the device is this one's, and begin. Raises `EndpointError` if it has gone back."""
        assert self._device is not None
        self._link.send({"takeover": "mine"})
        self._resumed = True
        self._device.resume()

    def confirm(self, inside: Session) -> None:
        """Wait until a pipe uses the session, and have the old process end. Raises `EndpointError` without a pipe."""
        if not wait_until_pumped(inside, _SECONDS_TO_BEGIN):
            raise EndpointError(errno.EIO, f"{self._name}: no packets pass")
        try:
            self._link.send({"takeover": "running"})
        except EndpointError as error:
            log.info(f"{self._name}: {text_of(error)}")  # It was killed, and this process has everything.
        waited = (clock.now() - self._stopped_at) * 1000
        log.info(f"{self._name} was taken over; packets waited for {waited:.1f} ms at most")
        self.confirmed = True
        claim(self.adapter)
        for listening in (self.management, self.takeover):
            listening.remove = remover(listening.getsockname())
