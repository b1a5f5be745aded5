"""The conformance checks on the models of macOS' and the BSDs' kernels."""

from collections.abc import Callable

import pytest

import threepipe
from tests.support.bsd.bench import Bench
from tests.support.bsd.benches import BENCHES
from threepipe.testing import CHECKS, Wire

Check = Callable[[threepipe.Adapter, Wire], None]


@pytest.mark.parametrize("make", BENCHES)
@pytest.mark.parametrize("check", CHECKS)
def test_an_adapter_passes_every_check_of_the_contract(check: Check, make: Callable[[], Bench]) -> None:
    with make().wired() as made:
        check(*made)
