"""The numbers and structures of macOS and the BSDs, compared with those systems' C headers for every 64-bit machine.

ziglang's headers of macOS lack <netinet6/in6_var.h> and <sys/sys_domain.h>; docs/macos.md names what stays unchecked.
"""

from pathlib import Path
from types import ModuleType

import pytest

from tests.support.bsd.headers import TARGETS, complaints
from threepipe.platforms.bsd import darwin, freebsd, kind, messages, netbsd, openbsd, tun_hdr
from threepipe.platforms.bsd.kind import Kind, Message

MODULES: dict[str, ModuleType] = {"macos": darwin, "freebsd": freebsd, "netbsd": netbsd, "openbsd": openbsd}

CASES = [pytest.param(system, machine, id=f"{system}-{machine}") for system in TARGETS for machine in TARGETS[system]]


def message(name: str, prefix: str, layout: Message) -> list[str]:
    return [
        f"sizeof(struct {name}) == {layout.size}",
        f"offsetof(struct {name}, {prefix}_msglen) == 0",
        f"offsetof(struct {name}, {prefix}_version) == 2",
        f"offsetof(struct {name}, {prefix}_type) == 3",
        f"offsetof(struct {name}, {prefix}_index) == {layout.index}",
        f"offsetof(struct {name}, {prefix}_flags) == {layout.flags}",
        f"offsetof(struct {name}, {prefix}_addrs) == {layout.addrs}",
        f"sizeof(((struct {name} *)0)->{prefix}_index) == 2",
        f"sizeof(((struct {name} *)0)->{prefix}_flags) == 4",
    ]


def shared() -> list[str]:
    """Return the conditions on what all systems share."""
    names = ["AF_INET", "AF_LINK", "SOCK_DGRAM", "SOCK_RAW", "CTL_NET", "NET_RT_DUMP", "IFF_UP", "FIONBIO"]
    names += [name for name in vars(kind) if name.startswith(("RTM_", "RTA_", "RTF_"))]
    return [
        *(f"{name} == {getattr(kind, name):#x}" for name in names),
        f"IFNAMSIZ == {kind.NAME_SIZE}",
        "offsetof(struct ifreq, ifr_flags) == 16",
        "offsetof(struct ifreq, ifr_mtu) == 16",
        "sizeof(((struct ifreq *)0)->ifr_mtu) == 4",
        "sizeof(struct sockaddr_in) == 16",
        f"offsetof(struct sockaddr_in, sin_addr) == {messages._IPV4}",
        "sizeof(struct sockaddr_in6) == 28",
        f"offsetof(struct sockaddr_in6, sin6_addr) == {messages._IPV6}",
        f"offsetof(struct sockaddr_dl, sdl_data) == {messages._SDL.size}",
        "offsetof(struct sockaddr_dl, sdl_index) == 2",
        "offsetof(struct sockaddr_dl, sdl_nlen) == 5",
    ]


def numbers(system: str, known: Kind) -> list[str]:
    """Return the conditions on a system's own numbers."""
    counters, link = known.counters, "if_msghdr2" if system == "macos" else "if_msghdr"
    data = {name: getattr(counters, name) for name in ("mtu", "ipackets", "ierrors", "opackets", "ibytes", "obytes")}
    if system != "macos":
        data["collisions" if system == "netbsd" else "oqdrops"] = counters.dropped
    found = [
        f"AF_INET6 == {known.inet6}",
        f"PF_ROUTE == {known.route}",
        f"sizeof(struct ifreq) == {known.ifreq}",
        f"sizeof(struct sockaddr_dl) == {known.sockaddr_dl}",
        f"RTM_VERSION == {known.version}",
        *([f"RTF_IFSCOPE == {known.scoped:#x}"] if known.scoped else []),
        f"RTM_GET == {known.routes.type}",
        f"offsetof(struct rt_msghdr, rtm_seq) == {known.sequence}",
        *message("rt_msghdr", "rtm", known.routes),
        *message(link, "ifm", known.links),
        *message("ifa_msghdr", "ifam", known.addresses[0]),
        f"RTM_NEWADDR == {known.addresses[0].type}",
        f"{'RTM_IFINFO2' if system == 'macos' else 'RTM_IFINFO'} == {known.links.type}",
        f"{'NET_RT_IFLIST2' if system == 'macos' else 'NET_RT_IFLIST'} == {known.listings[0]}",
        *(f"offsetof(struct {link}, ifm_data.ifi_{name}) == {offset}" for name, offset in data.items()),
        f"sizeof(((struct {link} *)0)->ifm_data.ifi_mtu) == {counters.mtu_format.size}",
        *(f"sizeof(((struct {link} *)0)->ifm_data.ifi_{name}) == 8" for name in data if name != "mtu"),
        f"SIOCGIFFLAGS == {known.get_flags:#x}",
        f"SIOCSIFFLAGS == {known.set_flags:#x}",
        f"SIOCGIFMTU == {known.get_mtu:#x}",
        f"SIOCSIFMTU == {known.set_mtu:#x}",
        f"SIOCIFDESTROY == {known.destroy:#x}",
        f"SIOCAIFADDR == {known.add_address:#x}",
        f"SIOCDIFADDR == {known.remove_address:#x}",
    ]
    if known.has_header_length:
        found += [f"offsetof(struct {name}_hdrlen) == 4" for name in ("rt_msghdr, rtm", "if_msghdr, ifm")]
    aliases = "struct ifaliasreq" if system == "macos" else "struct in_aliasreq"
    other = "broadaddr" if system == "macos" else "dstaddr"
    found += [
        f"sizeof({aliases}) == {known.add_ipv4[1]}",
        f"offsetof({aliases}, ifra_addr) == 16",
        f"offsetof({aliases}, ifra_{other}) == 32",
        f"offsetof({aliases}, ifra_mask) == 48",
    ]
    if system == "macos":
        drops = "offsetof(struct if_msghdr2, ifm_snd_drops)"
        return [*found, f"{drops} == {counters.dropped}", "sizeof(((struct if_msghdr2 *)0)->ifm_snd_drops) == 4"]
    found += ipv6_addresses(known)
    if known.set_name is not None:
        found.append(f"SIOCSIFNAME == {known.set_name:#x}")
    if known.point_to_point is not None:
        found.append(f"IFT_PPP == {known.point_to_point}")
    if len(known.addresses) > 1:
        found += [f"RTM_ONEWADDR == {known.addresses[1].type}", f"NET_RT_OIFLIST == {known.listings[1]}"]
    return found


