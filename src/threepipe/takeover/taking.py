"""The new process of a takeover: it connects to the running one, and says the steps."""

import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from threepipe import platforms
from threepipe.errors import EndpointError, text_of
from threepipe.takeover.limits import SECONDS_TO_ANSWER

__all__ = ["Taking"]

log = logging.getLogger("threepipe")


class Taking:
    """One takeover at the new process, until the end of a `with` block. Subclasses add their own steps."""

    def __init__(self, name: str, path: Path) -> None:
        """Connect to the process that runs `name`, at the socket `path`. Raises `EndpointError`."""
        self._name = name
        self._stopped_at = 0.0
        self._undo = ExitStack()
        self._link = platforms.connect_handover(path, SECONDS_TO_ANSWER)
        self._undo.callback(self._link.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def greet(self, kind: str, version: int, **facts: Any) -> tuple[dict[str, Any], list[int]]:
        """Say `hello`, and return the offer and its descriptors.

        Raises `EndpointError`, and the error of the old process.
        """
        hello = {"takeover": "hello", "version": version, "kind": kind, "scope": platforms.network_scope()}
        self._link.send(hello | facts)
        return self._link.receive(SECONDS_TO_ANSWER)

    def stop(self) -> tuple[dict[str, Any], list[int]]:
        """Have the old process stop, and return its message `state` and the descriptors. Raises `EndpointError`."""
        self._stopped_at = time.monotonic()
        self._link.send({"takeover": "prepared"})
        return self._link.receive(SECONDS_TO_ANSWER)

    def claim(self) -> None:
        """Say that everything is this process's from now on. Raises `EndpointError` if the old one has gone back."""
        self._link.send({"takeover": "mine"})

    def finish(self) -> None:
        """Have the old process end, as packets pass here, and log how long packets waited."""
        try:
            self._link.send({"takeover": "running"})
        except EndpointError as error:
            log.info(f"{self._name}: {text_of(error)}")  # It was killed, and this process has everything.
        waited = (time.monotonic() - self._stopped_at) * 1000
        log.info(f"{self._name} was taken over; packets waited for {waited:.1f} ms at most")
