"""The abilities of this Windows, found by looking. Creates no adapter, as the first one installs a driver."""

import sys

assert sys.platform == "win32"

import ctypes
import hashlib
import platform
import sysconfig
import winreg

from threepipe.backend import Finding
from threepipe.errors import AdapterError
from threepipe.platforms.windows.library import find_library, is_named, load_library, unload_library
from threepipe.platforms.windows.release import RELEASE
from threepipe.platforms.windows.running import running_version

__all__ = ["probe"]

_IPV6_KEY = r"SYSTEM\CurrentControlSet\Services\Tcpip6\Parameters"
_IPV6_VALUE = "DisabledComponents"
_OFF_FOR_ADAPTERS = 0x10  # All interfaces except tunnels of the system, says Microsoft's guide.


def probe() -> list[Finding]:
    """Return findings in the order to show; adapters can be created if every essential one is `ok`."""
    library = _library()
    return [_system(), _administrator(), library, *([_driver()] if library.ok else []), _ipv6()]


def _system() -> Finding:
    return Finding(
        "system", True, f"Windows {platform.version()} on {platform.machine()}, Python of {sysconfig.get_platform()}"
    )


def _administrator() -> Finding:
    name = "administrator"
    if ctypes.WinDLL("shell32").IsUserAnAdmin():
        return Finding(name, True, "this program has administrator rights", essential=True)
    advice = "use an elevated terminal: Run as administrator"
    return Finding(name, False, "creating adapters needs administrator rights", advice, essential=True)


def _library() -> Finding:
    name = "wintun.dll"
    try:
        path = find_library()
        unload_library(load_library(path))
        own = hashlib.sha256(path.read_bytes()).hexdigest()
    except AdapterError as error:
        # The error's text has the advice after a semicolon.
        detail, _, advice = str(error.strerror).partition("; ")
        return Finding(name, False, detail, advice, essential=True)
    known = own in RELEASE.dll_hashes.values()
    what = f"Wintun {RELEASE.version}" if known else "another release or another program's"
    whose = "; chosen by the user" if is_named(path) else ""
    return Finding(name, True, f"{path}: {what} (SHA-256 {own}){whose}", essential=True)


def _driver() -> Finding:
    name = "driver"
    try:
        version = running_version()
    except AdapterError as error:
        return Finding(name, False, str(error.strerror), "run: threepipe driver install")
    if version is None:
        return Finding(name, True, "none runs: Windows loads it for the first adapter")
    return Finding(name, True, f"version {version} runs")


def _ipv6() -> Finding:
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _IPV6_KEY) as key:
            disabled, _ = winreg.QueryValueEx(key, _IPV6_VALUE)
    except OSError:
        disabled = 0  # The key and the value are optional.
    if disabled & _OFF_FOR_ADAPTERS:
        advice = f"remove {_IPV6_VALUE} from HKLM\\{_IPV6_KEY} and restart Windows"
        return Finding("IPv6", False, f"{_IPV6_VALUE} is {disabled:#x}: IPv6 is disabled for adapters", advice)
    return Finding("IPv6", True, "new adapters have IPv6")
