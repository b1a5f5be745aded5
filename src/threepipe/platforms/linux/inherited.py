"""TUN descriptors that another program created and handed over: finding out their kind, and a port for each.

The interface belongs to its creator: its link, addresses, flags and the size of its virtio header stay unchanged.
If packets have that header, the port sets which superpackets the kernel may send. A creator that asks for the header
leaves this to the reader (as for QEMU and wireguard-go), since only the reader knows which superpackets it can split.
The setting cannot be read back, and is switched off at the end.

The constants are those of <linux/if_tun.h>; a test compares them with the header.
"""

import sys

assert sys.platform == "linux"

import errno
import fcntl
import io
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from threepipe.backend import Port
from threepipe.core import fast
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD
from threepipe.errors import AdapterError, AdapterGone, InvalidSetting
from threepipe.platforms.linux import tun
from threepipe.platforms.linux.port import LinuxPort

__all__ = ["PACKET_INFORMATION", "Inherited", "Prefix", "inspect", "open_inherited"]

TUNGETVNETHDRSZ = 0x800454D7

_MAX_HEADER = 256  # Bytes of a virtio header; the longest in Linux has 24.
PACKET_INFORMATION = {4: b"\0\0\x08\x00", 6: b"\0\0\x86\xdd"}
"""The `struct tun_pi` of an IP version: no flags, and the EtherType."""
_INFORMATION_SIZE = 4


class Prefix(NamedTuple):
    """The bytes before each packet on the descriptor.

    Records in memory have no `struct tun_pi`, and a virtio header of 10 bytes: the rest of a longer header is about
    merged buffers and hashes, which a TUN device does not have. The methods are those of `core.descriptor`.
    """

    information: bool
    """True if packets have a `struct tun_pi`."""
    header: int
    """Bytes of the virtio header, or 0."""

    def receive(self, file: io.FileIO, memory: memoryview, limit: int) -> list[memoryview]:
        """Receive records as `core.descriptor.receive` does, one per system call."""
        descriptor, used = file.fileno(), 0
        front = [bytearray(_INFORMATION_SIZE)] if self.information else []
        padding = bytearray(max(0, self.header - HEADER_SIZE))
        extra = sum(map(len, front)) + len(padding)
        header = HEADER_SIZE if self.header else 0
        records: list[memoryview] = []
        last = len(memory) - MAX_RECORD
        try:
            while used <= last and len(records) < limit:
                packet = used + header
                size = os.readv(descriptor, [*front, memory[used:packet], padding, memory[packet:]]) - extra
                records.append(memory[used : used + size])
                used += size
        except BlockingIOError:
            pass  # Nothing more is ready.
        except OSError:
            if not records:
                raise
        return records

    def send(self, file: io.FileIO, records: Sequence[memoryview]) -> tuple[int, int]:
        """Send records as `core.descriptor.send` does, one per system call."""
        descriptor, written = file.fileno(), 0
        padding = bytes(max(0, self.header - HEADER_SIZE))
        header = HEADER_SIZE if self.header else 0
        try:
            for record in records:
                front = PACKET_INFORMATION[record[header] >> 4] if self.information else b""
                os.writev(descriptor, [front, record[:header], padding, record[header:]])
                written += 1
        except BlockingIOError:
            return written, 0
        except OSError as error:
            return written, error.errno or 0
        return written, 0


class Inherited(NamedTuple):
    """A descriptor that was found to be of a TUN device."""

    file: io.FileIO
    name: str
    prefix: Prefix
    offload: tun.Offload
    """The superpackets that the kernel may send."""

    def port(self, let_go: Callable[[], None]) -> LinuxPort:
        """Return a port, which calls `let_go` at its end."""
        own = not self.prefix.information and self.prefix.header in (0, HEADER_SIZE)
        return LinuxPort([self.file], self.file, self.name, self.offload, let_go, fast if own else self.prefix)

    def refuse_superpackets(self) -> None:
        """Have the kernel send no more superpackets."""
        if self.prefix.header:
            with suppress(AdapterGone):  # No program can read from it.
                tun.control(self.file, tun.TUNSETOFFLOAD, tun.Offload.NONE.value)


def open_inherited(number: int) -> Port | None:
    """Return a port on the descriptor `number`; return None if it is not of a TUN device.

    The port owns the descriptor and makes it non-blocking; a refused descriptor stays unchanged. Raises
    `InvalidSetting` for a TAP device, and for a descriptor without an interface.
    """
    found = inspect(number)
    if found is None:
        return None

    def let_go() -> None:
        found.refuse_superpackets()
        found.file.close()

    return found.port(let_go)


def inspect(number: int) -> Inherited | None:
    """Find out the form of packets on the descriptor `number`, and own it, as `open_inherited` does."""
    try:
        reply = fcntl.ioctl(number, tun.TUNGETIFF, bytes(tun.IFREQ.size))
    except OSError as error:
        if error.errno != errno.EBADFD:
            return None
        raise InvalidSetting(
            f"descriptor {number} is of {tun.TUN_PATH}, but has no interface; the program that hands it over must"
            " attach it to one (TUNSETIFF)"
        ) from None
    _, flags = tun.IFREQ.unpack(reply)
    name = tun.read_name(reply)
    if not flags & tun.IFF_TUN:
        raise InvalidSetting(
            f"descriptor {number} is of {name}, a TAP device, which carries Ethernet frames; use a TUN device (IFF_TUN)"
        )
    header = _header_size(number, name) if flags & tun.IFF_VNET_HDR else 0
    file = io.FileIO(number, "r+", closefd=False)  # It is owned once nothing can fail any more.
    prefix = Prefix(_has_information(file, name, header), header)
    offload = _enable_superpackets(file) if header else tun.Offload.NONE
    os.set_blocking(number, False)
    return Inherited(io.FileIO(number, "r+"), name, prefix, offload)


def _header_size(number: int, name: str) -> int:
    """Return the size in bytes of the virtio header before each packet."""
    (size,) = struct.unpack("i", fcntl.ioctl(number, TUNGETVNETHDRSZ, bytes(4)))
    if size > _MAX_HEADER:
        raise InvalidSetting(f"{name} has a virtio header of {size} bytes; set it to 10 or 12")
    return int(size)


def _has_information(file: io.FileIO, name: str, header: int) -> bool:
    """Return True if packets have a `struct tun_pi`. Raises `AdapterGone`.

    TUNGETIFF does not show it: its reply sets IFF_NOFILTER, the same bit as IFF_NO_PI, if the device has no filter,
    and a TUN device never has one. So write zeros only. Without `struct tun_pi` they are a packet of IP version 0,
    which the kernel refuses; with it they are an empty packet of a protocol that the kernel drops.
    """
    try:
        file.write(bytes(header + _INFORMATION_SIZE))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        if error.errno != errno.EIO:  # The kernel checks for a link last, so EIO means that the header was accepted.
            raise tun.refused(error, name) from None
    return True


def _enable_superpackets(file: io.FileIO) -> tun.Offload:
    """Allow all superpackets that the kernel has, and return their kinds. Raises `AdapterGone`."""
    try:
        tun.control(file, tun.TUNSETOFFLOAD, tun.Offload.TCP_AND_UDP.value)
    except AdapterGone:
        raise
    except AdapterError:
        tun.control(file, tun.TUNSETOFFLOAD, tun.Offload.TCP.value)  # Linux has UDP superpackets since 6.2.
        return tun.Offload.TCP
    return tun.Offload.TCP_AND_UDP
