"""Fixtures for tests of the contract library: the library, an adapter, a session and a socket."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.contract_dll.build import build, compiler
from tests.support.contract_dll.library import Contract, Logger
from tests.support.contract_packets import CAPACITY, GIVEN


@pytest.fixture(scope="module")
def path(request: pytest.FixtureRequest) -> Path:
    """Return the library, built anew if its sources have changed."""
    if GIVEN:
        return Path(GIVEN)
    if sys.platform != "linux" or not compiler("linux"):
        pytest.skip("there is no gcc to build the contract library with, and THREEPIPE_CONTRACT names none")
    return build("linux", request.config.cache.mkdir("contract"))


@pytest.fixture(scope="module")
def library(path: Path) -> Contract:
    return Contract(path)


@pytest.fixture
def contract(library: Contract) -> Iterator[Contract]:
    """Return the library in its initial state; handles left open fail the test."""
    library.ContractReset()
    library.ContractSetStrict(False)
    yield library
    counters = library.counters()
    library.WintunSetLogger(Logger())
    library.ContractReset()
    assert not {"adapters", "sessions"} & set(counters), "handles were left open"


@pytest.fixture
def adapter(contract: Contract) -> Iterator[int]:
    handle = contract.WintunCreateAdapter("tp0", "threepipe", None)
    yield handle
    contract.WintunCloseAdapter(handle)


@pytest.fixture
def session(contract: Contract, adapter: int) -> Iterator[int]:
    handle = contract.WintunStartSession(adapter, CAPACITY)
    assert handle, contract.error()
    yield handle
    contract.WintunEndSession(handle)


@pytest.fixture
def outside() -> Iterator[socket.socket]:
    """Return a UDP socket of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(("127.0.0.1", 0))
        yield sock
