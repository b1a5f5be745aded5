"""The forwarder on pytun-pmd3: each direction has a thread that blocks in os.read, without the GIL."""

from pytun_pmd3 import TunTapDevice
from pytun_pmd3.linux import IFF_NO_PI, IFF_TUN

from benchmarks.forwarders.common import LEFT, Device, main, peer_roles


def open_device(name: str) -> Device:
    device: Device = TunTapDevice(name=name, flags=IFF_TUN | IFF_NO_PI)
    return device


def create() -> None:
    device = TunTapDevice(name=LEFT, flags=IFF_TUN | IFF_NO_PI)
    device.addr = "fd98::1"  # It sets IPv6 addresses only.
    device.up()
    device.close()


if __name__ == "__main__":
    main(peer_roles(open_device, create))
