"""A process without a free descriptor."""

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    """Use up all descriptors of this process while the block runs; not for Windows."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()
    with ExitStack() as stack:
        gc.disable()  # Garbage of other tests would free descriptors.
        stack.callback(gc.enable)
        highest = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, highest)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 50, hard))  # Those below it may be free too.
        try:
            while True:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError:
            yield
