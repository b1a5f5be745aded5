#!/bin/bash
# Two Python readers of pcapng leave out the time offset of an interface, and give times that are wrong by it.
#
# Seen with scapy 2.8.0 and python-pcapng 2.1.1 of PyPI; right are dpkt 1.9.8, and Debian 12's tshark 4.0.17-0+deb12u3
#   and tcpdump 4.99.3-1.
# Behaviour: if_tsoffset is the number of seconds to add to the times of an interface. It is for clocks
#   that do not begin in 1970. The packet below was captured 0.5 s after second 1000.
# Output seen:
#   scapy: 0.5
#   python-pcapng: 0.5
#   dpkt: 1000.5
#   tshark: 1000.500000000
#   tcpdump: 1000.500000
# Consequence: between packets of interfaces with different offsets there are delays that never were. `editcap -F
#   nsecpcap IN OUT` applies the offset, for scapy. threepipe's replay applies it.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in python3 tcpdump tshark; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
{ python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q scapy==2.8.0 python-pcapng==2.1.1 dpkt==1.9.8; } ||
    { echo "the libraries cannot be installed"; exit 77; }
cat > "$folder/read.py" << 'END'
import struct
import sys

import dpkt
from pcapng import FileScanner
from pcapng.blocks import EnhancedPacket
from scapy.utils import PcapNgReader


def block(kind, body):
    size = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + size + body + size


ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
packet = ip + struct.pack("!HHHH", 1, 9, 8, 0)
offset = struct.pack("<HHqHH", 14, 8, 1000, 0, 0)  # if_tsoffset, and the end of the options.
with open(sys.argv[1], "wb") as file:
    file.write(block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))
    file.write(block(1, struct.pack("<HHI", 101, 0, 0) + offset))
    file.write(block(6, struct.pack("<IIIII", 0, 0, 500_000, len(packet), len(packet)) + packet))
print("scapy:", PcapNgReader(sys.argv[1]).read_packet().time)
with open(sys.argv[1], "rb") as file:
    print("python-pcapng:", next(block.timestamp for block in FileScanner(file) if isinstance(block, EnhancedPacket)))
with open(sys.argv[1], "rb") as file:
    print("dpkt:", next(iter(dpkt.pcapng.Reader(file)))[0])
END
{
    "$folder/venv/bin/python" "$folder/read.py" "$folder/in"
    echo "tshark: $(tshark -r "$folder/in" -T fields -e frame.time_epoch 2> /dev/null)"
    echo "tcpdump: $(tcpdump -tt -n -r "$folder/in" 2> /dev/null | cut -d ' ' -f 1)"
} | tee "$folder/out"
sed -n '/^# Output seen/,/^# Consequence/s/^#   //p' "$0" | cmp -s - "$folder/out" || { echo "this has changed"; exit 1; }
