"""The forwarder on python-pytun. Its calls release the GIL, so each direction has a thread that blocks."""

from pytun import IFF_NO_PI, IFF_TUN, TunTapDevice

from benchmarks.forwarders.common import LEFT, Device, main, peer_roles


def open_device(name: str) -> Device:
    device: Device = TunTapDevice(name=name, flags=IFF_TUN | IFF_NO_PI)
    return device


def create() -> None:
    device = TunTapDevice(name=LEFT, flags=IFF_TUN | IFF_NO_PI)
    device.addr = "10.98.0.1"
    device.netmask = "255.255.255.0"
    device.up()
    device.close()


if __name__ == "__main__":
    main(peer_roles(open_device, create))