def ipv6_addresses(known: Kind) -> list[str]:
    """Return the conditions on requests about IPv6 addresses."""
    return [
        f"SIOCAIFADDR_IN6 == {known.add_address_in6:#x}",
        f"SIOCDIFADDR_IN6 == {known.remove_address_in6:#x}",
        f"sizeof(struct in6_aliasreq) == {known.add_ipv6[1]}",
        "offsetof(struct in6_aliasreq, ifra_addr) == 16",
        "offsetof(struct in6_aliasreq, ifra_dstaddr) == 44",
        "offsetof(struct in6_aliasreq, ifra_prefixmask) == 72",
        "offsetof(struct in6_aliasreq, ifra_flags) == 100",
        "offsetof(struct in6_aliasreq, ifra_lifetime) == 104",
        "offsetof(struct in6_addrlifetime, ia6t_vltime) == 16",
        "offsetof(struct in6_addrlifetime, ia6t_pltime) == 20",
        "ND6_INFINITE_LIFETIME == 0xffffffff",
    ]


def own(module: ModuleType) -> list[str]:
    """Return the conditions on the constants of a TUN driver."""
    prefixes = ("TUN", "SIOC", "UTUN_OPT_", "CTLIOC", "AF_", "IFCAP_", "ND6_", "SO_", "SOL_")
    constants = {name: value for name, value in vars(module).items() if name.startswith(prefixes)}
    found = [f"{name} == {value:#x}" for name, value in constants.items() if isinstance(value, int)]
    if module is freebsd:
        found += [f"sizeof(struct in6_ndireq) == {freebsd.IN6_NDIREQ}", "offsetof(struct in6_ndireq, ifname) == 0"]
        found += [f"offsetof(struct in6_ndireq, ndi.flags) == {freebsd.ND_FLAGS}"]
        found.append("sizeof(((struct in6_ndireq *)0)->ndi.flags) == 4")
    if module is netbsd:
        found.append(f"TUNMTU == {netbsd.KIND.largest_mtu}")
    if module is openbsd:
        found.append(f"TUNMRU == {openbsd.KIND.largest_mtu}")
        flags = {name: value for name, value in vars(tun_hdr).items() if name.startswith("TUN_H_")}
        found += [f"{name} == {value:#x}" for name, value in flags.items()]
        found += [f"sizeof(struct tun_hdr) == {tun_hdr.TUN_HDR.size}", "offsetof(struct tun_hdr, th_flags) == 0"]
        found += ["offsetof(struct tun_hdr, th_mss) == 6", "sizeof(struct tun_capabilities) == 4"]
    return found


@pytest.mark.parametrize(("system", "machine"), CASES)
def test_numbers_and_structures_equal_those_of_the_headers(system: str, machine: str, tmp_path: Path) -> None:
    module = MODULES[system]
    conditions = [*shared(), *numbers(system, module.KIND), *own(module)]
    assert complaints(tmp_path, system, machine, conditions) == ""


@pytest.mark.parametrize("system", TARGETS)
def test_a_wrong_number_fails_to_compile(system: str, tmp_path: Path) -> None:
    wrong = MODULES[system].KIND._replace(inet6=10, ifreq=40)
    right = set(numbers(system, MODULES[system].KIND))
    conditions = [each for each in numbers(system, wrong) if each not in right]
    assert len(conditions) >= 6
    found = complaints(tmp_path, system, TARGETS[system][0], conditions)
    assert found.count("static assertion failed") == len(conditions)


def test_the_list_of_constants_has_those_of_every_driver() -> None:
    names = {condition.partition(" ")[0] for module in MODULES.values() for condition in own(module)}
    assert names >= {"CTLIOCGINFO", "UTUN_OPT_IFNAME", "TUNSTRANSIENT", "TUNSIFHEAD", "SIOCIFCREATE", "TUNGIFNAME"}
    assert names >= {"TUNSCAP", "IFCAP_TSOv6", "TUN_H_TCP_MSS"}
