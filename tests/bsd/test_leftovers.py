"""Interfaces that killed programs leave on the models of macOS' and the BSDs' kernels."""

from pathlib import Path

import pytest

from tests.support.bsd.bench import Bench
from tests.support.bsd.benches import Make, every
from tests.support.bsd.freebsd import FreeBsdKernel
from tests.support.bsd.netbsd import NetBsdKernel
from threepipe.platforms.bsd.freebsd import FreeBsdDriver
from threepipe.platforms.bsd.netbsd import NetBsdDriver


@every
def test_a_killed_program_leaves_nothing_that_the_next_adapter_minds(make: Make) -> None:
    bench = make()
    name = bench.create(addresses=["10.1.2.3/24"]).name
    bench.kernel.kill()
    # Without a file that marks it the interface stays, and on NetBSD it keeps its routes.
    with bench.create(addresses=["10.1.3.3/24" if bench.kernel.keeps_routes else "10.1.2.3/24"]) as adapter:
        adapter.start_session().close()
        assert adapter.name == name or name in bench.kernel.interfaces


def leaving() -> list[Bench]:
    """Return benches whose interfaces outlive their descriptors."""
    return [Bench(NetBsdKernel(), NetBsdDriver()), Bench(FreeBsdKernel(has_transient=False), FreeBsdDriver())]


@pytest.mark.parametrize("number", [0, 1])
def test_the_interface_of_a_killed_program_is_removed_and_others_stay(number: int, tmp_path: Path) -> None:
    bench = leaving()[number]
    bench.place = bench.place._replace(folder=tmp_path / "marks")
    with bench.create("tun0") as alive:
        bench.kernel.make("tun1")
        bench.kernel.make("tun2")
        (tmp_path / "marks" / "tun1.tun").touch()  # The file of a program that is no more; nobody holds its lock.
        with bench.create() as adapter:
            assert adapter.name == "tun1"
            assert sorted(bench.kernel.interfaces) == ["tun0", "tun1", "tun2"]
        assert alive.info
    assert [*(tmp_path / "marks").iterdir()] == []
    assert [*bench.kernel.interfaces] == ["tun2"]


def test_an_adapter_without_a_place_for_its_mark_works_and_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(NetBsdKernel(), NetBsdDriver(), tmp_path / "file" / "marks")
    (tmp_path / "file").touch()
    with bench.create():
        pass
    assert "stays if this program is killed" in caplog.text
