"""The life of adapters on the models of macOS' and the BSDs' kernels: sessions, opening, removal, forks and pipes."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface

import pytest

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.benches import BENCHES, PACKET, Make, every
from tests.support.bsd.netbsd import NetBsdKernel
from threepipe.net.watch import Watch
from threepipe.platforms.bsd.netbsd import NetBsdDriver


@every
def test_an_adapter_that_another_program_removes_is_gone(make: Make) -> None:
    bench = make()
    adapter = bench.create(addresses=["10.1.2.3/24"])
    session = adapter.start_session()
    interface = bench.kernel.interfaces[adapter.name]
    assert interface.tun is not None
    interface.tun.transient = True  # FreeBSD would wait until the device is closed.
    bench.kernel.unmake(interface)
    with pytest.raises(threepipe.AdapterGone):
        adapter.info  # noqa: B018
    with pytest.raises(threepipe.AdapterGone):
        session.send([PACKET])
    adapter.close()
    assert bench.kernel.files == {}


@pytest.mark.parametrize("make", [each for each in BENCHES if str(each.id).endswith(("netbsd", "openbsd"))])
def test_a_thread_that_waits_learns_that_the_adapter_was_removed(make: Make) -> None:
    bench = make()
    adapter = bench.create(addresses=["10.1.2.3/24"])
    session = adapter.start_session()
    interface = bench.kernel.interfaces[adapter.name]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.receive, 20)
        with bench.kernel.lock:
            bench.kernel.unmake(interface)
        with pytest.raises(threepipe.AdapterGone):
            waiting.result(20)
    adapter.close()
    assert bench.kernel.files == {}


def test_a_persistent_interface_of_netbsd_keeps_its_settings_and_is_opened_again() -> None:
    bench = Bench(NetBsdKernel(), NetBsdDriver())
    with bench.create("tun1", persistent=True, addresses=["10.1.2.3/24"]) as adapter:
        assert adapter.info.persistent
        with pytest.raises(threepipe.AdapterBusy):
            bench.open("tun1")
    with bench.open("tun1") as adapter, adapter.start_session() as session:
        assert adapter.addresses == (ip_interface("10.1.2.3/24"),)
        assert session.send([PACKET]) == 1
    assert bench.names() == ["tun1"]
    with bench.open("tun1") as adapter:
        adapter.delete()
    assert bench.names() == []
    with pytest.raises(threepipe.AdapterNotFound):
        bench.open("tun1")


@every
def test_a_forked_child_does_not_hold_the_device(make: Make) -> None:
    bench = make()
    with bench.create() as adapter:
        child = os.fork()
        if not child:
            os._exit(len(bench.kernel.files))  # The model counts its open files.
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert adapter.info


@every
def test_a_pipe_joins_two_adapters(make: Make) -> None:
    bench = make()
    with (
        bench.create(addresses=["10.1.1.1/24"]) as left,
        bench.create(addresses=["10.1.2.1/24"]) as right,
        left.start_session() as one,
        right.start_session() as two,
    ):
        bench.kernel.deliver(left.name, [PACKET] * 3)
        two.send(one.receive(timeout=10))
        assert bench.kernel.arrivals(right.name, 10) == [PACKET] * 3


@pytest.mark.parametrize("make", [each for each in BENCHES if "darwin" not in str(each.id)])
def test_an_interface_that_an_administrator_made_is_opened_and_stays(make: Make) -> None:
    bench = make()
    bench.kernel.make("tun3")
    with bench.open("tun3") as adapter, adapter.start_session() as session:
        adapter.add_address("10.1.2.3/24")
        assert session.send([PACKET]) == 1
        with pytest.raises(threepipe.AdapterBusy):
            bench.open("tun3")
    assert bench.names() == ["tun3"]
    with pytest.raises(threepipe.AdapterNotFound):
        bench.open("tun2")


@every
def test_a_session_that_cannot_start_leaves_the_link_down(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()
    with bench.create(addresses=["10.1.2.3/24"]) as adapter:

        def refuse() -> Watch:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patch:
            patch.setattr(bench.kernel, "watch", refuse)
            with pytest.raises(OSError, match="Too many open files"):
                adapter.start_session()
        assert not adapter.link_up
        with adapter.start_session() as session:
            assert session.send([PACKET]) == 1
