"""The loops that are measured, one class a contender, over the rings of one adapter of the contract library.

They run on Windows. Each contender has its own copy of the library, under the name that it expects.
"""

import ctypes
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.support.contract_dll.library import Contract
from tests.support.contract_system import Bench

__all__ = ["LOOPS", "Loops"]

NAME = "tp0"
BUNDLE = 256


class Loops(Protocol):
    """The loops of one contender with an open session; each returns after the given packets."""

    contract: Contract

    def receive(self, packets: int) -> None: ...
    def send(self, packets: Sequence[bytes]) -> None: ...
    def echo(self, packets: int) -> None: ...

    def close(self) -> None:
        """End the session, even if a thread waits in it."""


class Bundles:
    """The loops of threepipe, a bundle per call."""

    def __init__(self) -> None:
        bench = Bench(Path(os.environ["THREEPIPE_CONTRACT"]))
        self.contract = bench.contract
        self._bench = bench  # Kept alive: the library calls its logger.
        self._adapter = bench.create(NAME)
        self.session = self._adapter.start_session()

    def receive(self, packets: int) -> None:
        while packets:
            with self.session.receive() as bundle:
                for _ in bundle:
                    packets -= 1

    def send(self, packets: Sequence[bytes]) -> None:
        for start in range(0, len(packets), BUNDLE):
            self.session.send(packets[start : start + BUNDLE], timeout=0)

    def echo(self, packets: int) -> None:
        while packets:
            with self.session.receive() as bundle:
                packets -= self.session.send(bundle, timeout=None)

    def close(self) -> None:
        self._adapter.close()


class Singles(Bundles):
    """The loops of threepipe, one packet per call, as the peers do."""

    def receive(self, packets: int) -> None:
        receive = self.session.receive_packet
        for _ in range(packets):
            receive()

    def send(self, packets: Sequence[bytes]) -> None:
        send = self.session.send_packet
        for packet in packets:
            send(packet)

    def echo(self, packets: int) -> None:
        receive, send = self.session.receive_packet, self.session.send_packet
        for _ in range(packets):
            send(receive())


class Pmd3:
    """The loops of pytun-pmd3's unchanged code for Windows."""

    def __init__(self) -> None:
        library = _install_peer(Path(os.environ["THREEPIPE_PEER"]), Path(os.environ["THREEPIPE_CONTRACT"]))
        from pytun_pmd3 import TunTapDevice

        self.contract = Contract(library)
        self._device = TunTapDevice(NAME)
        self._device.up()

    def receive(self, packets: int) -> None:
        read = self._device.read
        for _ in range(packets):
            read()

    def send(self, packets: Sequence[bytes]) -> None:
        write = self._device.write
        for packet in packets:
            write(packet)

    def echo(self, packets: int) -> None:
        read, write = self._device.read, self._device.write
        for _ in range(packets):
            write(read())

    def close(self) -> None:
        self._device.close()


def _install_peer(peer: Path, contract: Path) -> Path:
    """Make `pytun_pmd3` importable, with the contract library in place of its DLL; return the library's path.

    It is copied to a folder that the harness removes. Its import looks up functions of the IP Helper that Wine lacks
    and the loops do not call, so it gets the tests' fake.
    """
    folder = Path(os.environ["THREEPIPE_PEER_FOLDER"])
    ours = folder / "pytun_pmd3"
    # The default, copy2, makes Python call functions that Wine lacks.
    shutil.copytree(peer / "pytun_pmd3", ours, ignore=shutil.ignore_patterns("bin"), copy_function=shutil.copyfile)
    library = ours / "wintun" / "bin" / "amd64" / "wintun.dll"
    library.parent.mkdir(parents=True)
    shutil.copyfile(contract, library)
    sys.path.insert(0, str(folder))
    load: Any = ctypes.WinDLL  # type: ignore[attr-defined, unused-ignore]

    def load_or_fake(name: str, *arguments: Any, **options: Any) -> Any:
        fake = os.environ["THREEPIPE_FAKE_IPHELPER"] if name.lower() == "iphlpapi.dll" else name
        return load(fake, *arguments, **options)

    ctypes.WinDLL = load_or_fake  # type: ignore[attr-defined, unused-ignore]
    return library


LOOPS: dict[str, type[Loops]] = {
    "core": Bundles,
    "bundles": Bundles,
    "core singles": Singles,
    "singles": Singles,
    "pytun-pmd3": Pmd3,
}
"""The loops by contender; those named "core" need a Python with the native core."""
