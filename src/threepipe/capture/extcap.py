"""threepipe-extcap: adapters and running pipes as interfaces of Wireshark and tshark.

Speaks Wireshark's extcap protocol (extcap(4)), to be put into, or linked from, its extcap folder. Nothing but what that
asks for goes to standard output. Starts without typer and rich, for Wireshark calls it once for every question.
"""

import argparse
import errno
import sys
from collections.abc import Sequence

from threepipe._version import __version__
from threepipe.errors import AdapterError, AdapterGone, ThreepipeError

__all__ = ["main"]

_PREFIX = "threepipe-"
"""Of names of interfaces here: the adapter itself is one of Wireshark's own, where it is captured otherwise."""

_NO_FILTER = "threepipe captures all packets; use a display filter"


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer what Wireshark asks by `arguments` (by default the program's), and exit with 0, or 1 and a complaint."""
    asked = _parser().parse_args(arguments)
    try:
        _answer(asked)
    except (ThreepipeError, OSError) as error:
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        print(f"threepipe: {text}", file=sys.stderr)  # noqa: T201  # Wireshark shows it.
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "threepipe-extcap",
        description="Wireshark runs this to list and capture threepipe's adapters and pipes: link it into the folder"
        " that Wireshark names under Help, About, Folders, Extcap.",
        allow_abbrev=False,
    )
    question = parser.add_mutually_exclusive_group()
    question.add_argument("--extcap-interfaces", action="store_true", help="list what can be captured")
    question.add_argument("--extcap-dlts", action="store_true", help="say what kind of packets there are")
    question.add_argument("--extcap-config", action="store_true", help="list options, of which there are none")
    question.add_argument("--capture", action="store_true", help="capture")
    parser.add_argument("--extcap-version", nargs="?", metavar="VERSION", help="the version of Wireshark that asks")
    parser.add_argument("--extcap-interface", metavar="INTERFACE", help="what to capture, as listed")
    parser.add_argument("--extcap-capture-filter", metavar="FILTER", help="is refused: there are no capture filters")
    parser.add_argument("--fifo", metavar="PATH", help="where to write pcapng to")
    return parser


def _answer(asked: argparse.Namespace) -> None:
    if asked.extcap_interfaces:
        _say([f"extcap {{version={__version__}}}{{display=threepipe}}", *_interfaces()])
    elif asked.extcap_dlts:
        from threepipe.capture.links import RAW

        _say([f"dlt {{number={RAW}}}{{name=RAW}}{{display=Raw IP}}"])
    elif asked.capture:
        _capture(asked.extcap_interface, asked.fifo, asked.extcap_capture_filter)
    elif asked.extcap_capture_filter:
        _say([_NO_FILTER])  # Wireshark takes any answer for a refusal.
    elif not asked.extcap_config:
        _parser().print_help(sys.stderr)


def _interfaces() -> list[str]:
    from threepipe.adapter import adapters
    from threepipe.capture.running import running

    named = {pipe.name: f"threepipe pipe {pipe.left} {pipe.right}" for pipe in running()}
    try:
        named |= {info.name: f"threepipe adapter {info.name}" for info in adapters()}
    except AdapterError:
        pass  # A system without adapters has pipes all the same.
    return [
        f"interface {{value={_PREFIX}{name}}}{{display={display.translate(_BRACES)}}}"
        for name, display in named.items()
        if name == name.translate(_BRACES) and name.isprintable()  # Others cannot be written here.
    ]


_BRACES = str.maketrans("{}\n\r", "()  ")


def _capture(interface: str | None, fifo: str | None, capture_filter: str | None) -> None:
    from threepipe.capture.file import CaptureFile
    from threepipe.capture.live import Recording, open_source, stopped_by_signals

    if not interface or not interface.startswith(_PREFIX) or not fifo:
        raise OSError(errno.EINVAL, f"--capture takes --extcap-interface {_PREFIX}NAME and --fifo PATH")
    if capture_filter:
        raise OSError(errno.EINVAL, _NO_FILTER)
    source = open_source(interface.removeprefix(_PREFIX))
    try:
        file = CaptureFile(fifo, source.name)
        recording = Recording(source, file)
        try:
            with stopped_by_signals(source):
                recording.run()
        except AdapterGone:
            pass  # So the capture ends, and what there was stays.
        finally:
            file.close(recording.summary.dropped)
    except BrokenPipeError:
        pass  # Wireshark has ended it.
    finally:
        source.close()


def _say(lines: Sequence[str]) -> None:
    sys.stdout.writelines([f"{line}\n" for line in lines])
    sys.stdout.flush()
