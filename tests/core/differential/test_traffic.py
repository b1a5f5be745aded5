"""Long and mutated traffic through the native core and the reference."""

import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import pytest

from tests.support.cores import run_batch


@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_mutated_frames_give_the_same(seed: int) -> None:
    assert run_batch(seed, 10_000) >= 10_000


@pytest.mark.soak
def test_ten_million_mutated_frames_give_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    each, batches = 100_000, 100
    first = random.SystemRandom().randrange(10**9) * 1000
    done, begun = 0, time.monotonic()
    with ProcessPoolExecutor(os.cpu_count(), get_context("fork")) as workers:
        running = [workers.submit(run_batch, first + index, each) for index in range(batches)]
        try:
            for index, batch in enumerate(as_completed(running), 1):
                done += batch.result()
                if index % 10 == 0:
                    with capfd.disabled():
                        seconds = time.monotonic() - begun
                        sys.stdout.write(f"{done:,} frames from seed {first} in {seconds:.0f} s, no disagreement\n")
                        sys.stdout.flush()
        finally:
            workers.shutdown(cancel_futures=True)
    assert done >= 10_000_000
