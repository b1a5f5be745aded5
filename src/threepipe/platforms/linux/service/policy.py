"""The policy of the service: which callers get which adapters. A TOML file, read and applied; knows no sockets.

```toml
[[allow]]
users = ["ann", 1001]              # names or ids
groups = ["vpn"]                   # their members too
names = ["vpn%d", "ann-*"]         # %d stands for a number, * for anything
addresses = ["10.6.0.0/16", "fd67::/64"]
routes = ["10.0.0.0/8"]
namespaces = ["blue"]              # besides that of the service
adapters = 4                       # at once, for each user
queues = 1
```
"""

import sys

assert sys.platform == "linux"

import errno
import grp
import pwd
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from threepipe.errors import EndpointError, InvalidSetting, PermissionDenied
from threepipe.settings import MAX_QUEUES, AdapterSettings, Address, Network, parse_routes, unknown_name

__all__ = ["Caller", "Policy", "Rule", "read_policy"]

_MAX_ID = 0xFFFFFFFE
_DEFAULT_ADAPTERS = 4
_NAMESPACE = re.compile(r"(?!\.{1,2}\Z)[^/\0]{1,255}")


class Caller(NamedTuple):
    """A process that asks, as the kernel knows it."""

    pid: int
    uid: int
    gids: frozenset[int]

    def __str__(self) -> str:
        try:
            name = f"{pwd.getpwuid(self.uid).pw_name} ({self.uid})"
        except KeyError:
            name = str(self.uid)
        return f"user {name}, process {self.pid}"


class Rule(NamedTuple):
    """One section: its users and groups, and the adapters that it allows them."""

    uids: frozenset[int]
    gids: frozenset[int]
    names: tuple[str, ...]
    addresses: tuple[Network, ...]
    routes: tuple[Network, ...]
    namespaces: tuple[str, ...]
    adapters: int
    queues: int

    def is_for(self, caller: Caller) -> bool:
        return caller.uid in self.uids or bool(self.gids & caller.gids)

    def refusals(self, settings: AdapterSettings, held: int) -> Iterator[str]:
        """Yield why an adapter is refused to a caller whose user has `held` by this rule."""
        if not any(_pattern(each).fullmatch(settings.name) for each in self.names):
            yield f"the name {settings.name!r} (allowed: {_listed(self.names)})"
        for address in settings.addresses:
            yield from self.refused_address(address)
        for route in settings.routes:
            yield from self.refused_route(route)
        if settings.netns is not None:
            name = str(settings.netns)
            if not _NAMESPACE.fullmatch(name) or not any(_pattern(each).fullmatch(name) for each in self.namespaces):
                yield f"the namespace {name!r} (allowed: {_listed(self.namespaces)})"
        if settings.queues > self.queues:
            yield f"{settings.queues} queues (allowed: {self.queues})"
        if held >= self.adapters:
            yield f"another adapter (allowed: {self.adapters} at once)"

    def refused_address(self, address: Address) -> Iterator[str]:
        # The kernel routes all of the address's network to the adapter.
        if not _within(address.network, self.addresses):
            yield f"the address {address} (allowed: {_listed(self.addresses)})"

    def refused_route(self, route: Network) -> Iterator[str]:
        if not _within(route, self.routes):
            yield f"the route {route} (allowed: {_listed(self.routes)})"


class Policy(NamedTuple):
    """All rules, in the order of the file."""

    rules: tuple[Rule, ...]

    def rules_for(self, caller: Caller) -> list[Rule]:
        """Return the rules for a caller. Raises `PermissionDenied` if no rule names it."""
        if rules := [rule for rule in self.rules if rule.is_for(caller)]:
            return rules
        raise _refusal(f"user {caller.uid}: it has no rule for this user or its groups")

    def grant(self, caller: Caller, settings: AdapterSettings, held: Callable[[Rule], int]) -> Rule:
        """Return the first rule that allows all of an adapter; `held` tells how many the user has by a rule.

        Raises `PermissionDenied` with the refusals of the rule that comes closest.
        """
        closest: list[str] = []
        for rule in self.rules_for(caller):
            reasons = list(rule.refusals(settings, held(rule)))
            if not reasons:
                return rule
            if not closest or len(reasons) < len(closest):
                closest = reasons
        raise _refusal(", ".join(closest))


