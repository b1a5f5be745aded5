"""The demonstration: real packets through a Python program, and a count of them.

`open_stage` finds out what this machine can show, `play` shows it; how it looks is the command
line's business. The stages are `kernel`, between two network stacks of the operating system, and
`memory`, where no adapters can be made.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from threepipe.demo.kernel import kernel_stage
from threepipe.demo.memory import memory_stage
from threepipe.demo.play import Result, Stage, play
from threepipe.errors import AdapterUnavailable, PermissionDenied

__all__ = ["Result", "Stage", "open_stage", "play"]

_SENTENCES = {
    "root": "As root: two adapters in two fresh network namespaces, this program between them",
    "user namespace": "As an ordinary user, in a user namespace of its own: two adapters in two fresh"
    " network namespaces, this program between them",
}


@contextmanager
def open_stage() -> Iterator[tuple[Stage, str]]:
    """The best stage there is, and a sentence that says what it is; leaves nothing behind.

    As an ordinary user the process goes into a user namespace of its own, and stays in it.
    """
    with ExitStack() as stack:
        stage: Stage
        try:
            stage = stack.enter_context(kernel_stage())
            sentence = _SENTENCES[stage.privilege]
        except (AdapterUnavailable, PermissionDenied) as error:
            stage = stack.enter_context(memory_stage())
            sentence = f"No adapter can be made here: {error.strerror}. So this goes over adapters in memory"
        yield stage, sentence
