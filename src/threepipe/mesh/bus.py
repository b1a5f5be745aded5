"""The bus: a store of records by node. Each node of a network puts its own there, and hears those of the others.

Nobody trusts the bus: `membership` decides. `NatsBus` is a bucket of NATS JetStream's key-value store.
"""

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from threepipe.errors import EndpointError, InvalidSetting

__all__ = ["Bus", "Listener", "NatsBus", "Secrets"]

log = logging.getLogger("threepipe.mesh")

_RETRY = 1.0  # Seconds.
_TIMEOUT = 5.0
_ROUND, _SILENT_ROUNDS = 1.0, 5
"""Seconds of a round, and the number of rounds in a row without a record after which a connection is given up, if a
record of this node has not come back."""
_SEED = re.compile("SU[A-Z2-7]{56}")
_KEPT = 86_400.0
"""Seconds for which a bucket that `NatsBus` has made keeps the record of a node that is gone."""


class Listener(Protocol):
    """The agent, as a bus calls it."""

    def heard(self, name: str, data: bytes) -> None:
        """Take the record of a node, a new one or one that the bus has kept."""

    def online(self) -> None:
        """Learn that the bus is connected. The bus calls this before it passes the records that it has kept."""

    def away(self) -> None:
        """Learn that the bus is away."""


class Bus(Protocol):
    """A bus, as the agent uses it."""

    async def run(self, listener: Listener) -> None:
        """Stay connected, and tell the listener, until this is cancelled."""

    async def put(self, name: str, data: bytes) -> None:
        """Replace the record of a node. Raises `EndpointError` if the bus is away or refuses."""


class Secrets(NamedTuple):
    """Files with which the bus and this client authenticate each other."""

    credentials: Path | None = None
    """A file of NATS' .creds, or with the seed of an NKey, a token, or USER:PASSWORD."""
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def options(self) -> dict[str, Any]:
        """Return them as options of nats.connect. Raises `EndpointError` if a file cannot be read."""
        found: dict[str, Any] = {}
        try:
            if self.credentials is not None:
                found = _credentials(self.credentials, self.credentials.read_text().strip())
            if self.ca is not None or self.certificate is not None:
                found["tls"] = ssl.create_default_context(cafile=self.ca)
                if self.certificate is not None:
                    found["tls"].load_cert_chain(self.certificate, self.key)
        except OSError as error:
            files = ", ".join([str(path) for path in self if path is not None])
            raise EndpointError(error.errno, f"{files}: {error.strerror or error}; look at these files") from None
        return found


def _credentials(path: Path, text: str) -> dict[str, Any]:
    if "BEGIN NATS USER JWT" in text and "BEGIN USER NKEY SEED" in text:
        return {"user_credentials": str(path)}
    if _SEED.fullmatch(text):
        return {"nkeys_seed": str(path)}
    user, colon, password = text.partition(":")
    return {"user": user, "password": password} if colon else {"token": text}


class NatsBus:
    """A bucket on servers of NATS. `run` loads nats-py, and makes the bucket if it is missing."""

    def __init__(self, urls: Sequence[str], bucket: str = "mesh", secrets: Secrets = Secrets()) -> None:  # noqa: B008
        """Take URLs such as nats://bus.example.org:4222 or tls://...; `run` tries their servers in turn.

        Raises `InvalidSetting`, also for a URL with a password or token, as other users see the arguments of programs.
        """
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("nats", "tls", "ws", "wss") or not parts.hostname:
                raise InvalidSetting("the bus has a URL such as nats://bus.example.org:4222 or tls://bus.example.org")
            if parts.username is not None:
                advice = "other users can see arguments; put it into a file, and give that by --credentials"
                raise InvalidSetting(f"the URL of the bus has a password or token: {advice}")
        self._urls, self._bucket, self._secrets = list(urls), bucket, secrets
        self._store: Any = None
        self._expected: bytes | None = None
        """The record that was put and has not come back."""
        self._told: set[str] = set()
        """The texts that were logged since a record of this node last came back."""

    async def run(self, listener: Listener) -> None:
        """Stay connected. Each connection begins with all records. Raises `InvalidSetting` without nats-py."""
        try:
            import nats
        except ImportError:
            raise InvalidSetting('the bus needs nats-py; run: pip install "threepipe[mesh]"') from None
        while True:
            self._expected = None
            try:
                client = await self._connect(nats)
            except (TimeoutError, OSError, nats.errors.Error) as error:
                self._tell(f"the bus is not reached: {_said(error)}")
            else:
                try:
                    await self._listen(client, listener)
                except (TimeoutError, OSError, nats.errors.Error) as error:
                    self._tell(f"the bus has no bucket for this node: {_said(error)}")
                finally:
                    self._store = None
                    listener.away()
                    with contextlib.suppress(Exception):  # It is closed in any case.
                        await client.close()
            await asyncio.sleep(_RETRY)

    async def put(self, name: str, data: bytes) -> None:
        """Replace the record of a node. Raises `EndpointError` if the bus is away or refuses."""
        store = self._store
        if store is None:
            raise EndpointError(None, "the bus is away")
        import nats
        from nats.js.errors import APIError

        self._expected = data
        try:
            await store.put(name, data)
        except (TimeoutError, OSError, nats.errors.Error) as error:
            if isinstance(error, APIError):  # The answer of a bus that is there.
                self._expected = None
            raise EndpointError(None, f"the bus has not taken the record: {_said(error)}") from None

    async def _connect(self, nats: Any) -> Any:
        async def failed(error: Exception) -> None:
            if "permissions violation" in str(error).lower():  # NATS does not answer the request.
                self._tell(f"the bus refuses: {error}")
            log.debug("the bus: %s", error)

        return await nats.connect(
            self._urls,
            # `run` connects again, and asks for all records then: after a restart of the server the watcher of nats-py
            # 2.16.0 hears nothing for up to 20 s.
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0.2,
            connect_timeout=_TIMEOUT,
            ping_interval=20,
            error_cb=failed,
            **self._secrets.options(),
        )

    async def _listen(self, client: Any, listener: Listener) -> None:
        from nats.js.errors import BucketNotFoundError

        stream = client.jetstream(timeout=_TIMEOUT)
        try:
            store = await stream.key_value(self._bucket)
        except BucketNotFoundError:
            store = await stream.create_key_value(bucket=self._bucket, history=1, ttl=_KEPT)
        watcher = await store.watchall()
        self._store = store
        self._tell(f"the bus is reached: {client.connected_url.netloc}", log.info)
        listener.online()
        silent = 0
        # NATS reports neither that the connection is from an address that this node has lost, nor that the bucket was
        # deleted. A busy bus passes records of others before it passes this node's.
        while client.is_connected and silent < _SILENT_ROUNDS:
            try:
                async with asyncio.timeout(_ROUND):
                    entry = await anext(watcher)
            except TimeoutError:
                silent = silent + 1 if self._expected else 0
                continue
            silent = 0
            if entry is not None and entry.operation is None and entry.value:
                if entry.value == self._expected:
                    self._expected = None
                    self._told.clear()
                listener.heard(entry.key, entry.value)
        self._tell("the bus is away; the mesh stays as it is until it is back")

    def _tell(self, text: str, tell: Callable[[str], None] = log.warning) -> None:
        """Log a text, but not again until a record of this node has come back."""
        if text not in self._told:
            self._told.add(text)
            tell(text)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
