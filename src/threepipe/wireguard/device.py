"""Device: a WireGuard device, made of a `Tunnel`, a port with UDP sockets, and a thread for the timers.

The packets of its peers pass through `session`; with an adapter that is `threepipe.pipe(adapter_session,
device.session)`. The threads that use the session seal and open them; the device's own thread does the work
of the timers. It knows no adapter, no files and no tools.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from ipaddress import IPv6Address
from types import TracebackType
from typing import Self

from threepipe.errors import SessionClosed
from threepipe.net.doorbell import Doorbell
from threepipe.net.forks import call_in_child
from threepipe.pump import give_kept, interrupt, kept, pause, resume
from threepipe.session import Session, close_with
from threepipe.settings import MAX_MTU
from threepipe.wireguard import clock
from threepipe.wireguard.constants import Timing
from threepipe.wireguard.keys import link_local, public_key
from threepipe.wireguard.next_hops import NextHopRouting, Routes
from threepipe.wireguard.peer import NEVER
from threepipe.wireguard.port import DevicePort
from threepipe.wireguard.settings import Change, PeerChange, Status
from threepipe.wireguard.sockets import mark, open_sockets, take_sockets
from threepipe.wireguard.state import Reader, Writer, read_packets, read_runs, write_packets, write_runs
from threepipe.wireguard.tunnel import Event, Tunnel
from threepipe.wireguard.values import KEY_SIZE, KeyLike, key_to_text, to_kind, to_number

__all__ = ["Device"]

log = logging.getLogger("threepipe")

_OUTDATED = (
    "peer %s: a handshake from %s was refused, as its timestamp is %.0f s older than the last one accepted: a replay,"
    " or the peer's clock was set back. If that clock is right now, remove the peer here and add it again"
)


class Device:
    """A WireGuard device from values. Programs use the subclass of `opening`, which also reads files."""

    def __init__(
        self,
        *,
        private_key: KeyLike | None = None,
        listen_port: int = 0,
        fwmark: int = 0,
        peers: Iterable[PeerChange] = (),
        mtu: int = 0,
        timing: Timing | None = None,
        on_event: Callable[[Event], None] | None = None,
        routing: NextHopRouting | None = None,
    ) -> None:
        """Open the sockets and start the thread. Raises `InvalidSetting`, and `EndpointError` for a port or mark.

        The key is given as 32 bytes or in base64.

        The system chooses the port if `listen_port` is 0. Padding never makes a packet longer than `mtu` bytes (0: no
        limit). `on_event` is called in the device's thread for each event of a peer, and has to return soon.
        If it raises, the users of the session get its exception, and the device does no more.

        With `routing`, packets are for the peers that are their next hops, in place of those that have their
        destinations as allowed IPs. The device closes its routes, also if this raises.
        """
        settings = Change(private_key, listen_port, fwmark, peers=peers)
        mtu = to_number(mtu, "mtu", MAX_MTU)
        routes = None if routing is None else routing.routes
        with self._made_of(Tunnel(timing=timing, routing=routing), on_event, routes):
            self.mtu = mtu
            self._port.use(open_sockets(listen_port, fwmark))
            self._fwmark = fwmark
            self.configure(replace(settings, listen_port=None))
        for thread in self._threads:
            thread.start()

    @classmethod
    def resumed(
        cls,
        state: Reader,
        sockets: Sequence[socket.socket],
        on_event: Callable[[Event], None] | None = None,
        routing: NextHopRouting | None = None,
    ) -> Self:
        """Return a device that goes on from the state of another one, which stays suspended; it is suspended as well.

        `sockets` are those of the other one, and belong to the new one; `routing` has its networks, and the interface's
        routes. Call `resume` if the other one does not go on, else `give_away`. Raises ValueError for a damaged state.
        """
        device, tunnel = cls.__new__(cls), Tunnel(routing=routing)
        fwmark = state.number()
        unsent = list(read_runs(state))
        kept = read_packets(state)
        tunnel.read_state(state)
        with device._made_of(tunnel, on_event, None if routing is None else routing.routes):
            device.mtu = tunnel.mtu
            device._port.use(take_sockets(sockets))
            device._fwmark = fwmark
            device._port.give_unsent(unsent)
            give_kept(device.session, kept)
            device._stop_working()
        for thread in device._threads:
            thread.start()
        return device

    @contextmanager
    def _made_of(
        self, tunnel: Tunnel, on_event: Callable[[Event], None] | None, routes: Routes | None
    ) -> Iterator[None]:
        """Set all attributes, and close everything if the block raises."""
        self._tunnel = tunnel
        self._routes = routes
        self._own_address: IPv6Address | None = None
        self._on_event = on_event
        self._port = DevicePort(self._tunnel, self._wake_for_timer)
        self._fwmark = 0
        self._bell = Doorbell()
        self._changing = threading.Lock()  # Held by `configure`, so that changes take turns, and by `close`.
        self._working = threading.Lock()  # Held by each thread while it may send.
        self._lock = threading.Lock()  # For the two that follow.
        self._asleep_until = NEVER
        self._closed = self._given = False
        self.session = Session(self._port)
        """The inside of the device: an endpoint whose packets are those of the peers."""
        close_with(self.session, self)
        call_in_child(self, Device._leave_behind)
        self._threads = [threading.Thread(target=self._run, name="threepipe-wireguard", daemon=True)]
        if self._routes is not None:
            follow = partial(self._follow_routes, self._routes)
            self._threads.append(threading.Thread(target=follow, name="threepipe-routes", daemon=True))
        try:
            yield
        except BaseException:
            self._port.wake()
            self._port.stop()
            self._port.dispose()
            self._bell.close()
            if self._routes is not None:
                self._routes.close()
            raise

    def configure(self, change: Change) -> None:
        """Carry out `change` while packets pass. Raises as the constructor does, and changes nothing then.

        For a listen port of 0 the system chooses a new one, as with wg(8). Changes of several threads are carried out
        one after another. Raises `SessionClosed` once the device is closed.
        """
        to_kind(change, Change, "configure", "give a Change")
        with self._changing:
            self._check_open()
            self._configure(change)

    def _check_open(self) -> None:
        if self._closed or self._given or self.session.closed:
            raise SessionClosed("the device is closed; make a new one")

    def _configure(self, change: Change) -> None:
        if change.private_key is not None:
            self._use_address_of(change.private_key)
        fwmark = self._fwmark if change.fwmark is None else change.fwmark
        if change.listen_port is not None and change.listen_port != self._port.listen_port:
            self._port.use(open_sockets(change.listen_port, fwmark))
            interrupt(self.session)  # A native loop goes on with the new sockets.
        elif fwmark != self._fwmark:
            mark(self._port.datagrams, fwmark)
        self._fwmark = fwmark
        self._tunnel.configure(change, clock.now())
        self._port.flush()

    def _use_address_of(self, private_key: bytes) -> None:
        """Give the interface of a mesh the link-local address of the key, unless it has that."""
        if self._routes is not None:
            address = link_local(public_key(private_key)) if any(private_key) else None
            if address != self._own_address:
                self._routes.use_address(address)
                self._own_address = address

    def status(self) -> Status:
        """Return the settings of the device, and the state of its peers."""
        status = self._tunnel.status(clock.now())
        return replace(status, listen_port=self._port.listen_port, fwmark=self._fwmark)

    @property
    def mtu(self) -> int:
        """Padding never makes a packet longer than this many bytes; 0 for no limit. May be set at any time."""
        return self._tunnel.mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        self._port.set_mtu(to_number(mtu, "mtu", MAX_MTU))

    @property
    def rejected(self) -> dict[str, int]:
        """The numbers of dropped datagrams and packets, by reason."""
        return dict(self._port.rejected())

    # For another process, which goes on in place of this device.

    def suspend(self) -> None:
        """Stop all work of a device whose session a pipe uses, until `resume`: nothing is sealed, opened or sent.

        What arrives meanwhile waits in the sockets, and at the other end of the pipe. Raises `SessionClosed`.
        """
        with self._changing:
            self._check_open()
        self._stop_working()
        self._port.flush()

    def _stop_working(self) -> None:
        self._changing.acquire()
        pause(self.session)
        self._working.acquire()

    def write_state(self, state: Writer) -> None:
        """Write all that `resumed` needs besides the sockets. Call it while the device is suspended."""
        state.number(self._fwmark)
        write_runs(state, self._port.unsent())
        write_packets(state, kept(self.session))
        self._tunnel.write_state(state)

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The UDP sockets, one for each family."""
        return [datagrams.socket for datagrams in self._port.datagrams]

    def forget_sessions(self) -> None:
        """Wipe all keypairs of the suspended device, as another one goes on with them."""
        self._port.give_unsent([])
        self._tunnel.forget_sessions()

    def resume(self, *, renew: bool = False) -> None:
        """Go on after `suspend`. With `renew`, after `forget_sessions`, make new keypairs with all peers."""
        if renew:
            self._tunnel.renew_sessions(clock.now())
        self._port.flush()
        self._working.release()
        resume(self.session)
        try:
            self._use_address_of(self._tunnel.private_key)  # The interface has it; the new device's routes do not know.
        finally:
            self._changing.release()
        self._bell.ring()

    def give_away(self) -> None:
        """Close the suspended device, which sends nothing any more: another process goes on."""
        self._given = True
        self.forget_sessions()
        self._working.release()
        self._changing.release()
        self.close()

    def close(self) -> None:
        """End all traffic, wipe all keys and close the sockets. May be called again."""
        with self._changing, self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        self._bell.ring(for_ever=True)
        self.session.close()
        if self._routes is not None:
            self._routes.close()
        for thread in self._threads:
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join()
        self._tunnel.configure(Change(bytes(KEY_SIZE), replace_peers=True), clock.now())
        self._bell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _leave_behind(self) -> None:
        """Close this copy in a forked child; its tunnel wipes the keys, and the parent's device goes on."""
        self._changing, self._working, self._lock = threading.Lock(), threading.Lock(), threading.Lock()
        self._closed = True
        self._port.abandon()

    def _wake_for_timer(self) -> None:
        """Wake the thread if its next timer is earlier than it expects, or if there is an event to report."""
        with self._lock:
            wake = self._tunnel.timer < self._asleep_until or self._tunnel.events
        if wake:
            self._bell.ring()

    def _run(self) -> None:
        try:
            self._keep_time()
        except BaseException as error:  # Of `on_event`, or a fault of ours.
            self._port.fail(error)
            interrupt(self.session)

    def _follow_routes(self, routes: Routes) -> None:
        try:
            while (networks := routes.changes()) is not None:
                with self._working:
                    if self._given:
                        return
                    self._tunnel.change_routes(networks)
                    self._port.flush()  # Tells the router.
        except BaseException as error:
            self._port.fail(error)
            interrupt(self.session)

    def _keep_time(self) -> None:
        while not self._closed:
            with self._working:
                if self._given:
                    return
                self._tunnel.handle_timers(clock.now())
                with self._lock:
                    self._asleep_until = self._tunnel.timer
                self._port.flush()
            self._report_events()
            if self._closed:
                return  # An event's listener may have closed the device.
            timeout = self._asleep_until - clock.now()
            self._bell.wait(None if timeout == NEVER else min(max(timeout, 0), clock.LONGEST_WAIT))
            self._bell.clear()

    def _report_events(self) -> None:
        while self._tunnel.events:
            event = self._tunnel.events.popleft()
            if event.name == "outdated":
                log.warning(_OUTDATED, key_to_text(event.public_key), event.endpoint, event.seconds)
            if self._on_event is not None:
                self._on_event(event)
