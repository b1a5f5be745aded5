#!/bin/bash
# A TUN device gets VXLAN datagrams whose virtio header points at the checksum of the packet inside, not at their own.
#
# Seen on Linux 6.18 with iproute2 6.1.0-3 (Debian 12).
# Behaviour: a TUN with IFF_VNET_HDR and TUN_F_CSUM lies below a vxlan interface. The header of a TCP packet in VXLAN
#   has VIRTIO_NET_HDR_F_NEEDS_CSUM, and csum_start is 70: 20 (IPv4) + 8 (UDP) + 8 (VXLAN) + 14 (Ethernet) + 20 (IPv4).
#   The UDP checksum outside is set (`ip link add ... type vxlan` does that today), and already right for the packet
#   inside as it will be once its own checksum is filled in.
# Output seen:
#   flags 1, gso_type 0, csum_start 70, csum_offset 16
#   UDP checksum: set, and right once the inner one is complete
# Consequence: a reader that takes csum_start for the header of the outermost transport fills in nothing, or the wrong
#   field. Sum from csum_start to the end, wherever it points, and leave the outer checksum alone.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in ip unshare python3; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }

exec unshare --net python3 - << 'END'
import fcntl, os, socket, struct, subprocess, sys

TUNSETIFF, TUNSETOFFLOAD, TUN_F_CSUM = 0x400454CA, 0x400454D0, 1
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000

def total(data):
    data += bytes(len(data) % 2)
    number = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while number >> 16:
        number = (number & 0xFFFF) + (number >> 16)
    return number

tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", b"tun0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
fcntl.ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM)
for line in ("link set lo up", "address add 10.9.0.1/24 dev tun0", "link set tun0 up",
             "link add vx0 type vxlan id 7 remote 10.9.0.2 dstport 4789 dev tun0",
             "address add 10.10.0.1/24 dev vx0", "link set vx0 up",
             "neighbour add 10.10.0.2 lladdr 02:00:00:00:00:01 dev vx0"):
    if subprocess.run(["ip", *line.split()]).returncode:
        print("a step failed: ip", line)
        sys.exit(77)
client = socket.socket()
client.setblocking(False)
client.connect_ex(("10.10.0.2", 80))
while True:
    record = os.read(tun, 65536)
    flags, gso, _, _, start, offset = struct.unpack("=BBHHHH", record[:10])
    packet = bytearray(record[10:])
    if packet[0] >> 4 == 4 and packet[9] == 17 and packet[36 + 14 + 9] == 6:
        break
print(f"flags {flags}, gso_type {gso}, csum_start {start}, csum_offset {offset}")
field = start + offset
packet[field : field + 2] = struct.pack("!H", ~total(bytes(packet[start:])) & 0xFFFF)
pseudo = bytes(packet[12:20]) + struct.pack("!HH", 17, len(packet) - 20)
right = packet[26:28] != b"\0\0" and total(pseudo + bytes(packet[20:])) == 0xFFFF
print("UDP checksum:", "set, and right once the inner one is complete" if right else "not so")
sys.exit(not (flags == 1 and start == 70 and offset == 16 and right))
END
