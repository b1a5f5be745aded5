"""The running process of a takeover: it hands over to one new process after another, until one has taken over."""

import errno
import logging
import os
import selectors
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from threepipe import platforms
from threepipe.backend import HandoverLink
from threepipe.errors import EndpointError, ThreepipeError, text_of
from threepipe.net.doorbell import Doorbell
from threepipe.takeover.limits import SECONDS_TO_ANSWER, SECONDS_TO_BEGIN, SECONDS_TO_PREPARE

__all__ = ["Giving", "Server"]

log = logging.getLogger("threepipe")


class Server:
    """Serves one new process after another, in a thread of its own, until one has taken over."""

    def __init__(
        self, name: str, listening: socket.socket, giving: Callable[[HandoverLink, Doorbell], "Giving"]
    ) -> None:
        """Serve until `close`: `giving` makes a takeover of each connection, with a bell that `close` rings."""
        self._name, self._listening, self._giving = name, listening, giving
        listening.setblocking(False)
        self._bell = Doorbell()
        self.given = False
        """True once another process has everything."""
        self._thread = threading.Thread(target=self._run, name="threepipe-takeover", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a takeover that has not come to `mine` fails, and one that has is complete."""
        self._bell.ring(for_ever=True)
        self._thread.join()
        self._bell.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while not self.given and all(key.fileobj is not self._bell for key, _ in selector.select()):
                self._serve()

    def _serve(self) -> None:
        try:
            link = platforms.accept_handover(self._listening)
        except (ThreepipeError, OSError) as error:
            if not isinstance(error, BlockingIOError):
                log.warning(f"{self._name}: a takeover failed: {text_of(error)}")
            return
        giving = self._giving(link, self._bell)
        try:
            giving.run()
        except (ThreepipeError, OSError) as error:
            log.warning(f"{self._name}: a takeover failed: {text_of(error)}")
            link.send_error(error)
        except Exception as error:  # Another process may still take over.
            log.exception(f"{self._name}: a takeover failed, by a defect of one of the two processes")
            link.send_error(error)
        finally:
            self.given = giving.given
            link.close()


class Giving(ABC):
    """One takeover at the running process. Each step is a method, which subclasses fill in."""

    kind: str
    """The command that both processes have to run."""
    version: ClassVar[int]
    """The version of the exchange, and of the layout of `state`. A process refuses any other."""
    again: ClassVar[str]
    """The advice at the end of a refusal: how to replace this process without a takeover."""

    def __init__(self, name: str, link: HandoverLink, bell: Doorbell) -> None:
        """Hand over by `link`, unless `bell` rings first, because this process has to end."""
        self._name, self._link, self._bell = name, link, bell
        self._late = False  # True if the other process said `mine` before it was refused; no message can follow.
        self.given = False
        """True once the other process has everything."""

    @abstractmethod
    def offer(self) -> None:
        """Send descriptors and settings that do not change."""

    @abstractmethod
    def suspend(self) -> None:
        """Stop all work. Packets that arrive wait in the kernel."""

    @abstractmethod
    def send_state(self) -> None:
        """Send everything that changes while this process works."""

    @abstractmethod
    def go_on(self) -> None:
        """Work as if nothing had happened, after `suspend` or a part of it."""

    @abstractmethod
    def forget(self) -> None:
        """Wipe the secrets that only one process may use, as the other one uses them now."""

    @abstractmethod
    def recover(self) -> str:
        """Work again after `forget`, as the other process has ended. Return the end of a sentence, like "goes on"."""

    @abstractmethod
    def give_away(self) -> None:
        """Leave everything to the other process and end, even if a part of that fails."""

    def run(self) -> None:
        """Hand over, and set `given`. Raises the error of a failed takeover; without `given` this process works on."""
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
            log.warning(f"{self._name}: {error}; process {self._link.pid} has taken over all the same")
        self.given = True  # Whatever fails here from now on, the other process works; unless it fails itself.
        try:
            self.forget()
            self.given = self._late or self.wait_for_running()
        finally:
            if self.given:
                self.give_away()
        if not self.given:
            text = self.recover()
            raise EndpointError(errno.ECONNRESET, f"the new process has ended, so this one {text}")

    def greet(self) -> None:
        """Check the version, the kind and the network of the other process."""
        hello = self.wait_for("hello", SECONDS_TO_ANSWER)
        if hello.get("version") != self.version:
            text = f"{self._name} has version {self.version} of the takeover, and the new process"
            raise EndpointError(errno.EPROTO, f"{text} {hello.get('version')}; {self.again}")
        if hello.get("kind") != self.kind:
            text = f"{self._name} is run by {self.kind}, and the new process is {hello.get('kind')}"
            raise EndpointError(errno.EPROTO, f"{text}; use {self.kind}")
        if hello.get("scope") != platforms.network_scope():
            text = f"{self._name} is in another network namespace than the new process; start that one there"
            raise EndpointError(errno.EPROTO, text)
        self.check(hello)

    def check(self, hello: dict[str, Any]) -> None:  # noqa: B027 - Not all subclasses check more.
        """Raise `EndpointError` if the other process cannot take over for another reason."""

    def refuse(self) -> bool:
        """Refuse to be taken over. Return False if the other process has said `mine` before."""
        message = self._link.revoke()
        self._late = message is not None and message.get("takeover") == "mine"
        return not self._late

    def wait_for_running(self) -> bool:
        """Wait until the other process says that packets pass. Return False if it has ended, or has failed."""
        try:
            self.wait_for("running", None)
        except _Ending:
            return True  # It has everything.
        except ThreepipeError as error:
            log.warning(f"{self._name}: {text_of(error)}")
            return False
        return True

    def wait_for(self, step: str, seconds: float | None) -> dict[str, Any]:
        """Wait for a step, and return its message.

        Raises the other process's error, and `EndpointError`, also if this process has to end.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._link, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            ready = [key.fileobj for key, _ in selector.select(seconds)]
        if self._bell in ready:
            raise _Ending(errno.ECANCELED, f"{self._name} is about to end, so it cannot be taken over")
        if not ready:
            raise EndpointError(errno.ETIMEDOUT, f"the new process has not said {step} within {seconds:.0f} s")
        message, numbers = self._link.receive(SECONDS_TO_BEGIN)  # It has begun to arrive. Sending has this limit, too.
        for number in numbers:
            os.close(number)  # No step of the new process has any.
        if message.get("takeover") != step:
            raise EndpointError(errno.EPROTO, f"the new process did not say {step}; it is no threepipe")
        return message


class _Ending(EndpointError):
    """This process has to end."""
