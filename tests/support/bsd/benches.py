"""A bench for each model, by name, for tests to run on each or on some of them."""

from collections.abc import Callable

import pytest

from tests.support.bsd.bench import Bench
from tests.support.bsd.darwin import DarwinKernel
from tests.support.bsd.freebsd import FreeBsdKernel
from tests.support.bsd.netbsd import NetBsdKernel
from tests.support.bsd.openbsd import OpenBsdKernel
from threepipe.platforms.bsd.darwin import DarwinDriver
from threepipe.platforms.bsd.freebsd import FreeBsdDriver
from threepipe.platforms.bsd.netbsd import NetBsdDriver
from threepipe.platforms.bsd.openbsd import OpenBsdDriver

__all__ = ["BENCHES", "NODES", "PACKET", "Make", "every"]

Make = Callable[[], Bench]
PACKET = bytes([0x45, 0, 0, 28, *bytes(5), 253, *bytes(10)]).ljust(28, b"~")
"""A packet that every system takes."""


def darwin() -> Bench:
    return Bench(DarwinKernel(), DarwinDriver())


def plain_darwin() -> Bench:
    """Return macOS without recvmsg_x and sendmsg_x."""
    return Bench(DarwinKernel(has_datagrams=False), DarwinDriver())


def freebsd() -> Bench:
    return Bench(FreeBsdKernel(), FreeBsdDriver())


def old_freebsd() -> Bench:
    return Bench(FreeBsdKernel(has_transient=False), FreeBsdDriver())


def netbsd(nodes: int = 4) -> Bench:
    return Bench(NetBsdKernel(nodes=nodes), NetBsdDriver())


def old_netbsd() -> Bench:
    bench = netbsd()
    bench.kernel.release = 1
    return bench


def openbsd(nodes: int = 4) -> Bench:
    return Bench(OpenBsdKernel(nodes=nodes), OpenBsdDriver())


def old_openbsd(nodes: int = 4) -> Bench:
    return Bench(OpenBsdKernel(nodes=nodes, has_header=False), OpenBsdDriver())


_MAKERS = (darwin, plain_darwin, freebsd, old_freebsd, netbsd, old_netbsd, openbsd, old_openbsd)
BENCHES = [pytest.param(make, id=make.__name__) for make in _MAKERS]

NODES = [pytest.param(make, id=make.__name__) for make in (netbsd, openbsd)]
"""Those with a fixed number of device nodes, which they take as an argument."""

every = pytest.mark.parametrize("make", BENCHES)
"""Have a test run on each model."""
