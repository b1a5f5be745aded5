"""The new process of a takeover: it goes on with the device."""

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from threepipe.adapter import adopt, claim
from threepipe.backend import Share
from threepipe.errors import EndpointError
from threepipe.net.connect import remover
from threepipe.pump import give_kept, wait_until_pumped
from threepipe.session import Session
from threepipe.takeover import SECONDS_TO_ANSWER, SECONDS_TO_BEGIN
from threepipe.takeover import Taking as AnyTaking
from threepipe.wireguard import clock
from threepipe.wireguard.device import Device
from threepipe.wireguard.keys import generate_key, public_key
from threepipe.wireguard.next_hops import NextHopRouting
from threepipe.wireguard.peer_endpoint import to_socket
from threepipe.wireguard.settings import Change, PeerChange
from threepipe.wireguard.state import Reader, Writer, read_packets, wipe
from threepipe.wireguard.takeover.exchange import VERSION
from threepipe.wireguard.tunnel import Event, Tunnel
from threepipe.wireguard.uapi_socket import FOLDER, Listening, stop_listening, takeover_path

__all__ = ["Taking"]


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


class Taking(AnyTaking):
    """One takeover of a device at the new process. Call its methods in their order.

    Until `confirm` has returned, the device may be the old process's again, so closing its parts has to change
    nothing. Adapter and device see to that by themselves, and `confirmed` tells the caller.
    """

    def __init__(self, name: str, kind: str, folder: Path = FOLDER) -> None:
        """Connect to the process that runs the device `name`. Raises `EndpointError` and `InvalidSetting`."""
        path = takeover_path(name, folder)
        if not path.exists():
            advice = f"is {name} running, by threepipe, on Linux?"
            raise EndpointError(errno.ENOENT, f"{name} cannot be taken over: {path} is missing; {advice}")
        self._kind = kind
        self.confirmed = False
        """True once the device is this process's for good."""
        self._resumed = False
        self._device: Device | None = None
        super().__init__(name, path)

    def ask(self) -> None:
        """Get settings, adapter and descriptors. Raises `EndpointError`, and the error of the old process."""
        offer, numbers = self.greet(self._kind, VERSION, clock=clock.now())
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
        settings = self._link.receive_memory(offer["settings"], SECONDS_TO_ANSWER)
        self.settings = settings.decode()
        _load()

    def take(
        self,
        inside: Session,
        on_event: Callable[[Event], None] | None = None,
        routing: NextHopRouting | None = None,
    ) -> Device:
        """Have the old process stop, and return the device, which is suspended; `inside` is the adapter's session.

        Keep the time until `begin` short. Raises `EndpointError`.
        """
        message, numbers = self.stop()
        sockets = [socket.socket(fileno=number) for number in numbers]
        udp, self.clients = sockets[: message["sockets"]], sockets[message["sockets"] :]
        for each in sockets:
            self._undo.callback(each.close)
        state = self._link.receive_memory(message["state"], SECONDS_TO_ANSWER)
        try:
            reader = Reader(state)
            give_kept(inside, read_packets(reader))
            self._device = Device.resumed(reader, udp, on_event, routing)
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
        self.claim()
        self._resumed = True
        self._device.resume()

    def confirm(self, inside: Session) -> None:
        """Wait until a pipe uses the session, and have the old process end. Raises `EndpointError` without a pipe."""
        if not wait_until_pumped(inside, SECONDS_TO_BEGIN):
            raise EndpointError(errno.EIO, f"{self._name}: no packets pass")
        self.finish()
        self.confirmed = True
        claim(self.adapter)
        for listening in (self.management, self.takeover):
            with suppress(OSError):  # Somebody has removed the file, which ends the device once it is served.
                listening.remove = remover(listening.getsockname())
