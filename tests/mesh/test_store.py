"""The folder of a node: keys that are made once, the certificate, and the records of others."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.endpoints import posix
from tests.support.mesh_bus import AUTHORITY, Signer
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.mesh import Refused, Store, make_authority, read_authority
from threepipe.mesh.records import public_part
from threepipe.mesh.store import parse_certificate


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    keys = Store(tmp_path / "mesh" / "mesh0").keys()
    assert Store(tmp_path / "mesh" / "mesh0").keys() == keys
    assert len(keys.wireguard) == len(keys.signer) == 32
    assert keys.request("gw").signer == public_part(keys.signer)
    if os.name == "posix":
        assert mode(tmp_path / "mesh" / "mesh0") == 0o700
        assert mode(tmp_path / "mesh" / "mesh0" / "keys") == 0o600


def test_damaged_keys_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("one\n")
    with pytest.raises(InvalidSetting, match="does not have 2 keys"):
        Store(tmp_path).keys()
    assert (tmp_path / "keys").read_text() == "one\n"


def test_a_certificate_is_kept_with_the_key_of_its_authority(tmp_path: Path) -> None:
    node, store = Signer("gw"), Store(tmp_path)
    with pytest.raises(EndpointError, match="threepipe mesh request"):
        store.certificate()
    store.put_certificate(node.text())
    assert store.certificate() == (node.certificate, public_part(AUTHORITY))


def test_a_text_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="is not a certificate"):
        parse_certificate("one\ntwo", tmp_path)
    one, other = (Signer("gw").text().split("\n") for _ in range(2))
    with pytest.raises(Refused):
        parse_certificate("\n".join([one[0], other[1], one[2]]), tmp_path)


def test_the_key_of_an_authority_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "authority"
    public = make_authority(path)
    assert public == public_part(read_authority(path))
    with pytest.raises(EndpointError, match="never overwritten"):
        make_authority(path)
    with pytest.raises(EndpointError, match="reading"):
        read_authority(tmp_path / "other")


def test_the_last_record_of_each_node_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.records() == []
    for name, text in (("aa", "1"), ("bb", "2"), ("aa", "3")):
        store.keep(name, text)
    store.close()
    store.close()
    again = Store(tmp_path)
    assert sorted(again.records()) == ["2", "3"]
    again.close()


@posix
def test_records_outlive_an_agent_that_is_killed_while_it_writes(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KEEPING, str(tmp_path)], stdout=subprocess.PIPE, text=True) as keeping:
        assert keeping.stdout is not None
        for _ in range(100):
            told = keeping.stdout.readline()
        keeping.kill()
    store = Store(tmp_path)
    (kept,) = store.records()
    store.close()
    number = int(kept.split()[0])
    assert number >= int(told)
    assert kept == text_of(number)


def text_of(number: int) -> str:
    return f"{number} " * 1_000


KEEPING = """
import sys
from pathlib import Path
from threepipe.mesh import Store

store = Store(Path(sys.argv[1]))
store.records()
for number in range(1_000_000):
    store.keep("gw", f"{number} " * 1_000)
    print(number, flush=True)
"""


def test_a_damaged_file_of_records_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_bytes(b"nonsense" * 1_000)
    store = Store(tmp_path)
    with pytest.raises(EndpointError, match=r"records\.db: .*; if it is damaged, remove it"):
        store.records()
    store.close()


@posix
def test_keys_that_others_can_read_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o755)
    Store(tmp_path).keys()
    assert not caplog.messages
    (tmp_path / "keys").chmod(0o644)
    store = Store(tmp_path)
    for _ in range(2):
        store.keys()
    assert caplog.messages == [
        f"{tmp_path / 'keys'} has keys, and other users can open it; run: chmod 600 {tmp_path / 'keys'}"
    ]


@posix
def test_a_folder_is_for_one_agent_at_a_time(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    first.records()
    with pytest.raises(InvalidSetting, match="another agent uses"):
        second.records()
    second.close()
    first.close()
    third = Store(tmp_path)
    third.records()
    third.close()


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EndpointError, match="the state of the node in"):
        Store(tmp_path / "file" / "mesh0")
