"""The constants and structures of the Linux platform, compared with this system's C headers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip(f"the headers of Linux are not on {sys.platform}", allow_module_level=True)

from threepipe import settings
from threepipe.platforms.linux import (
    addressing,
    enclosed,
    identity,
    inherited,
    namespace,
    netlink,
    next_hops,
    sniff,
    sockets,
    tun,
)
from threepipe.platforms.linux.service import server

HEADERS = ["sched.h", "stddef.h", "sys/ioctl.h", "sys/socket.h", "linux/if.h", "linux/if_tun.h", "linux/if_addr.h"]
HEADERS += ["linux/rtnetlink.h", "linux/if_packet.h", "linux/if_arp.h", "linux/if_ether.h", "linux/udp.h", "linux/in.h"]
HEADERS += [
    "linux/if_link.h",
    "linux/netlink.h",
    "linux/in6.h",
    "linux/virtio_net.h",
    "linux/prctl.h",
    "linux/capability.h",
]
HEADERS += ["linux/sockios.h", "linux/ethtool.h", "linux/mount.h"]

PREFIXES = (
    "IFF_",
    "TUN",
    "IFA_",
    "RTN_",
    "RTA_",
    "RTM_",
    "NLM_F_REQUEST",
    "IN6_ADDR_GEN_MODE_",
    "RT_",
    "CLONE_",
    "SOL_PACKET",
    "PACKET_",
    "ETH_P_",
    "ARPHRD_",
    "SO_",
    "UDP_",
    "IP_",
    "IPV6_",
    "PR_",
    "CAP_",
    "SIOC",
    "ETHTOOL_",
    "MS_",
)

OTHER_NAMES = {"_IFF_TUN_TYPE": "IFF_TUN"}
"""Our names of constants, and the kernel's names where they differ."""

_OFFSET_OF_TYPE = 7
_GROUPS = ["IPV4_IFADDR", "IPV4_ROUTE", "IPV4_RULE", "IPV6_IFADDR", "IPV6_ROUTE", "IPV6_RULE", "NEXTHOP"]

NEWER = {"TUN_F_USO4", "TUN_F_USO6", "TUN_F_UDP_TUNNEL_GSO", "TUN_F_UDP_TUNNEL_GSO_CSUM", "IFF_BACKPRESSURE"}
"""Constants of Linux 6.2, 6.17 and 7.3: compared if the headers have them."""


def constants() -> dict[str, int]:
    """Return the constants of our files, by their names in the headers."""
    found = {}
    modules = (tun, inherited, netlink, addressing, next_hops, namespace, sniff, sockets, identity, enclosed, server)
    for module in modules:
        for own, value in vars(module).items():
            name = OTHER_NAMES.get(own, own.lstrip("_"))
            if name.startswith(PREFIXES) and isinstance(value, int):
                found[name] = value
    return found


def assertions() -> list[str]:
    """Return the other conditions, as C expressions."""
    size = tun.IFREQ.size
    groups = " | ".join(f"1u << (RTNLGRP_{group} - 1)" for group in _GROUPS)
    return [
        f"IFNAMSIZ == {settings.MAX_NAME + 1}",
        # The kernel copies a whole structure in and out; the smaller one of 32-bit systems fits in it.
        f"sizeof(struct ifreq) <= {size}",
        f"sizeof(long) != 8 || sizeof(struct ifreq) == {size}",
        "offsetof(struct ifreq, ifr_name) == 0",
        f"offsetof(struct ifreq, ifr_flags) == {settings.MAX_NAME + 1}",
        "sizeof(((struct ifreq *)0)->ifr_flags) == 2",
        "sizeof(int) == 4",
        f"sizeof(struct tpacket_stats) == {sniff._STATISTICS.size}",
        f"_LINUX_CAPABILITY_VERSION_3 == {identity._LINUX_CAPABILITY_VERSION_3}",
        f"sizeof(struct nlmsghdr) == {next_hops._HEADER.size}",
        f"sizeof(struct rtmsg) == {next_hops._ROUTE.size}",
        f"offsetof(struct rtmsg, rtm_type) == {_OFFSET_OF_TYPE}",
        f"sizeof(struct rtattr) == {next_hops._ATTRIBUTE.size}",
        f"offsetof(struct rtvia, rtvia_addr) == {next_hops._FAMILY_SIZE}",
        f"(1u << (RTNLGRP_LINK - 1) | {groups}) == {next_hops._GROUPS}u",
        f"sizeof(struct tun_pi) == {inherited._INFORMATION_SIZE}",
    ]


def test_the_list_of_constants_has_those_of_every_file() -> None:
    names = set(constants())
    assert {"IFF_TUN", "IFF_UP", "TUNSETIFF", "TUNSETCARRIER", "TUN_F_USO6", "IFA_F_NODAD", "RT_SCOPE_LINK"} <= names
    assert {"CLONE_NEWNET", "CLONE_NEWUSER", "PR_CAP_AMBIENT", "CAP_NET_ADMIN"} <= names


@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no gcc to compile against the headers with")
def test_constants_and_structures_equal_those_of_the_headers(tmp_path: Path) -> None:
    lines = ["#define _GNU_SOURCE", *[f"#include <{header}>" for header in HEADERS]]
    for name, value in constants().items():
        check = f'_Static_assert((unsigned long){name} == {value:#x}, "our value differs");'
        lines += [f"#ifdef {name}", check, "#endif"] if name in NEWER else [check]
    lines += [f'_Static_assert({text}, "our value differs");' for text in assertions()]
    source = tmp_path / "constants.c"
    source.write_text("\n".join(lines) + "\n")
    command = ["gcc", "-std=c11", "-Wall", "-Werror", "-fsyntax-only", str(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
