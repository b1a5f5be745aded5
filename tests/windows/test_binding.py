"""The binding of Wintun's library, tested on the contract library: functions, errors and the log."""

import ctypes
import logging
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.contract_dll.library import PROTOTYPES, Contract, Function, Kind
from tests.support.contract_system import find_contract
from threepipe.errors import (
    AdapterBusy,
    AdapterError,
    AdapterGone,
    AdapterNotFound,
    AdapterUnavailable,
    NameTaken,
    PermissionDenied,
)
from threepipe.platforms.windows.library import load_library, use_library
from threepipe.platforms.windows.log import Log
from threepipe.platforms.windows.winerror import error_code
from threepipe.platforms.windows.wintun import FUNCTIONS, Wintun

pytestmark = pytest.mark.windows

HEADER = Path(__file__).parents[1] / "support" / "contract_dll" / "contract.h"
GUID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
CAPACITY = 0x20000
ADMINISTRATOR = "administrator rights; use an elevated terminal"


@pytest.fixture(scope="module")
def path(request: pytest.FixtureRequest) -> Path:
    return find_contract(request.config)


@pytest.fixture
def contract(path: Path) -> Iterator[Contract]:
    contract = Contract(path)
    contract.ContractReset()
    yield contract
    left = contract.counters()
    contract.ContractReset()
    assert not left, "handles were left open, or something was done wrong"


@pytest.fixture
def wintun(path: Path, contract: Contract) -> Iterator[Wintun]:
    use_library(path)
    wintun = Wintun(load_library(path))
    yield wintun
    wintun.silence()
    use_library(None)


@pytest.fixture
def adapter(wintun: Wintun) -> Iterator[int]:
    handle = wintun.create_adapter("tp0", "threepipe", GUID)
    yield handle
    wintun.close_adapter(handle)


def test_every_function_is_bound_with_the_types_of_the_header() -> None:
    declared = re.findall(r"WINAPI (Wintun\w+)\(([^;]*)\);", HEADER.read_text())
    assert {name: 0 if arguments == "VOID" else arguments.count(",") + 1 for name, arguments in declared} == {
        name: len(arguments) for name, (_, arguments) in FUNCTIONS.items()
    }
    for name, (result, arguments) in FUNCTIONS.items():
        assert result is PROTOTYPES[name][0]
        sizes = [ctypes.sizeof(argument) for argument in PROTOTYPES[name][1]]
        assert [ctypes.sizeof(argument) for argument in arguments] == sizes


def test_a_library_without_a_function_raises() -> None:
    if sys.platform == "win32":
        other: ctypes.CDLL = ctypes.WinDLL("kernel32")
    else:
        other = ctypes.CDLL(None)
    with pytest.raises(AdapterUnavailable, match="as it lacks WintunCreateAdapter"):
        Wintun(other)


def test_an_adapter_is_created_used_and_closed(wintun: Wintun, contract: Contract) -> None:
    assert wintun.running_driver_version() is None
    adapter = wintun.create_adapter("Straße 7", "threepipe", GUID)
    described = contract.describe(adapter)
    assert (described.name, described.description) == ("Straße 7", "threepipe Tunnel")
    assert bytes(described.guid) == GUID.bytes_le
    assert wintun.adapter_luid(adapter) == described.luid
    assert wintun.running_driver_version() == (0, 14)
    opened = wintun.open_adapter("straSSE 7".replace("SS", "ß"))
    assert wintun.adapter_luid(opened) == described.luid
    wintun.close_adapter(opened)
    session = wintun.start_session(adapter, "Straße 7", CAPACITY)
    assert contract.describe(adapter).connected
    assert wintun.read_wait_event(session)
    wintun.end_session(session)
    assert not contract.describe(adapter).connected
    wintun.close_adapter(adapter)
    assert contract.interfaces() == []
    wintun.delete_driver()


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (2, AdapterUnavailable, "tp0 cannot be created, as the driver does not start"),
        (5, PermissionDenied, ADMINISTRATOR),
        (183, NameTaken, "created as tp0 exists"),
        (1460, AdapterError, "tp0: "),
    ],
)
def test_an_error_code_of_create_raises_its_exception(
    wintun: Wintun, contract: Contract, code: int, kind: type[AdapterError], text: str
) -> None:
    contract.ContractFailCall(Function.CREATE_ADAPTER, code, 1)
    with pytest.raises(kind, match=text) as caught:
        wintun.create_adapter("tp0", "threepipe", GUID)
    assert type(caught.value) is kind
    assert error_code(caught.value) == code


