"""Fixtures of tests with running pipes."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def runtime(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a runtime folder for running pipes, even if /run is not writable."""
    return os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
