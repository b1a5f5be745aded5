"""The start of the programs `threepipe`, `threepipe-extcap` and `threepipe-wg`; also `python -m threepipe`.

Loading the libraries of a program takes longest, before it can handle anything. Ctrl-C and want of memory at that time
end it without a traceback, and the lack of a library that an extra brings with one line. Standard streams that were
closed are null, so that no file or socket gets their numbers.
"""

import os
import signal
import sys
from importlib import import_module

__all__ = ["extcap", "main", "wireguard"]

_INTERRUPTED = 130  # As in shells: 128 plus the number of SIGINT.
_SHORTAGES = (
    (MemoryError, ""),
    (RuntimeError, "can't start new thread"),
    (ImportError, "cannot allocate memory"),
    (ImportError, "failed to map segment"),
    (OSError, os.strerror(12)),
    (SystemError, "without exception set"),
)
"""The exceptions for which Python or a system call had no memory, and what their texts contain."""
_ADVICE = (
    "memory ran out, or the system allows no further thread; raise the limit (ulimit -v and -u; in a service MemoryMax,"
    " LimitAS and TasksMax) or end other programs"
)

_EXTRAS = {"typer": "cli", "rich": "cli", "cryptography": "wireguard"}
"""The extra that brings each library."""


def main() -> int | None:
    """Run the command line."""
    return _run("threepipe.cli", "threepipe")


def extcap() -> int | None:
    """Run the program that Wireshark starts."""
    return _run("threepipe.capture.extcap", "threepipe")


def wireguard() -> int | None:
    """Run a WireGuard device in a process of its own."""
    return _run("threepipe.wireguard.quick.daemon", "threepipe-wg")


def _run(module: str, program: str) -> int | None:
    """Call `main` of the module and return the exit status."""
    _open_standard_streams()
    handler = signal.getsignal(signal.SIGINT)
    try:
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # There is nothing to undo yet.
        run = import_module(module).main
        signal.signal(signal.SIGINT, handler)
        status: int | None = run()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        if not (text := _ADVICE if _is_shortage(error) else _advice_on_installation(error)):
            raise
        os.write(2, f"{program}: {text}\n".encode())
        return 1
    return status


def _open_standard_streams() -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # It gets the lowest free number, which is that of the stream.
            stream = open(descriptor, "w" if number else "r", closefd=False)  # noqa: SIM115  # Until this process ends.
            setattr(sys, name, stream)


def _is_shortage(error: BaseException | None) -> bool:
    """Return True if want of memory caused the error, perhaps by way of other errors."""
    while error is not None:
        text = str(error).lower()
        if any(isinstance(error, kind) and words.lower() in text for kind, words in _SHORTAGES):
            return True
        error = error.__cause__ or error.__context__
    return False


def _advice_on_installation(error: Exception) -> str:
    """Return what to install if that is the fault, or an empty string."""
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        return f'{error.name} is not installed; run: pip install "threepipe[{_EXTRAS[error.name]}]"'
    return ""


if __name__ == "__main__":
    sys.exit(main())
