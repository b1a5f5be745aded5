"""scapy's TunTapInterface, by its public interface.

Packets are passed on undissected (`recv_raw`, and `send` of a raw layer): scapy's own dissection of each would
only make it slower. It configures no interface; its users do that with `ip`, and so does `create`.
"""

import subprocess
from typing import Any

from scapy.layers.tuntap import LinuxTunPacketInfo, TunTapInterface
from scapy.packet import Raw

from benchmarks.forwarders.common import LEFT, Device, main, peer_roles

_open: Any = TunTapInterface  # Its methods have no types.
_TYPES = {4: 0x0800, 6: 0x86DD}


class ScapyDevice:
    """Reads and writes bytes, as the other peers do."""

    def __init__(self, name: str) -> None:
        tun = _open(name, mode_tun=True, strip_packet_info=False)
        self._receive, self._send = tun.recv_raw, tun.send

    def read(self, size: int, /) -> bytes:
        packet: bytes = self._receive(size)[1][4:]  # The packet information, which scapy would decode to strip.
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
