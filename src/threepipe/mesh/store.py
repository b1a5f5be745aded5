"""Store: the folder in which a node keeps its keys, its certificate, and the newest record of every node it knows."""

import errno
import os
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from threepipe.errors import EndpointError, InvalidSetting
from threepipe.mesh.records import Certificate, Request, public_part
from threepipe.net.connect import endpoint_errors
from threepipe.platforms.files import write_atomically, write_new
from threepipe.wireguard.keys import generate_key, public_key
from threepipe.wireguard.quick.config import warn_if_exposed
from threepipe.wireguard.values import key_from_text

__all__ = ["Keys", "Store", "make_authority", "parse_certificate", "read_authority"]

_MAX_FILE = 1 << 16  # Bytes.
_SETUP = (
    "PRAGMA locking_mode = EXCLUSIVE",  # One agent at a time.
    "PRAGMA journal_mode = WAL",  # A kill or a power cut loses the last records at most.
    "PRAGMA synchronous = NORMAL",
    "PRAGMA cache_size = -200",  # KiB. Nothing is read twice.
    "CREATE TABLE IF NOT EXISTS records (name TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID",
)
_ADVICE = {errno.EACCES: "run this as root, or give a folder of yours by --state"}


class Keys(NamedTuple):
    """The private keys of a node, 32 bytes each."""

    wireguard: bytes
    signer: bytes

    def request(self, name: str) -> Request:
        """Return the request for the authority to sign."""
        return Request(name, public_key(self.wireguard), public_part(self.signer))


class Store:
    """The files of one node. Methods raise `EndpointError` if the disk refuses, `InvalidSetting` for damaged files."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, which only its owner can open, unless it exists."""
        self.folder = folder
        with self._errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keys: Keys | None = None
        self._records: sqlite3.Connection | None = None

    def keys(self) -> Keys:
        """Return the node's keys. The first call makes them; they never leave the folder."""
        path = self.folder / "keys"
        if self._keys is None:
            if not os.path.exists(path):
                write_new({path: _to_text(generate_key(), _new_seed())})
            self._keys = Keys(*_from_text(path, 2))
        return self._keys

    def put_certificate(self, text: str) -> None:
        """Keep a certificate, as `threepipe mesh sign` prints it, with the authority's key."""
        with self._errors():
            write_atomically(self.folder / "certificate", text.encode(), 0o644)

    def certificate(self) -> tuple[Certificate, bytes]:
        """Return the node's certificate, and the public key of the authority that it trusts."""
        path = self.folder / "certificate"
        advice = (
            "have the authority sign the output of threepipe mesh request, and give the certificate by --certificate"
        )
        return parse_certificate(_read(path, {errno.ENOENT: advice}), path)

    def records(self) -> list[str]:
        """Return the texts of the kept records, and get ready to keep others.

        Raises `InvalidSetting` if another process uses the folder.
        """
        with self._errors():
            self._records = sqlite3.connect(self.folder / "records.db", timeout=0, isolation_level=None)
            for statement in _SETUP:
                self._records.execute(statement)
            return [text for (text,) in self._records.execute("SELECT text FROM records")]

    def keep(self, name: str, text: str) -> None:
        """Keep the record of a node in place of an older one."""
        assert self._records is not None
        with self._errors():
            self._records.execute("REPLACE INTO records VALUES (?, ?)", (name, text))

    def close(self) -> None:
        """Let another process use the folder. May be called again."""
        if self._records is not None:
            self._records.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with endpoint_errors(f"the state of the node in {self.folder}", _ADVICE):
                yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                advice = "end it, or give another folder by --state"
                raise InvalidSetting(f"another agent uses {self.folder}; {advice}") from None
            path = self.folder / "records.db"
            advice = "if it is damaged, remove it: the bus has the records"
            raise EndpointError(None, f"{path}: {error}; {advice}") from None


def parse_certificate(text: str, path: Path) -> tuple[Certificate, bytes]:
    """Return the certificate of a file, and the authority's public key, its last line. Raises `InvalidSetting`."""
    lines = text.strip().split("\n")
    if len(lines) != 3:
        raise InvalidSetting(f"{path} is not a certificate; give the output of threepipe mesh sign")
    authority = key_from_text(lines[2])
    return Certificate.parse("\n".join(lines[:2]), authority), authority


def make_authority(path: Path) -> bytes:
    """Make the key of a new authority in a file that only its owner can read. Return the public key."""
    seed = _new_seed()
    write_new({path: _to_text(seed)})
    return public_part(seed)


def read_authority(path: Path) -> bytes:
    """Return the private key of an authority."""
    return _from_text(path, 1)[0]


def _new_seed() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes_raw()


def _to_text(*keys: bytes) -> bytes:
    return b"".join([b64encode(key) + b"\n" for key in keys])


def _from_text(path: Path, count: int) -> list[bytes]:
    words = _read(path, {}).split()
    warn_if_exposed(path)
    if len(words) != count:
        raise InvalidSetting(f"{path} does not have {count} keys, one a line; restore it, or move it away for new keys")
    return [key_from_text(word) for word in words]


def _read(path: Path, advice: dict[int, str]) -> str:
    with endpoint_errors(f"reading {path}", advice), path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_MAX_FILE)
