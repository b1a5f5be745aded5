"""The process of `threepipe pipe` in its service: it takes a running pipe over, and hands its own over."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from threepipe.assembly import Assembly, Plan, assemble
from threepipe.capture.writer import STANDARD_OUTPUT
from threepipe.endpoints.takeover import Running, Taking, check_can_be_taken, handing_over
from threepipe.errors import InvalidSetting
from threepipe.net.service import announced

__all__ = ["assembled", "check_takeover", "in_service"]


def check_takeover(plan: Plan, command: Sequence[str] | None) -> None:
    """Raise `InvalidSetting` if a process cannot go on with the pipe of another one. `command` is that of --run."""
    for end in (plan.left, plan.right):
        check_can_be_taken(end)
    if command is not None:
        raise InvalidSetting("the command of --run ends with its process; leave out --takeover or --run")


@contextmanager
def assembled(plan: Plan, takeover: str | None) -> Iterator[tuple[Assembly, Taking | None]]:
    """Yield the pipe of a plan: opened, or taken over from the pipe `takeover` by the takeover that is yielded too."""
    if takeover is None:
        with assemble(plan) as assembly:
            yield assembly, None
        return
    with Taking(takeover) as taking:
        taking.ask(plan.left, plan.right, _file(plan))
        with assemble(plan, taking.take()) as assembly:
            yield assembly, taking


@contextmanager
def in_service(
    plan: Plan, assembly: Assembly, taking: Taking | None, status: str, command: Sequence[str] | None
) -> Iterator[None]:
    """Tell the service manager, with a line about the `status`, and let another process take over.

    This holds while the block runs, which moves the packets. In a takeover it begins once packets pass.
    """
    with ExitStack() as service:

        def serve() -> None:
            announcement = service.enter_context(announced(status))

            def given(pid: int) -> None:
                announcement.give_away(pid)
                assembly.close()

            with suppress(InvalidSetting):  # It cannot be taken over.
                check_takeover(plan, command)
                addresses = plan.left.text, plan.right.text
                running = Running(addresses, assembly.ends, assembly.delayed, given, _file(plan))
                service.enter_context(handing_over(running))

        if taking is None:
            serve()
            yield
        else:
            with taking.begun(assembly.ends, serve, assembly.close):
                yield


def _file(plan: Plan) -> str | None:
    """Return the path of the file to capture to."""
    return None if plan.capture in (None, STANDARD_OUTPUT) else os.path.realpath(plan.capture)
