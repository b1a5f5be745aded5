"""Enclosures: namespaces of their own for an adapter and the programs that are to see nothing else. Needs no privilege.

A process inside (`enclosed`) makes them and hands out the adapter's descriptor, so that packets are carried out here,
by sockets outside. Everything inside ends with this object or its process.
"""

import sys

assert sys.platform == "linux"

import errno
import os
import pickle
import resource
import select
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from threepipe.errors import AdapterError, EndpointError, InvalidSetting
from threepipe.platforms.linux import wire
from threepipe.platforms.linux.enclosed import Order
from threepipe.settings import AdapterSettings

__all__ = ["EnclosedProgram", "Enclosure", "KeptSignals", "enclose", "end_by", "kept_signals"]

_PROGRAM = "import sys; sys.path[:] = {path!r}; from threepipe.platforms.linux.enclosed import main; main({number})"


def enclose(
    settings: AdapterSettings, capacity: int, servers: Sequence[str] | None = None, search: Sequence[str] = ()
) -> "Enclosure":
    """Make an enclosure with a new adapter, whose link is up.

    Programs inside ask the DNS `servers`, in the `search` domains; with None nothing changes about DNS, and with an
    empty list only services outside are not asked. An ordinary user makes a user namespace and keeps its id inside.
    Raises `PermissionDenied` if the system forbids that, `AdapterError` and `InvalidSetting`.
    """
    if settings.persistent or settings.netns is not None or settings.queues > 1:
        raise InvalidSetting("an adapter with a new namespace has one queue, and ends with it; leave out the others")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, tempfile.TemporaryFile() as order:  # There may be more routes than a message holds.
        pickle.dump(Order(settings, capacity, servers, tuple(search)), order)
        order.seek(0)
        theirs.set_inheritable(True)
        code = _PROGRAM.format(path=sys.path, number=theirs.fileno())
        # Ctrl-C waits until the process inside has loaded its modules, and ignores it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = subprocess.Popen([sys.executable, "-P", "-c", code], stdin=order, pass_fds=[theirs.fileno()])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    enclosure = Enclosure(ours, process)
    try:
        enclosure.receive_descriptor()
    except BaseException:
        enclosure.close()
        raise
    return enclosure


class Enclosure:
    """Namespaces with an adapter; `close` ends them and all programs inside."""

    def __init__(self, peer: socket.socket, process: "subprocess.Popen[bytes]") -> None:
        self._peer = peer
        self._process = process
        self.descriptor = -1
        """That of the adapter, as `Adapter.detach` gives it; it belongs to the caller."""

    @property
    def process(self) -> int:
        """The id of the process whose child is the first one inside."""
        return self._process.pid

    def start(self, words: Sequence[str], streams: Sequence[int] = (0, 1, 2)) -> "EnclosedProgram":
        """Start a program inside, with `streams` as its standard input, output and error.

        To be called once. Raises `EndpointError`, and `InvalidSetting` for a command that is too long.
        """
        try:
            wire.send(self._peer, {"words": list(words)}, streams)
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                raise EndpointError(error.errno, f"starting {words[0]}: {error.strerror}") from None
            raise InvalidSetting(f"starting {words[0]}: its arguments are too long; put them into a script") from None
        try:
            self._answer()
        except AdapterError as error:
            raise EndpointError(error.errno, f"starting {words[0]}: {error.strerror}") from None
        return EnclosedProgram(self._peer)

    def receive_descriptor(self) -> None:
        """Take the adapter's descriptor from the process inside. Raises as `enclose` does."""
        (self.descriptor,) = self._answer()

    def _answer(self) -> list[int]:
        """Return the descriptors of an answer, or raise the error that it tells of."""
        message, descriptors = wire.receive(self._peer)
        wire.answer_of(message, "the process inside of the namespaces")
        return descriptors

    def close(self) -> None:
        """End everything inside, and wait for that. May be repeated."""
        try:
            self._peer.shutdown(socket.SHUT_RDWR)  # It wakes waiting threads, here and inside; closing does not.
        except OSError:
            pass  # It was closed before.
        self._process.wait()
        self._peer.close()


class EnclosedProgram:
    """A program in an enclosure, with what the CLI uses of `subprocess.Popen`."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self.returncode: int | None = None
        """The status, as of `subprocess`, once `wait` or `poll` has seen the end."""

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        try:
            wire.send(self._peer, {"signal": number})
        except OSError:
            pass  # There is nobody inside any more.

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Return the status once the program has ended. Others inside may go on until the enclosure is closed.

        It is that of SIGKILL if the process inside was killed, and all others with it. From several threads too.
        Raises `subprocess.TimeoutExpired`.
        """
        while self.returncode is None:
            if not select.select([self._peer], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("the program", timeout or 0)
            # The message stays there, for another thread that waits for it too.
            try:
                message, _ = wire.receive(self._peer, socket.MSG_PEEK)
            except OSError:
                message = None  # The enclosure was closed.
            self.returncode = -signal.SIGKILL if message is None else message["status"]
        return self.returncode

    def poll(self) -> int | None:
        """Return the status, or None while the program runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None


_OF_JOB_CONTROL = {signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT}
_OF_THIS_PROCESS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS} | {
    signal.SIGABRT,
    signal.SIGPIPE,
}
_FROM_A_PROCESS = 0  # SI_USER of <asm-generic/siginfo.h>; negative numbers are of other calls of processes.


@contextmanager
def kept_signals() -> Iterator["KeptSignals"]:
    """Keep signals from this thread and from threads started in the block; the yielded object sends them on.

    For the main thread, before others are started.
    """
    numbers = {int(each) for each in signal.valid_signals()} - _OF_JOB_CONTROL - _OF_THIS_PROCESS
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield KeptSignals(numbers)
    finally:
        _take_terminal_back()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_terminal_back() -> None:
    """Make this process's group that of the terminal's foreground again, if the group there has ended.

    A shell with job control inside makes a group of its own. It cannot undo that, as it does not see the group outside.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # There is none.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # It stops processes in the background.
    try:
        if not _is_there(os.tcgetpgrp(terminal)):
            os.tcsetpgrp(terminal, os.getpgrp())
    except OSError:
        pass  # It has hung up just now.
    finally:
        os.close(terminal)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # It is another user's.
    return True


class KeptSignals:
    """Signals that this process gets for a program. Those of a terminal reach the program by themselves."""

    def __init__(self, numbers: set[int]) -> None:
        self._numbers = numbers

    def wait_for(self, program: EnclosedProgram) -> int:
        """Send signals on to the program until it ends, and return its status."""

        def watch() -> None:
            program.wait()
            os.kill(os.getpid(), signal.SIGCHLD)

        thread = threading.Thread(target=watch, name="threepipe-enclosed")
        thread.start()
        while (status := program.poll()) is None:
            arrived = signal.sigwaitinfo(self._numbers)
            if arrived.si_signo != signal.SIGCHLD and arrived.si_code <= _FROM_A_PROCESS:
                program.send_signal(arrived.si_signo)
        thread.join()
        return status


def end_by(number: int) -> NoReturn:
    """End this process by the signal that ended a program, as shells and service managers tell that from a status."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # The program has dumped its core already.
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)  # That signal ends nothing by default.
