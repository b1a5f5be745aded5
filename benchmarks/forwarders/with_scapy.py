"""The forwarder on scapy's TunTapInterface.

It forwards packets undissected (`recv_raw`, and `send` of a raw layer), for dissection would only make it slower.
scapy configures no interface; its users do that with `ip`, and so does `create`.
"""

import subprocess
from typing import Any

from scapy.layers.tuntap import LinuxTunPacketInfo, TunTapInterface
from scapy.packet import Raw

from benchmarks.forwarders.common import LEFT, Device, main, peer_roles

_open: Any = TunTapInterface  # Its methods have no types.
_TYPES = {4: 0x0800, 6: 0x86DD}


class ScapyDevice:
    """A device that reads and writes bytes, as the other peers' devices do."""

    def __init__(self, name: str) -> None:
        tun = _open(name, mode_tun=True, strip_packet_info=False)
        self._receive, self._send = tun.recv_raw, tun.send

    def read(self, size: int, /) -> bytes:
        packet: bytes = self._receive(size)[1][
            4:
        ]  # Without the packet information, which scapy would decode before removing it.
        return packet

    def write(self, packet: bytes, /) -> object:
        return self._send(LinuxTunPacketInfo(type=_TYPES[packet[0] >> 4]) / Raw(packet))


def open_device(name: str) -> Device:
    return ScapyDevice(name)


def create() -> None:
    tun = _open(LEFT, mode_tun=True)
    for command in ("addr add 10.98.0.1/24 dev", "link set up dev"):
        subprocess.run(["ip", *command.split(), LEFT], check=True)
    tun.close()


if __name__ == "__main__":
    main(peer_roles(open_device, create))
