"""TUN descriptors that another program made and handed over: what they are, and a port for each sort.

The interface is its maker's. Its link, its addresses, its flags and the size of its virtio header stay as
they are. The one thing that is asked of it, and only where packets have that header, is which superpackets
may come: a maker who asks for the header leaves that to whoever reads (as for QEMU and wireguard-go), for
only the reader knows what it can take apart. It cannot be read back, and is off again at the end.

Constants are those of <linux/if_tun.h>, which a test compiles against.
"""

import sys

assert sys.platform == "linux"

import errno
import fcntl
import io
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from threepipe.backend import Port
from threepipe.core import fast
from threepipe.core.superpacket import HEADER_SIZE, MAX_RECORD
from threepipe.errors import AdapterError, AdapterGone, InvalidSetting
from threepipe.platforms.linux import tun
from threepipe.platforms.linux.port import LinuxPort

__all__ = ["Prefix", "open_inherited"]

TUNGETVNETHDRSZ = 0x800454D7

_MAX_HEADER = 256  # Bytes of a virtio header; the longest that Linux knows has 24.
_INFORMATION = {4: b"\0\0\x08\x00", 6: b"\0\0\x86\xdd"}
"""IP version -> `struct tun_pi`: no flags, and the EtherType."""
_INFORMATION_SIZE = 4


class Prefix(NamedTuple):
    """What a packet has in front on the descriptor: `struct tun_pi` or not, and `header` bytes for virtio, or 0.

    In memory the first does not exist, and the second is 10 bytes long: what comes after those is about
    merged buffers and hashes, which a TUN device has none of. Records are read and written as `descriptor`
    does it, one a system call.
    """

    information: bool
    header: int

    def receive(self, file: io.FileIO, memory: memoryview, limit: int) -> list[memoryview]:
        """As `descriptor.receive`."""
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
        """As `descriptor.send`."""
        descriptor, written = file.fileno(), 0
        padding = bytes(max(0, self.header - HEADER_SIZE))
        header = HEADER_SIZE if self.header else 0
        try:
            for record in records:
                front = _INFORMATION[record[header] >> 4] if self.information else b""
                os.writev(descriptor, [front, record[:header], padding, record[header:]])
                written += 1
        except BlockingIOError:
            return written, 0
        except OSError as error:
            return written, error.errno or 0
        return written, 0


def open_inherited(number: int) -> Port | None:
    """A port on the descriptor `number`, which it takes over and makes non-blocking; None where it is no TUN device's.

    A descriptor that is refused stays as it is. Raises `InvalidSetting` for a TAP device, and for one without
    an interface.
    """
    try:
        reply = fcntl.ioctl(number, tun.TUNGETIFF, bytes(tun.IFREQ.size))
    except OSError as error:
        if error.errno != errno.EBADFD:
            return None
        raise InvalidSetting(
            f"descriptor {number} is of {tun.TUN_PATH}, but has no interface (any more); whoever hands it over"
            " has to attach it to one (TUNSETIFF)"
        ) from None
    raw_name, flags = tun.IFREQ.unpack(reply)
    name = os.fsdecode(raw_name.rstrip(b"\0"))
    if not flags & tun.IFF_TUN:
        raise InvalidSetting(
            f"descriptor {number} is of {name}, a TAP device, which carries Ethernet frames; make a TUN device"
            " (IFF_TUN)"
        )
    header = _header_size(number, name) if flags & tun.IFF_VNET_HDR else 0
    file = io.FileIO(number, "r+", closefd=False)  # It is ours once nothing can go wrong any more.
    prefix = Prefix(_has_information(file, name, header), header)
    offload = _ask_for_superpackets(file) if header else tun.Offload.NONE
    os.set_blocking(number, False)
    file = io.FileIO(number, "r+")

    def let_go() -> None:
        if prefix.header:
            try:
                tun.set_offload(file, offload=False)
            except AdapterGone:
                pass  # Then nobody will read from it.
        file.close()

    own = not prefix.information and prefix.header in (0, HEADER_SIZE)
    return LinuxPort([file], file, name, offload, let_go, fast if own else prefix)


def _header_size(number: int, name: str) -> int:
    """Bytes of the virtio header in front of each packet."""
    (size,) = struct.unpack("i", fcntl.ioctl(number, TUNGETVNETHDRSZ, bytes(4)))
    if size > _MAX_HEADER:
        raise InvalidSetting(f"{name} has a virtio header of {size} bytes, which cannot be meant; 10 and 12 are usual")
    return int(size)


def _has_information(file: io.FileIO, name: str, header: int) -> bool:
    """Whether packets have `struct tun_pi` in front. Raises `AdapterGone`.

    TUNGETIFF cannot say it: where there is no filter, which is always so on a TUN device, the kernel sets
    IFF_NOFILTER in its answer, and that is the same bit as IFF_NO_PI. So a write of nothing but zeros finds
    it out: as a packet without that in front it has IP version 0, and is refused; else it is no packet at all,
    of a protocol that nobody takes.
    """
    try:
        file.write(bytes(header + _INFORMATION_SIZE))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        if error.errno != errno.EIO:  # The link is down, which is found out after that.
            raise tun.refused(error, name) from None
    return True


def _ask_for_superpackets(file: io.FileIO) -> tun.Offload:
    """All that the kernel has; return what that is. Raises `AdapterGone`."""
    try:
        tun.control(file, tun.TUNSETOFFLOAD, tun.Offload.TCP_AND_UDP.value)
    except AdapterGone:
        raise
    except AdapterError:
        tun.control(file, tun.TUNSETOFFLOAD, tun.Offload.TCP.value)  # UDP came with Linux 6.2.
        return tun.Offload.TCP
    return tun.Offload.TCP_AND_UDP
