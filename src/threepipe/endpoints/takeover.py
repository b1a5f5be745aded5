"""Takeover of a pipe: another process goes on with both its ends, and no packet is lost.

The steps are those of `threepipe.takeover`; the socket is `PID.takeover` beside the one by which captures find the
pipe. `offer` has the two addresses, which the new process was given too. `state` has adapters and sockets, the parts of
records that were read or not yet written, and packets that wait for room at the other end. Filters and captures are
made anew; so the old process empties those that delay packets first.

If the new process ends between `mine` and `running`, the old one goes on, but breaks off the connections of streams, as
it does not know which parts of records the new one has read or written.
"""

import errno
import json
import logging
import os
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from threepipe import platforms
from threepipe.backend import HandoverLink
from threepipe.capture.client import PREFIX, TAKEOVER_SUFFIX, running_pipes
from threepipe.core.pump import PAUSE
from threepipe.endpoints.address import EndpointAddress
from threepipe.endpoints.kinds import NEW_NAMESPACE
from threepipe.endpoints.parts import Part, Taken
from threepipe.endpoints.request import Side
from threepipe.errors import AdapterUnavailable, EndpointError, InvalidSetting, text_of
from threepipe.net.doorbell import Doorbell
from threepipe.platforms import runtime_folder
from threepipe.pump import give_kept, kept, pause, resume, wait_until_idle
from threepipe.session import Session
from threepipe.takeover import SECONDS_TO_ANSWER, SECONDS_TO_BEGIN, Server
from threepipe.takeover import Giving as AnyGiving
from threepipe.takeover import Taking as AnyTaking

__all__ = ["End", "Giving", "Running", "Taking", "check_can_be_taken", "handing_over", "wait_for_turn"]

log = logging.getLogger("threepipe")

KIND = "threepipe pipe"
VERSION = 1
"""The version of the exchange, and of the layout of `state`. A process refuses another one."""

_REASONS: Mapping[str, str] = {
    "tls": "the keys of its connection stay in its process",
    "tls-listen": "the keys of its connection stay in its process",
    "stdio": "its standard input and output belong to its process",
    "exec": "its program is a child of its process",
    "fd": "its descriptor is from the program that started it",
    "pcap": "its place in the file stays in its process",
    "wg": "its keys stay in its process; use threepipe wg up, which has a --takeover of its own",
    "echo": "its answers stay in its process",
    "discard": "it has nothing to hand over",
    "memory": "it is memory of its process",
}
"""Kind -> why another process cannot go on with it."""


def check_can_be_taken(address: EndpointAddress) -> None:
    """Raise `InvalidSetting` if another process cannot go on with the end at `address`."""
    options = address.options
    reason = _REASONS.get(address.kind.name)
    if "default-route" in options:
        reason = "the routing rules of default-route are its process's to remove"
    if options.get("netns") == NEW_NAMESPACE:
        reason = "its new namespace ends with its process"
    if reason is not None:
        text = f"{address.text} cannot be taken over: {reason}"
        raise InvalidSetting(f"{text}; end the running pipe, and start this one without --takeover")


class End(NamedTuple):
    """An end of a pipe that another process can go on with."""

    session: Session
    part: Part


def wait_for_turn(session: Session, taken: Taken) -> None:
    """Have a new session wait until the old process has ended, and give it the packets that the old one kept."""
    pause(session)
    give_kept(session, [b64decode(packet) for packet in taken.state["kept"]])


@dataclass(frozen=True)
class Running:
    """A running pipe, with everything that its process hands over."""

    addresses: tuple[str, str]
    ends: Mapping[Side, End]
    delayed: Callable[[], int]
    """A function that returns the number of packets that filters delay."""
    given: Callable[[int], None]
    """A function that closes the ends. It is called with the id of the new process, once that has everything."""
    capture: str | None = None
    """The file that this process writes packets to."""


@contextmanager
def handing_over(running: Running, folder: Path | None = None) -> Iterator[None]:
    """Let another process take the pipe over while the block runs, where the system can do it."""
    name = f"{PREFIX}{os.getpid()}"
    folder = folder or runtime_folder()
    with ExitStack() as stack:
        try:
            if folder is not None:
                listening, remove = platforms.listen_handover(_path(folder, os.getpid()))
                stack.callback(listening.close)
                stack.callback(remove)
                server = Server(name, listening, lambda link, bell: Giving(name, running, link, bell))
                stack.callback(server.close)
        except AdapterUnavailable:
            pass
        except EndpointError as error:
            log.info(f"{name} cannot be taken over by another process: {text_of(error)}")
        yield


def _path(folder: Path, pid: int) -> Path:
    return folder / f"{pid}{TAKEOVER_SUFFIX}"


