"""Calls that are refused, and the errors that they raise on Linux."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.kernel import Network, links
from threepipe import Adapter


@contextmanager
def refused(network: Network, kind: type[Exception], code: int | None, *words: str) -> Iterator[None]:
    """Check that the block raises `kind` with errno `code` and all of `words`, and changes no interface."""
    before = links(network)
    with pytest.raises(kind) as caught:
        yield
    assert type(caught.value) is kind
    assert getattr(caught.value, "errno", None) == code
    for word in words:
        assert word in str(caught.value)
    assert links(network) == before


def create(name: str, **settings: Any) -> None:
    Adapter.create(name, **settings).close()


def open_existing(name: str, netns: str | int | None = None) -> None:
    Adapter.open(name, netns=netns).close()
