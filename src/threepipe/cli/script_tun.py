"""`threepipe script-tun`: the far end of OpenConnect's or OpenVPN's packets, as a program that these start."""

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from threepipe.cli.completers import right_addresses
from threepipe.cli.output import Quiet, Verbose, log_level, show_log
from threepipe.net.signals import exit_once

__all__ = ["script_tun"]


def script_tun(
    address: Annotated[
        str,
        typer.Argument(
            metavar="ADDRESS",
            help="Where packets go, as in threepipe pipe.",
            show_default=False,
            autocompletion=right_addresses,
        ),
    ],
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Carry the packets of OpenConnect or OpenVPN, which start this program.

    The descriptor of packets comes from the environment, and so do addresses
    and MTU of an adapter (tun:NAME) unless ADDRESS has its own. It ends with
    the program that started it.

    Examples:
      openconnect --script-tun --script "threepipe script-tun tun:vpn0" HOST
      threepipe script-tun tun:vpn0,route=10.0.0.0/8
    """
    from threepipe import platforms
    from threepipe.assembly import Plan, assemble
    from threepipe.endpoints.address import parse_address
    from threepipe.endpoints.environment import find_descriptor, offered, starter

    show_log(log_level(verbose, quiet))
    try:
        other = platforms.process_file(starter(os.environ))
    except ProcessLookupError:
        return  # There is nobody to carry packets for any more.
    number = find_descriptor(os.environ)
    right = parse_address(address, "right")
    if right.kind.name == "tun":
        right = right._replace(options=offered(os.environ).complete(right.options))
        right.kind.check(right.parameter, dict(right.options))
    # These programs end it by SIGHUP, SIGINT or SIGTERM, which is not a failure.
    with contextlib.suppress(KeyboardInterrupt, SystemExit), exit_once():
        plan = Plan(parse_address(f"fd:{number}", "left"), right)
        with assemble(plan) as assembly, _call_at_end(other, assembly.close):
            assembly.run()


@contextmanager
def _call_at_end(process: int | None, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` when the process ends while the block runs, if the system tells. Close the descriptor."""
    if process is None:
        yield
        return
    reader, writer = os.pipe()

    def watch() -> None:
        if process in select.select([process, reader], [], [])[0]:
            action()

    thread = threading.Thread(target=watch, name="threepipe-starter")
    try:
        thread.start()
        yield
    finally:
        os.close(writer)
        if thread.ident is not None:
            thread.join()
        os.close(reader)
        os.close(process)