@pytest.mark.parametrize(
    ("function", "code", "kind", "text"),
    [
        (Function.OPEN_ADAPTER, 1168, AdapterNotFound, "Wintun's driver has no adapter tp0"),
        (Function.OPEN_ADAPTER, 2, AdapterNotFound, "no driver runs"),
        (Function.OPEN_ADAPTER, 5, PermissionDenied, ADMINISTRATOR),
        (Function.START_SESSION, 1247, AdapterBusy, "tp0 has a session in another program"),
        (Function.START_SESSION, 2, AdapterGone, "tp0 was removed"),
        (Function.START_SESSION, 1168, AdapterGone, "tp0 was removed"),
        (Function.START_SESSION, 5, PermissionDenied, ADMINISTRATOR),
        (Function.DELETE_DRIVER, 5, PermissionDenied, ADMINISTRATOR),
        (Function.DELETE_DRIVER, 0xE000023D, AdapterBusy, "close the adapters of all programs"),
    ],
)
def test_an_error_code_of_other_calls_raises_its_exception(
    wintun: Wintun, contract: Contract, adapter: int, function: Function, code: int, kind: type[AdapterError], text: str
) -> None:
    calls = {
        Function.OPEN_ADAPTER: lambda: wintun.open_adapter("tp0"),
        Function.START_SESSION: lambda: wintun.start_session(adapter, "tp0", CAPACITY),
        Function.DELETE_DRIVER: wintun.delete_driver,
    }
    contract.ContractFailCall(function, code, 1)
    with pytest.raises(kind, match=text) as caught:
        calls[function]()
    assert type(caught.value) is kind
    assert (error_code(caught.value) or 0) % (1 << 32) == code


def test_an_error_has_the_log_lines_of_the_library(wintun: Wintun) -> None:
    with pytest.raises(AdapterNotFound, match="; Wintun's log: Failed to find"):
        wintun.open_adapter("nowhere")


def test_an_error_has_no_earlier_log_lines(wintun: Wintun, contract: Contract, adapter: int) -> None:
    with pytest.raises(AdapterNotFound):
        wintun.open_adapter("nowhere")
    contract.ContractFailCall(Function.START_SESSION, 1247, 1)
    with pytest.raises(AdapterBusy) as caught:
        wintun.start_session(adapter, "tp0", CAPACITY)
    assert "nowhere" not in str(caught.value)


def test_open_of_a_foreign_interface_does_not_rename_it(wintun: Wintun, contract: Contract) -> None:
    contract.ContractAddInterface("Ethernet", Kind.NEIGHBOUR)
    with pytest.raises(AdapterNotFound):
        wintun.open_adapter("Ethernet")
    assert [found.name for found in contract.interfaces()] == ["Ethernet"]


def test_a_slow_call_lets_other_threads_run(wintun: Wintun, contract: Contract) -> None:
    """A call that installs the driver is as slow; another thread must be able to end it."""
    contract.ContractDelayCall(Function.CREATE_ADAPTER, 20_000, 1)
    made: list[int] = []
    thread = threading.Thread(target=lambda: made.append(wintun.create_adapter("tp0", "threepipe", GUID)))
    thread.start()
    while not contract.counters().get("sleepers"):
        time.sleep(0)
    contract.ContractDelayCall(Function.CREATE_ADAPTER, 0, 0)
    thread.join(10)
    wintun.close_adapter(made[0])


def test_log_lines_of_the_library_go_to_logging(wintun: Wintun, adapter: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "threepipe.wintun")
    before = time.time()
    with pytest.raises(AdapterNotFound):
        wintun.open_adapter("nowhere")
    wintun.close_adapter(wintun.create_adapter("tp1", "threepipe", uuid.uuid4()))
    levels = {record.levelno for record in caplog.records}
    assert levels >= {logging.INFO, logging.ERROR}
    assert {record.name for record in caplog.records} == {"threepipe.wintun"}
    assert all(abs(record.created - before) < 60 for record in caplog.records)


@pytest.mark.parametrize(
    ("level", "severity"), [(0, logging.INFO), (1, logging.WARNING), (2, logging.ERROR), (7, logging.ERROR)]
)
def test_a_log_line_keeps_its_level_and_time(level: int, severity: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "threepipe.wintun")
    # 2019-03-22 12:34:56.789 UTC, in units of 100 ns since 1601.
    Log().write(level, 131_977_460_967_890_000, "50 % of it")
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (severity, "50 % of it")
    assert record.created == pytest.approx(1_553_272_496.789)
    assert record.msecs == 789
    assert record.relativeCreated < 0  # That is long before this program started.


def test_an_exception_of_a_log_handler_does_not_reach_the_library(wintun: Wintun, adapter: int) -> None:
    class Failing(logging.Handler):
        calls = 0

        def emit(self, record: logging.LogRecord) -> None:
            self.calls += 1
            raise RuntimeError("a handler that raises")

    handler = Failing()
    log = logging.getLogger("threepipe.wintun")
    log.addHandler(handler)
    try:
        with pytest.raises(AdapterNotFound):
            wintun.open_adapter("nowhere")
    finally:
        log.removeHandler(handler)
    assert handler.calls


def test_no_lines_are_logged_after_silence(wintun: Wintun, adapter: int, caplog: pytest.LogCaptureFixture) -> None:
    wintun.silence()
    with pytest.raises(AdapterNotFound):
        wintun.open_adapter("nowhere")
    assert caplog.records == []
