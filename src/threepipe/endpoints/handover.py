"""Handing an adapter to another program, which this process becomes.

The program inherits the descriptor, told by every convention that fits the form of its packets. As the program takes
this process's place, signals reach it and its exit status is its own; as it alone has the descriptor, the interface
goes with it, however it ends. Only routing rules need a process that stays, to remove them: see `keeper`.
"""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, NoReturn

from threepipe import platforms
from threepipe.adapter import DEFAULT_CAPACITY, allows_offload
from threepipe.endpoints.adapter_openers import open_adapter, versions_of
from threepipe.endpoints.address import EndpointAddress, parse_address
from threepipe.endpoints.environment import FIRST_LISTED, count_listed, names_listed, without_numbers
from threepipe.endpoints.keeper import start_keeper
from threepipe.endpoints.kinds import NEW_NAMESPACE
from threepipe.endpoints.process import fill_in
from threepipe.endpoints.request import OpenRequest, RateLimitedLog
from threepipe.errors import EndpointError, InvalidSetting
from threepipe.net.connect import endpoint_errors

__all__ = ["HEADERS", "Header", "Order", "conventions"]

Header = Literal["none", "vnet", "packet-information"]
"""The bytes before each packet on the descriptor: none, a virtio header (10), or a `struct tun_pi` (4)."""

HEADERS: Mapping[str, tuple[str, ...]] = {
    "none": ("WG_TUN_FD", "VPNFD", "XRAY_TUN_FD"),
    "vnet": ("WG_TUN_FD",),
    "packet-information": ("WG_TUN_FD",),
}
"""Each form, and the variables whose programs may expect it: wireguard-go and boringtun, ocproxy, Xray."""

_SIGNALS = ("SIGPIPE", "SIGXFZ", "SIGXFSZ")  # Python ignores them, and programs would inherit that.


class Order(NamedTuple):
    """A program to start with an adapter of its own."""

    address: EndpointAddress
    words: Sequence[str]
    header: Header = "none"
    user: str | None = None
    keep_net_admin: bool = False

    @classmethod
    def parse(
        cls, tun: str, words: Sequence[str], header: str, user: str | None = None, keep_net_admin: bool = False
    ) -> "Order":
        """Return the order for a `tun` address without its kind. Raises `InvalidSetting` if it cannot work."""
        if header not in HEADERS:
            raise InvalidSetting(f"header {header!r}: give one of {', '.join(HEADERS)}")
        address = parse_address(f"tun:{tun}")
        if "offload" in address.options:
            raise InvalidSetting("the form with superpackets is --header vnet; leave out offload")
        if address.options.get("netns") == NEW_NAMESPACE:
            raise InvalidSetting("a new namespace is for threepipe pipe; give an existing one, or leave out netns")
        if address.options.get("queues", 1) > 1:
            raise InvalidSetting("the program gets one descriptor, which is one queue; leave out queues")
        if keep_net_admin and user is None and not _geteuid():
            raise InvalidSetting("root's programs have CAP_NET_ADMIN anyway; leave out --keep-net-admin, or add --user")
        return cls(address, words, header, user, keep_net_admin)  # type: ignore[arg-type]  # It was checked above.

    def run(self) -> NoReturn:
        """Make the adapter and become the program.

        On an error nothing is left but a persistent adapter. Raises `AdapterError`, `EndpointError` if the program
        cannot be started, and `InvalidSetting`.
        """
        if not platforms.INHERITS_DESCRIPTORS:
            raise InvalidSetting("programs do not inherit descriptors on Windows; join them with threepipe pipe")
        if self.header == "vnet" and not allows_offload():
            raise InvalidSetting("THREEPIPE_NO_OFFLOAD refuses the form with superpackets; unset it")
        program = self.words[0]
        if shutil.which(program) is None:
            raise EndpointError(errno.ENOENT, f"starting {program}: it is not there, or not executable; install it")
        user = None if self.user is None else platforms.find_user(self.user)
        options = {name.replace("-", "_"): value for name, value in self.address.options.items()}
        mark, capacity = options.pop("default_route", None), options.pop("capacity", DEFAULT_CAPACITY)
        form: dict[str, Any] = {
            "offload": self.header == "vnet",
            "packet_information": self.header == "packet-information",
        }
        request = OpenRequest(self.address.parameter, "left", RateLimitedLog(self.address.text))
        with open_adapter(request, **options, **form) as adapter:
            mtu = adapter.mtu
            if mark is not None:
                start_keeper(adapter.index, versions_of(adapter), mark)
            number = adapter.detach(capacity)
        with endpoint_errors(f"starting {program}", {errno.EACCES: "let that user execute it"}):
            number, listed = _place(number)
            environment = without_numbers(os.environ)  # Those of a program around this one may have another form.
            environment |= user.environment if user else {}
            environment |= conventions(self.header, number, mtu, os.environ, listed=listed)
            platforms.become(user, keep_net_admin=self.keep_net_admin)
            for name in _SIGNALS:
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), signal.SIG_DFL)
            sys.stdout.flush()
            os.execvpe(program, fill_in(self.words, number), environment)


def conventions(
    header: Header, number: int, mtu: int, inherited: Mapping[str, str], *, listed: bool = True
) -> dict[str, str]:
    """Return the variables that tell a program of the descriptor `number`, which stands last in systemd's list.

    `inherited` has the variables so far: descriptors in its list stay there. Without `listed` the list is left out,
    as it has no room for `number`.
    """
    variables = dict.fromkeys(HEADERS[header], str(number))
    if "VPNFD" in variables and "INTERNAL_IP4_MTU" not in inherited:
        variables["INTERNAL_IP4_MTU"] = str(mtu)
    if listed:
        names = [*names_listed(inherited), "tun"]
        variables |= {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(names)),
            "LISTEN_FDNAMES": ":".join(names),
        }
    return variables


def _place(number: int) -> tuple[int, bool]:
    """Move the descriptor to the number that follows those of systemd's list, and let the program inherit it.

    Return its number, and whether it is that one: a descriptor of the caller's is not replaced.
    """
    wanted = FIRST_LISTED + count_listed(os.environ)
    with suppress(OSError):
        if number != wanted and os.get_inheritable(wanted):
            os.set_inheritable(number, True)
            return number, False
    if number != wanted:
        os.dup2(number, wanted)
        os.close(number)
    os.set_inheritable(wanted, True)
    return wanted, True


def _geteuid() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else -1
