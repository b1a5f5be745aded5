"""A program that takes packets as datagrams on a socket that it inherits, as OpenConnect and OpenVPN start theirs.

One datagram is one bare packet. Such a socket has no end, so a thread waits for that of the program.
"""

import atexit
import errno
import os
import selectors
import socket
import subprocess
import threading
from contextlib import ExitStack

from threepipe import platforms
from threepipe.bundle import Bundle
from threepipe.core.ends import End
from threepipe.endpoints.datagram_port import DatagramPort
from threepipe.endpoints.environment import without_numbers
from threepipe.endpoints.process import end_program, failure_of, fill_in
from threepipe.endpoints.request import RateLimitedLog
from threepipe.errors import EndpointEnded, EndpointError, InvalidSetting
from threepipe.net.connect import endpoint_errors
from threepipe.net.signals import defer_signals
from threepipe.platforms import enlarge_buffers, open_datagrams

__all__ = ["ProgramPort", "start_datagram_program"]

_VARIABLES = ("VPNFD", "TUNTAP_SOCKET_FD")
"""The variables for the descriptor's number: OpenConnect's (--script-tun) and OpenVPN's (--dev-node unix:)."""


def start_datagram_program(words: list[str], log: RateLimitedLog) -> "ProgramPort":
    """Start a program without a shell, and return a port on its packets. Stopping the port ends it.

    Its socket is non-blocking, as OpenConnect's. Its input is empty, and its output goes to standard error, as standard
    output may carry packets. Raises `EndpointError`, and `InvalidSetting` on Windows.
    """
    if not platforms.INHERITS_DESCRIPTORS:
        raise InvalidSetting("programs do not inherit descriptors on Windows; leave out datagrams")
    advice = {errno.ENOENT: "check that it is installed", errno.EACCES: "make it executable"}
    with endpoint_errors(f"starting {words[0]}", advice), ExitStack() as undo:
        ours, its = socket.socketpair(type=socket.SOCK_DGRAM)  # Of Unix sockets.
        undo.callback(ours.close)
        with its, defer_signals():
            for end in (ours, its):
                enlarge_buffers(end)
            its.setblocking(False)
            number = its.fileno()
            process = subprocess.Popen(
                fill_in(words, number),
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=[number],
                env={**without_numbers(os.environ), **dict.fromkeys(_VARIABLES, str(number)), "TUNTAP_DEV_TYPE": "tun"},
            )
            undo.callback(end_program, process, 0.0)
            port = ProgramPort(ours, log, process)
            undo.pop_all()
    return port


class ProgramPort(DatagramPort):
    """A port on one end of a socket pair, whose other end a program has."""

    def __init__(self, ours: socket.socket, log: RateLimitedLog, process: "subprocess.Popen[bytes]") -> None:
        super().__init__(open_datagrams(ours), log)
        self._process = process
        self._owner = os.getpid()
        self._alive, self._lifeline = socket.socketpair()  # The first becomes readable when the program has ended.
        self.readable.watch(self._alive, selectors.EVENT_READ)
        self._waiting = threading.Thread(target=self._wait, name="threepipe-program", daemon=True)
        self._waiting.start()
        atexit.register(self._end)

    def _wait(self) -> None:
        self._process.wait()
        self._lifeline.close()

    def receive(self) -> Bundle:
        """Return the packets that are ready. After the program's last one raise how it ended."""
        ended = self._process.returncode is not None  # Before the last look, which then finds all that was sent.
        bundle = super().receive()
        if ended and not bundle:
            if why := failure_of(self._process):
                raise EndpointError(errno.EPROTO, f"the command {why}")
            raise EndpointEnded("the command ended")
        return bundle

    def lend(self) -> End | None:
        """Lend the socket while the program runs, to a loop that ends with it."""
        if self.lent is not None:
            self.lent.bells = [self._alive]
        return self.lent if self._process.returncode is None else None

    def stop(self) -> None:
        """Close the socket and end the program."""
        super().stop()
        self._end()
        atexit.unregister(self._end)
        self._waiting.join()

    def _end(self) -> None:
        if os.getpid() == self._owner:  # The program is not that of a forked process.
            end_program(self._process, 0.0)

    def dispose(self) -> None:
        super().dispose()
        self._alive.close()
