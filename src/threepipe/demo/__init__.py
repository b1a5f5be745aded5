"""The demonstration: real packets pass through a Python program, which counts them.

`open_stage` finds the best stage that this machine offers, and `play` runs the demonstration on it. The command line
shows the result. The stages are `kernel`, between two network stacks of the operating system, `single`, for systems
that have one, and `memory`, for machines where no adapters can be created.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from threepipe import platforms
from threepipe.demo.kernel import kernel_stage
from threepipe.demo.memory import memory_stage
from threepipe.demo.play import Result, Stage, play
from threepipe.demo.single import single_stage
from threepipe.errors import AdapterUnavailable, PermissionDenied

__all__ = ["Result", "Stage", "open_stage", "play"]

_DESCRIPTIONS = {
    "root": "As root: two adapters in two new network namespaces, with this program between them",
    "user namespace": "As an ordinary user, in a new user namespace: two adapters in two new network namespaces,"
    " with this program between them",
}


@contextmanager
def open_stage() -> Iterator[tuple[Stage, str]]:
    """Open the best stage that this machine offers, and yield it with a sentence that describes it.

    An ordinary user's process enters a new user namespace and stays in it. Everything else is removed afterwards.
    """
    with ExitStack() as stack:
        stage: Stage
        try:
            if platforms.ONE_NETWORK:
                stage = stack.enter_context(single_stage())
                description = "As root: an adapter of this system, with this program between it and a machine in memory"
            else:
                stage = kernel = stack.enter_context(kernel_stage())
                description = _DESCRIPTIONS[kernel.privilege]
        except (AdapterUnavailable, PermissionDenied) as error:
            stage = stack.enter_context(memory_stage())
            description = f"In memory, as no adapter can be created here: {error.strerror}"
        yield stage, description
