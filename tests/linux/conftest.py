"""Fixtures of tests with running pipes, and with a running service."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kernel import Network
from tests.support.service import Service, serving


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a runtime folder for running pipes, even if /run is not writable."""
    return os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}


@pytest.fixture
def service(network: Network, tmp_path: Path) -> Iterator[Service]:
    with serving(network, tmp_path) as running:
        yield running