class Giving(AnyGiving):
    """One takeover of a pipe at the running process."""

    kind = KIND
    version = VERSION
    again = "end it, and start it again"

    def __init__(self, name: str, running: Running, link: HandoverLink, bell: Doorbell) -> None:
        super().__init__(name, link, bell)
        self._running = running
        self._sessions = [end.session for end in running.ends.values()]

    def offer(self) -> None:
        """Send the addresses."""
        running = self._running
        self._link.send({"takeover": "offer", "addresses": running.addresses, "capture": running.capture})

    def suspend(self) -> None:
        """Stop receiving, and wait until no packet is delayed by filters or waits for room."""
        deadline = time.monotonic() + SECONDS_TO_BEGIN
        for session in self._sessions:
            pause(session)
        while self._running.delayed() and time.monotonic() < deadline:
            time.sleep(PAUSE)
        for session in self._sessions:
            if not wait_until_idle(session, max(deadline - time.monotonic(), 0)):
                raise EndpointError(errno.ETIMEDOUT, "packets are still delayed, or wait for room; try again")

    def send_state(self) -> None:
        """Send both ends, with the packets that were received there and wait for room at the other one."""
        state: dict[str, dict[str, Any]] = {}
        descriptors: list[int] = []
        for side, (session, part) in self._running.ends.items():
            facts, numbers = part.state()
            packets = [b64encode(packet).decode() for packet in kept(session)]
            state[side] = {**facts, "kept": packets, "descriptors": len(numbers)}
            descriptors += numbers
        memory = bytearray(json.dumps(state).encode())
        self._link.send({"takeover": "state", "state": len(memory)}, descriptors)
        self._link.send_memory(memory)

    def go_on(self) -> None:
        """Receive again."""
        for session in self._sessions:
            resume(session)

    def forget(self) -> None:
        """Do nothing: a pipe has no secrets."""

    def recover(self) -> str:
        """Receive again, at new connections."""
        for _, part in self._running.ends.values():
            part.lose()
        self.go_on()
        return "goes on"

    def give_away(self) -> None:
        """Leave both ends to the other process, and end."""
        with ExitStack() as stack:  # The last one first.
            stack.callback(self._running.given, self._link.pid)
            for _, part in self._running.ends.values():
                stack.callback(part.give_away)
            log.info(f"{self._name} is run by process {self._link.pid} now")


class Taking(AnyTaking):
    """One takeover of a pipe at the new process. Call its methods in their order."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """Connect to the process of the pipe `name`, as `threepipe ps` shows it, or its process id.

        Raises `EndpointError`.
        """
        folder = folder or runtime_folder()
        number = name.removeprefix(PREFIX)
        pipe = next((pipe for pipe in running_pipes(folder) if pipe.name == PREFIX + number), None)
        if pipe is None or folder is None:
            raise EndpointError(errno.ESRCH, f"this user runs no pipe {name}; threepipe ps lists them")
        path = _path(folder, pipe.pid)
        if not path.exists():
            text = f"{pipe.name} cannot be taken over: it has an end or a command that only its process can have"
            raise EndpointError(errno.ENOENT, f"{text}; end it, and start it again")
        self._failure: Exception | None = None
        super().__init__(pipe.name, path)

    def ask(self, left: EndpointAddress, right: EndpointAddress, capture: str | None = None) -> None:
        """Check that the running pipe has the same addresses, and writes to another file than `capture`; load modules.

        Raises `EndpointError`, `InvalidSetting` and the error of the old process.
        """
        offer, _ = self.greet(KIND, VERSION)
        if offer["addresses"] != [left.text, right.text]:
            text = f"{self._name} has other addresses; give it the same: {' '.join(map(repr, offer['addresses']))}"
            raise InvalidSetting(text)
        if capture is not None and capture == offer["capture"]:
            raise InvalidSetting(f"{self._name} still writes to {capture}; capture to another file")
        for end in (left, right):
            end.load()  # That takes longer than all else while packets wait.

    def take(self) -> Mapping[Side, Taken]:
        """Have the old process stop, and return its ends. Keep the time until `begun` short. Raises `EndpointError`."""
        message, numbers = self.stop()
        with ExitStack() as stack:
            for number in numbers:
                stack.callback(os.close, number)
            state = json.loads(self._link.receive_memory(message["state"], SECONDS_TO_ANSWER))
            stack.pop_all()
        taken: dict[Side, Taken] = {}
        for side, facts in state.items():
            count = facts["descriptors"]
            taken[side] = Taken(facts, numbers[:count])
            self._undo.callback(taken[side].close)
            numbers = numbers[count:]
        return taken

    @contextmanager
    def begun(self, ends: Mapping[Side, End], ready: Callable[[], None], close: Callable[[], None]) -> Iterator[None]:
        """Have the old process end once the block moves packets in both directions, and call `ready` then.

        The ends are paused until then. Raises `EndpointError` if the old process has gone back; `close` ends the block.
        """
        thread = threading.Thread(target=self._begin, args=(ends, ready, close), name="threepipe-takeover")
        try:
            thread.start()
            yield
        finally:
            if thread.ident is not None:
                thread.join()
        if self._failure is not None:
            raise self._failure

    def _begin(self, ends: Mapping[Side, End], ready: Callable[[], None], close: Callable[[], None]) -> None:
        try:
            for session, _ in ends.values():
                if not wait_until_idle(session, SECONDS_TO_BEGIN):
                    raise EndpointError(errno.EIO, f"{self._name} was not taken over: no packets pass here")
            self.claim()
            self.confirm(ends)
            ready()
        except Exception as error:
            self._failure = error
            close()

    def confirm(self, ends: Mapping[Side, End]) -> None:
        """Begin, and have the old process end."""
        for session, _ in ends.values():
            resume(session)
        self.finish()
        for _, part in ends.values():
            part.claim()
