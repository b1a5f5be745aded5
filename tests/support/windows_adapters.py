"""Numbered packets, threads and event loops, for tests of Windows adapters."""

import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import threepipe
from tests.support.contract_system import ContractWire
from threepipe.testing import Wire

Check = Callable[[threepipe.Adapter, Wire], None]
Made = tuple[threepipe.Adapter, ContractWire]

Run = Callable[[Coroutine[Any, Any, Any]], Any]

LOOPS = ["SelectorEventLoop", *(["ProactorEventLoop"] if sys.platform == "win32" else [])]
SECONDS = 10.0


def packet(number: int, size: int = 100) -> bytes:
    return (b"\x45\0" + size.to_bytes(2, "big") + number.to_bytes(4, "big")).ljust(size, b"~")


def packets(number: int, size: int = 100) -> list[bytes]:
    return [packet(index, size) for index in range(number)]


def number_of(found: bytes | memoryview) -> int:
    return int.from_bytes(found[4:8], "big")


@contextmanager
def in_threads(*functions: Callable[[], None]) -> Iterator[None]:
    """Run `functions` in threads while the block runs, and raise their exceptions."""
    with ThreadPoolExecutor(len(functions)) as pool:
        running = [pool.submit(function) for function in functions]
        yield
        for each in running:
            each.result(SECONDS)