def _refusal(text: str) -> PermissionDenied:
    return PermissionDenied(errno.EPERM, f"the policy of threepipe serve refuses {text}; ask who runs it")


def _within(network: Network, allowed: tuple[Network, ...]) -> bool:
    return any(network.version == each.version and network.subnet_of(each) for each in allowed)  # type: ignore[arg-type]


def _listed(items: tuple[Any, ...]) -> str:
    return ", ".join(map(str, items)) or "none"


def _pattern(text: str) -> re.Pattern[str]:
    """Return the pattern of a name: `*` matches anything, and `%d` matches itself or a number."""
    parts = {"*": ".*", "%d": r"(?:%d|[0-9]+)"}
    return re.compile("".join(parts.get(each) or re.escape(each) for each in re.split(r"(\*|%d)", text)), re.DOTALL)


def read_policy(path: Path) -> Policy:
    """Read a policy. Raises `InvalidSetting`, which names the section and key, and `EndpointError`."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        text = f"{path}: {error.strerror}; write a policy there, see docs/security.md"
        raise EndpointError(error.errno, text) from None
    except ValueError as error:
        raise InvalidSetting(f"{path}: {error}; correct the file, which is TOML") from None
    sections = document.pop("allow", [])
    if document:
        raise InvalidSetting(f"{path}: {unknown_name('section', next(iter(document)), ['allow'])}")
    if not isinstance(sections, list) or not all(isinstance(section, dict) for section in sections):
        raise InvalidSetting(f"{path}: allow is not a list of sections; write [[allow]]")
    rules = []
    for number, section in enumerate(sections, 1):
        try:
            rules.append(_rule(section))
        except InvalidSetting as error:
            raise InvalidSetting(f"{path}: section {number} of allow: {error}") from None
    return Policy(tuple(rules))


def _rule(section: dict[str, Any]) -> Rule:
    for key in section:
        if key not in _KEYS:
            raise unknown_name("key", key, _KEYS)
    rule = Rule(*(read(key, section.get(key, default)) for key, (read, default) in _KEYS.items()))
    if not rule.uids and not rule.gids:
        raise InvalidSetting("it names no users and no groups; name some")
    if not rule.names:
        raise InvalidSetting("it has no names of adapters; give some, such as 'vpn%d'")
    return rule


def _items(key: str, value: object, kinds: type | tuple[type, ...]) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(each, kinds) and not isinstance(each, bool) for each in value):
        raise InvalidSetting(f"{key} is not a list of the right kind; write it like the example in docs/security.md")
    return value


def _ids(look_up: Callable[[str], int]) -> Callable[[str, object], frozenset[int]]:
    def read(key: str, value: object) -> frozenset[int]:
        found = set()
        for each in _items(key, value, (str, int)):
            try:
                number = each if isinstance(each, int) else look_up(each)
            except KeyError:
                raise InvalidSetting(f"{key}: {each!r} does not exist on this machine; give a name or an id") from None
            if not 0 <= number <= _MAX_ID:
                raise InvalidSetting(f"{key}: ids range from 0 to {_MAX_ID}; correct {each}")
            found.add(number)
        return frozenset(found)

    return read


def _texts(key: str, value: object) -> tuple[str, ...]:
    return tuple(_items(key, value, str))


def _networks(key: str, value: object) -> tuple[Network, ...]:
    try:
        return parse_routes(_items(key, value, str))
    except InvalidSetting as error:
        raise InvalidSetting(f"{key}: {error}") from None


def _count(high: int) -> Callable[[str, object], int]:
    def read(key: str, value: object) -> int:
        if type(value) is not int or not 1 <= value <= high:
            raise InvalidSetting(f"{key} is not a number from 1 to {high}; give one")
        return value

    return read


_KEYS: dict[str, tuple[Callable[[str, Any], Any], object]] = {
    "users": (_ids(lambda name: pwd.getpwnam(name).pw_uid), []),
    "groups": (_ids(lambda name: grp.getgrnam(name).gr_gid), []),
    "names": (_texts, []),
    "addresses": (_networks, []),
    "routes": (_networks, []),
    "namespaces": (_texts, []),
    "adapters": (_count(1024), _DEFAULT_ADAPTERS),
    "queues": (_count(MAX_QUEUES - 3), 1),  # The descriptors of one message, less the one to send by.
}
"""Each key of a section in the order of `Rule`: how it is read, and its default."""
