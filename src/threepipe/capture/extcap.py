"""threepipe-extcap: adapters and running pipes as interfaces of Wireshark and tshark.

A program of Wireshark's extcap interface (extcap(4)), for its extcap folder. Only the answers that Wireshark asks for
go to standard output. It does not load typer and rich, as Wireshark starts it once for every question.
"""

import argparse
import errno
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from threepipe._version import __version__
from threepipe.errors import AdapterError, AdapterGone, InvalidSetting, ThreepipeError, hide_given_keys

if TYPE_CHECKING:
    from threepipe.capture.expression import PacketFilter

__all__ = ["main"]

_PREFIX = "threepipe-"
"""The start of every interface name, as Wireshark lists adapters under their own names, for its own way to capture."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer the question in `arguments` (by default the program's). Exit with 1 and an error text if that fails."""
    question = _parser().parse_args(arguments)
    try:
        _answer(question)
    except (ThreepipeError, OSError) as error:
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        print(f"threepipe: {hide_given_keys(text)}", file=sys.stderr)  # noqa: T201  # Wireshark shows it.
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(hide_given_keys(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "threepipe-extcap",
        description="List and capture threepipe's adapters and pipes, for Wireshark, which runs this program. threepipe"
        " capture --install-extcap puts it into Wireshark's folder.",
        allow_abbrev=False,
    )
    question = parser.add_mutually_exclusive_group()
    question.add_argument("--extcap-interfaces", action="store_true", help="list the adapters and pipes to capture")
    question.add_argument("--extcap-dlts", action="store_true", help="print the link type")
    question.add_argument("--extcap-config", action="store_true", help="list options (there are none)")
    question.add_argument("--capture", action="store_true", help="capture packets")
    parser.add_argument("--extcap-version", nargs="?", metavar="VERSION", help="the version of Wireshark")
    parser.add_argument("--extcap-interface", metavar="INTERFACE", help="the interface to capture, as listed")
    parser.add_argument(
        "--extcap-capture-filter", metavar="FILTER", help="only packets that match, as for tcpdump; needs libpcap"
    )
    parser.add_argument("--fifo", metavar="PATH", help="the file to write pcapng to")
    return parser


def _answer(question: argparse.Namespace) -> None:
    if question.extcap_interfaces:
        _print([f"extcap {{version={__version__}}}{{display=threepipe}}", *_interfaces()])
    elif question.extcap_dlts:
        from threepipe.capture.link_types import RAW

        _print([f"dlt {{number={RAW}}}{{name=RAW}}{{display=Raw IP}}"])
    elif question.capture:
        _capture(question.extcap_interface, question.fifo, question.extcap_capture_filter)
    elif question.extcap_capture_filter:
        _check_filter(question.extcap_capture_filter)
    elif not question.extcap_config:
        _parser().print_help(sys.stderr)


def _interfaces() -> list[str]:
    from threepipe.adapter import adapters
    from threepipe.capture.client import running_pipes

    displays = {pipe.name: f"threepipe pipe {pipe.left} {pipe.right}" for pipe in running_pipes()}
    try:
        displays |= {info.name: f"threepipe adapter {info.name}" for info in adapters()}
    except AdapterError:
        pass  # A system without adapters may have pipes.
    return [
        f"interface {{value={_PREFIX}{name}}}{{display={display.translate(_BRACES)}}}"
        for name, display in displays.items()
        if name == name.translate(_BRACES) and name.isprintable()  # The syntax has no way to write other names.
    ]


_BRACES = str.maketrans("{}\n\r", "()  ")


def _capture(interface: str | None, fifo: str | None, capture_filter: str | None) -> None:
    from threepipe.capture.live import LiveCapture, open_source, stopped_by_signals
    from threepipe.capture.writer import CaptureWriter

    if not interface or not interface.startswith(_PREFIX) or not fifo:
        raise OSError(errno.EINVAL, f"--capture needs --extcap-interface {_PREFIX}NAME and --fifo PATH")
    wanted = _compiled(capture_filter) if capture_filter else None
    source = open_source(interface.removeprefix(_PREFIX))
    try:
        file = CaptureWriter(fifo, source.name)
        capture = LiveCapture(source, file, wanted)
        try:
            with stopped_by_signals(source):
                capture.run()
        except AdapterGone:
            pass  # The adapter was removed, which ends the capture; its packets are in the file.
        finally:
            file.close(capture.summary.dropped)
    except BrokenPipeError:
        pass  # Wireshark has ended the capture.
    finally:
        source.close()


def _check_filter(expression: str) -> None:
    try:
        _compiled(expression)
    except InvalidSetting as error:
        _print([str(error)])  # Wireshark takes any answer for a refusal.


def _compiled(expression: str) -> "PacketFilter":
    from threepipe.capture.expression import PacketFilter

    return PacketFilter(expression)


def _print(lines: Sequence[str]) -> None:
    sys.stdout.writelines([f"{line}\n" for line in lines])
    sys.stdout.flush()
