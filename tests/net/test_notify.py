"""Notification of event loops about descriptors."""

import asyncio
import os
import sys

import pytest

from threepipe.net.notify import notify_readable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no descriptors to wait for")


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_several_tasks_can_wait_for_one_descriptor() -> None:
    before = open_descriptors()
    reader, writer = os.pipe()

    async def wait() -> None:
        loop = asyncio.get_running_loop()
        ready = [asyncio.Event() for _ in range(3)]
        forget = [notify_readable(reader, loop, each.set) for each in ready]
        forget.pop()()
        await asyncio.sleep(0)
        assert not any(each.is_set() for each in ready)
        os.write(writer, b"1")
        await asyncio.gather(ready[0].wait(), ready[1].wait())
        assert not ready[2].is_set()
        for each in forget:
            each()

    asyncio.run(wait())
    os.close(reader)
    os.close(writer)
    assert open_descriptors() == before


def test_a_closed_loop_leaves_no_descriptor_open() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    reader, writer = os.pipe()
    before = open_descriptors()
    with pytest.raises(RuntimeError, match="closed"):
        notify_readable(reader, loop, lambda: None)
    assert open_descriptors() == before
    os.close(reader)
    os.close(writer)
