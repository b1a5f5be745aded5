"""Pipes that are assembled from two addresses and run in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threepipe.assembly import Assembly, Plan, assemble
from threepipe.endpoints.address import parse_address


def plan(left: str, right: str, **settings: Any) -> Plan:
    return Plan(parse_address(left, "left"), parse_address(right, "right"), **settings)


@contextmanager
def running(plan: Plan) -> Iterator[Assembly]:
    """Run the pipe of a plan while the block runs."""
    with assemble(plan) as assembly:
        thread = threading.Thread(target=assembly.run)
        thread.start()
        try:
            yield assembly
        finally:
            assembly.close()
            thread.join()
