"""Adapters of the contract library."""

import ctypes
import threading

import pytest

from tests.support.contract_dll.library import Contract, Guid, Kind, Logger
from tests.support.contract_packets import ENDED, EXISTS, FILE_NOT_FOUND, IN_USE, NOT_FOUND, OVERFLOW, names

pytestmark = pytest.mark.windows


def test_an_adapter_has_its_settings(contract: Contract) -> None:
    guid = Guid(1, 2, 3, (ctypes.c_uint8 * 8)(*range(8)))
    adapter = contract.WintunCreateAdapter("Ein Name", "Übung", guid)
    luid = ctypes.c_uint64()
    contract.WintunGetAdapterLUID(adapter, luid)
    described = contract.describe(adapter)
    assert (described.name, described.description) == ("Ein Name", "Übung Tunnel")
    assert bytes(described.guid) == bytes(guid)
    assert described.luid == luid.value
    assert luid.value >> 48 == 53  # IF_TYPE_PROP_VIRTUAL
    assert luid.value >> 24 & 0xFFFFFF
    assert not described.connected
    contract.WintunCloseAdapter(adapter)
    assert names(contract) == {}


def test_adapters_differ_in_guid_and_luid(contract: Contract) -> None:
    adapters = [contract.WintunCreateAdapter(f"tp{index}", "threepipe", None) for index in range(3)]
    described = [contract.describe(adapter) for adapter in adapters]
    assert len({bytes(interface.guid) for interface in described}) == 3
    assert len({interface.luid for interface in described}) == 3
    assert not contract.WintunCreateAdapter("tp3", "threepipe", described[0].guid)
    assert contract.error() == EXISTS
    for adapter in adapters:
        contract.WintunCloseAdapter(adapter)


def test_open_ignores_case_and_close_keeps_the_adapter(contract: Contract, adapter: int) -> None:
    opened = contract.WintunOpenAdapter("TP0")
    assert opened != adapter
    assert contract.describe(opened).luid == contract.describe(adapter).luid
    contract.WintunCloseAdapter(opened)
    assert names(contract) == {"tp0": Kind.ADAPTER}


def test_open_of_a_missing_or_foreign_interface_fails(contract: Contract) -> None:
    contract.ContractAddInterface("Ethernet", Kind.NEIGHBOUR)
    for name in ("tp0", "Ethernet"):
        assert not contract.WintunOpenAdapter(name)
        assert contract.error() == NOT_FOUND


@pytest.mark.parametrize(
    ("kind", "neighbour", "newcomer"), [(Kind.NEIGHBOUR, "tunnel 1", "tunnel"), (Kind.FIXED, "Tunnel", "tunnel 1")]
)
def test_a_taken_name_renames_the_neighbour_or_the_newcomer(
    contract: Contract, kind: Kind, neighbour: str, newcomer: str
) -> None:
    contract.ContractAddInterface("Tunnel", kind)
    assert not contract.ContractAddInterface("TUNNEL", kind)
    adapter = contract.WintunCreateAdapter("tunnel", "threepipe", None)
    assert adapter
    assert contract.describe(adapter).name == newcomer
    assert names(contract) == {neighbour: kind, newcomer: Kind.ADAPTER}
    contract.WintunCloseAdapter(adapter)


def test_a_taken_name_gets_the_first_free_number(contract: Contract) -> None:
    for name in ("tp0", "tp0 1", "tp0 2"):
        contract.ContractAddInterface(name, Kind.FIXED)
    adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
    assert contract.describe(adapter).name == "tp0 3"
    contract.WintunCloseAdapter(adapter)


def test_names_of_more_than_127_characters_fail(contract: Contract) -> None:
    adapter = contract.WintunCreateAdapter("n" * 127, "t" * 127, None)
    assert contract.describe(adapter).name == "n" * 127
    contract.WintunCloseAdapter(adapter)
    for texts in (("n" * 128, "t"), ("n", "t" * 128)):
        assert not contract.WintunCreateAdapter(*texts, None)
        assert contract.error() == OVERFLOW


def test_leftovers_are_removed_by_the_next_call(contract: Contract) -> None:
    contract.ContractAddInterface("tp0", Kind.LEFTOVER)
    adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
    assert names(contract) == {"tp0": Kind.ADAPTER}
    contract.ContractAddInterface("tp1", Kind.LEFTOVER)
    assert not contract.WintunOpenAdapter("tp1")
    contract.ContractAddInterface("tp2", Kind.LEFTOVER)
    contract.WintunCloseAdapter(adapter)
    assert names(contract) == {}


def test_the_driver_runs_while_adapters_exist(contract: Contract) -> None:
    assert contract.WintunGetRunningDriverVersion() == 0
    assert contract.error() == FILE_NOT_FOUND
    adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
    assert contract.WintunGetRunningDriverVersion() == 0 << 16 | 14
    assert not contract.WintunDeleteDriver()
    assert contract.error() & ENDED == IN_USE
    contract.WintunCloseAdapter(adapter)
    contract.ContractAddInterface("tp1", Kind.LEFTOVER)
    assert contract.WintunGetRunningDriverVersion()
    assert contract.WintunDeleteDriver()
    assert not contract.WintunGetRunningDriverVersion()


def test_the_logger_is_called_by_callers_and_other_threads(contract: Contract) -> None:
    lines: list[tuple[int, int, str, int]] = []
    logger = Logger(lambda level, time, text: lines.append((level, time, text, threading.get_ident())))
    contract.WintunSetLogger(logger)
    adapter = contract.WintunCreateAdapter("tp0", "threepipe", None)
    assert [(level, text) for level, _, text, _ in lines] == [
        (0, "Creating adapter tp0"),
        (0, "Waiting for the interface of the adapter"),
    ]
    assert lines[0][3] == threading.get_ident() != lines[1][3]
    years = [time / 1e7 / 86400 / 365.2425 + 1601 for _, time, _, _ in lines]
    assert 2024 < years[0] <= years[1] < 2200
    assert not contract.WintunStartSession(adapter, 1)
    assert lines[-1][0] == 2
    assert lines[-1][2].endswith("(Code 0x00000057)")
    contract.WintunSetLogger(Logger())
    before = len(lines)
    contract.WintunCloseAdapter(adapter)
    assert len(lines) == before
