"""Finds out whether the native core can be used, and refuses one that is not of this version.

Knows nothing of the core's work; `fast` chooses between its functions and Python's.
"""

import os
from importlib import import_module
from importlib.machinery import PathFinder

from threepipe._version import __version__

__all__ = ["obstacle"]

_NAME = "threepipe._native"
_SEPARATE = (
    "threepipe-native, an older native core, is installed here; the core is part of threepipe now;"
    " run: pip uninstall threepipe-native"
)
_ANOTHER = (
    "the native core {file} is of version {found}, and threepipe is {wanted}; run:"
    " pip install --force-reinstall threepipe (in a checkout: make .venv/native)"
)


def obstacle() -> str:
    """Return why the native core cannot be used, or an empty string if it can.

    Raises ImportError for a core of another version, which is in the package's folder after an incomplete update.
    Nothing is looked for if THREEPIPE_PURE=1 disables the core.
    """
    if os.environ.get("THREEPIPE_PURE", "0") not in ("", "0"):
        return "disabled by THREEPIPE_PURE"
    if PathFinder.find_spec("threepipe_native"):
        raise ImportError(_SEPARATE, name=_NAME)
    try:
        core = import_module(_NAME)
    except ModuleNotFoundError:
        return "this installation has none"
    except (ImportError, SystemError) as error:  # A free-threaded Python raises the latter for this stable ABI.
        return str(error)
    found = getattr(core, "VERSION", "unknown")
    if found != __version__:
        raise ImportError(_ANOTHER.format(file=core.__file__, found=found, wanted=__version__), name=_NAME)
    return ""
