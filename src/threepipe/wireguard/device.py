"""Device: a WireGuard device with its thread, made of a `Tunnel` and of a port with UDP sockets.

What peers send is received from `session`, and what is sent there goes to them: with an adapter it is
`threepipe.pipe(adapter_session, device.session)`. Packets pass in the threads of whoever uses the session; one thread
of the device's own does what is due by time. Knows no adapter, no files and no tools.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Self

from threepipe.net.doorbell import Doorbell
from threepipe.session import Session, close_with, interrupt
from threepipe.wireguard.constants import Timing
from threepipe.wireguard.peer import NEVER
from threepipe.wireguard.port import DevicePort
from threepipe.wireguard.settings import Change, PeerChange, Status
from threepipe.wireguard.sockets import mark, open_sockets
from threepipe.wireguard.tunnel import Event, Tunnel

__all__ = ["Device"]

log = logging.getLogger("threepipe")


class Device:
    """A WireGuard device; `close` or `with` ends it. Thread-safe.

    ```
    with wireguard.Device(private_key=key, listen_port=51820, peers=[PeerChange(...)]) as device:
        threepipe.pipe(adapter.start_session(), device.session)
    ```
    """

    def __init__(
        self,
        *,
        private_key: bytes | None = None,
        listen_port: int = 0,
        fwmark: int = 0,
        peers: Iterable[PeerChange] = (),
        mtu: int = 0,
        timing: Timing | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """`listen_port` 0 is one that the system chooses. `mtu`, in bytes, is beyond what packets are not padded.

        `on_event` is called, in a thread of the device's, with what happens to peers; it has to be quick. Raises
        `EndpointError` where a port or a mark cannot be had, and `InvalidSetting`.
        """
        asked = Change(private_key, listen_port, fwmark, peers=tuple(peers))
        asked.check()
        self._tunnel = Tunnel(timing=timing, unix_offset=time.time() - time.monotonic())
        self._on_event = on_event
        self._lock = threading.Lock()
        self._port = DevicePort(self._tunnel, self._lock, self._look_at_timer)
        self.mtu = mtu
        self._fwmark = 0
        self._bell = Doorbell()
        self._asleep_until = NEVER
        self._closed = False
        self.session = Session(self._port)
        """The inside: an endpoint, whose packets are those of the peers."""
        close_with(self.session, self)
        self._thread = threading.Thread(target=self._run, name="threepipe-wireguard", daemon=True)
        try:
            self._port.use(open_sockets(listen_port, fwmark))
            self._fwmark = fwmark
            self.configure(replace(asked, listen_port=None))
        except BaseException:
            self._port.wake()
            self._port.stop()
            self._port.dispose()
            self._bell.close()
            raise
        self._thread.start()

    def configure(self, change: Change) -> None:
        """Carry out `change`, while packets go on passing. Raises as the constructor, and nothing is done then.

        A listen port of 0 is another one that the system chooses, as with wg(8).
        """
        change.check()
        fwmark = self._fwmark if change.fwmark is None else change.fwmark
        if change.listen_port is not None and change.listen_port != self._port.listen_port:
            self._port.use(open_sockets(change.listen_port, fwmark))
            interrupt(self.session)  # A native loop goes on with the new sockets.
        elif fwmark != self._fwmark:
            mark(self._port.datagrams, fwmark)
        self._fwmark = fwmark
        with self._lock:
            self._tunnel.configure(change, time.monotonic())
        self._port.flush()
        self._look_at_timer()

    def status(self) -> Status:
        """What it is set to, and how its peers are."""
        with self._lock:
            status = self._tunnel.status()
        return Status(status.private_key, status.public_key, self._port.listen_port, self._fwmark, status.peers)

    @property
    def mtu(self) -> int:
        """Bytes beyond which packets are not padded; 0 for no limit. May be set at any time."""
        return self._tunnel.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        self._port.set_mtu(mtu)

    @property
    def rejected(self) -> dict[str, int]:
        """How many datagrams and packets were dropped, by reason."""
        with self._lock:
            return dict(self._tunnel.rejected + self._port.rejected())

    def close(self) -> None:
        """End all traffic, wipe all keys, and close the sockets. May be repeated."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        self._bell.ring(for_ever=True)
        self.session.close()
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._tunnel.configure(Change(bytes(32), replace_peers=True), time.monotonic())
        self._bell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look_at_timer(self) -> None:
        """Have the thread look when it is to do something, where that is earlier than it thinks; and tell events."""
        with self._lock:
            wanted = self._tunnel.timer < self._asleep_until or (self._tunnel.events and self._on_event)
        if wanted:
            self._bell.ring()

    def _run(self) -> None:
        while not self._closed:
            with self._lock:
                self._tunnel.handle_timers(time.monotonic())
                self._asleep_until = self._tunnel.timer
                events = list(self._tunnel.events)
                self._tunnel.events.clear()
            self._port.flush()
            if self._on_event is not None:
                for event in events:
                    self._tell(self._on_event, event)
            if self._closed:
                return  # By who was told of an event, for one.
            timeout = self._asleep_until - time.monotonic()
            self._bell.wait(None if timeout == NEVER else max(timeout, 0))
            self._bell.clear()

    @staticmethod
    def _tell(listener: Callable[[Event], None], event: Event) -> None:
        try:
            listener(event)
        except Exception:
            log.exception("on_event raised, for %s", event.name)  # What is due by time goes on.
