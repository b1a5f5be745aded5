"""Store: the folder in which a node keeps its keys, its certificate, and the newest record of every node it knows."""

import errno
from base64 import b64encode
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from threepipe import platforms
from threepipe.errors import InvalidSetting
from threepipe.mesh.records import Certificate, Request, public_part
from threepipe.net.connect import endpoint_errors
from threepipe.platforms.files import write_atomically, write_new
from threepipe.wireguard.keys import generate_key, public_key
from threepipe.wireguard.values import key_from_text

__all__ = ["Keys", "Store", "make_authority", "parse_certificate", "read_authority"]

_MAX_FILE = 1 << 16  # Bytes.
_END = "\n\n"
_ADVICE = {errno.EACCES: "run this as root, or give a folder of yours by --state"}


class Keys(NamedTuple):
    """The private keys of a node, 32 bytes each."""

    wireguard: bytes
    signer: bytes

    def request(self, name: str) -> Request:
        """Return what the authority signs."""
        return Request(name, public_key(self.wireguard), public_part(self.signer))


class Store:
    """The files of one node. All methods raise `EndpointError` if the disk refuses, and `InvalidSetting` for damage."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, which only its owner can open, unless it is there."""
        self.folder = folder
        with self._errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._records = folder / "records"
        self._files = ExitStack()
        self._log: BinaryIO | None = None
        self._count = 0

    def keys(self) -> Keys:
        """Return the node's keys, which are made once and never leave the folder."""
        path = self.folder / "keys"
        if not path.exists():
            write_new({path: _to_text(generate_key(), _new_seed())})
        return Keys(*_from_text(path, 2))

    def put_certificate(self, text: str) -> None:
        """Keep a certificate, as `threepipe mesh sign` prints it, with the authority's key."""
        with self._errors():
            write_atomically(self.folder / "certificate", text.encode(), 0o644)

    def certificate(self) -> tuple[Certificate, bytes]:
        """Return the node's certificate, and the public key of the authority that it trusts."""
        path = self.folder / "certificate"
        if not path.exists():
            advice = "have the authority sign the line of: threepipe mesh request, and give it by --certificate"
            raise InvalidSetting(f"this node has no certificate; {advice}")
        return parse_certificate(_read(path), path)

    def records(self) -> list[str]:
        """Return the texts of the records that are kept, the oldest first, and keep others from now on.

        Raises `InvalidSetting` if another process uses the folder.
        """
        with self._errors():
            lock = self._files.enter_context((self.folder / "lock").open("ab"))
            if not platforms.try_lock(lock.fileno()):
                raise InvalidSetting(f"another agent uses {self.folder}; end it, or give another folder by --state")
            found = self._records.read_bytes() if self._records.exists() else b""
        texts = found.decode(errors="replace").split(_END)[:-1]  # A write that a kill cut short has no end.
        self.compact(texts)
        return texts

    def keep(self, text: str) -> int:
        """Keep a record. Return how many are kept, among them outdated ones, which `compact` removes."""
        assert self._log is not None
        with self._errors():
            self._log.write(f"{text}{_END}".encode())
            self._log.flush()
        self._count += 1
        return self._count

    def compact(self, texts: Iterable[str]) -> None:
        """Keep these records alone."""
        kept = list(texts)
        with self._errors():
            if self._log is not None:
                self._log.close()
            write_atomically(self._records, "".join([f"{text}{_END}" for text in kept]).encode(), 0o600)
            self._log = self._files.enter_context(self._records.open("ab"))
        self._count = len(kept)

    def close(self) -> None:
        """Let another process use the folder. May be called again."""
        self._files.close()

    def _errors(self) -> AbstractContextManager[None]:
        return endpoint_errors(f"the state of the node in {self.folder}", _ADVICE)


def parse_certificate(text: str, path: Path) -> tuple[Certificate, bytes]:
    """Return the certificate of a file, and the authority's public key, its last line. Raises `InvalidSetting`."""
    lines = text.strip().split("\n")
    if len(lines) != 3:
        raise InvalidSetting(f"{path} is not a certificate; give what threepipe mesh sign has printed")
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
    words = _read(path).split()
    if len(words) != count:
        raise InvalidSetting(f"{path} does not have {count} keys, one a line; restore it, or move it away for new keys")
    return [key_from_text(word) for word in words]


def _read(path: Path) -> str:
    with endpoint_errors(f"reading {path}", {}), path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_MAX_FILE)
