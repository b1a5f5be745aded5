#!/bin/bash
# A TUN device takes the offload of UDP tunnels with a virtio header that is too short for it, and no read works then.
#
# Seen on Linux 6.18 with iproute2 6.1.0-3 (Debian 12).
# Behaviour: TUNSETOFFLOAD with TUN_F_UDP_TUNNEL_GSO (0x80, since Linux 6.17) succeeds whatever the size of the virtio
#   header is. Below 24 bytes, and 10 is the default, each read fails with EFAULT, of a plain datagram too, and the
#   packet is lost: the next read finds nothing. With TUNSETVNETHDRSZ 24 the same datagram arrives.
# Output seen:
#   header 10: offload accepted, read: Bad address, then: Resource temporarily unavailable
#   header 12: offload accepted, read: Bad address, then: Resource temporarily unavailable
#   header 20: offload accepted, read: Bad address, then: Resource temporarily unavailable
#   header 24: offload accepted, read: 56 bytes, then: Resource temporarily unavailable
# Consequence: probing the offload by TUNSETOFFLOAD alone finds a device that receives nothing. Set the header's size
#   to 24 before, and back before the offload's next user attaches: both settings stay with a persistent interface.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in ip unshare python3; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }

exec unshare --net python3 - << 'END'
import fcntl, os, socket, struct, subprocess, sys

TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
CSUM_TSO4_TSO6, UDP_TUNNEL_GSO = 0x07, 0x80

def read(tun):
    try:
        return f"{len(os.read(tun, 2048))} bytes"
    except OSError as error:
        return error.strerror

tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", b"tun0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
with open("/proc/sys/net/ipv6/conf/tun0/disable_ipv6", "w") as setting:
    setting.write("1")  # The kernel sends no packets of its own then.
for line in ("address add 10.9.0.1/24 dev tun0", "link set tun0 up"):
    if subprocess.run(["ip", *line.split()]).returncode:
        print("a step failed: ip", line)
        sys.exit(77)
seen = []
for size in (10, 12, 20, 24):
    fcntl.ioctl(tun, TUNSETOFFLOAD, 0)
    fcntl.ioctl(tun, TUNSETVNETHDRSZ, struct.pack("i", size))
    try:
        fcntl.ioctl(tun, TUNSETOFFLOAD, CSUM_TSO4_TSO6 | UDP_TUNNEL_GSO)
    except OSError as error:
        print(f"header {size}: offload refused: {error.strerror}")
        seen.append(())
        continue
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"data", ("10.9.0.2", 9))
    seen.append((read(tun), read(tun)))
    print(f"header {size}: offload accepted, read: {seen[-1][0]}, then: {seen[-1][1]}")
if not seen[-1]:
    print("this kernel has no offload of UDP tunnels; Linux has it since 6.17")
    sys.exit(77)
empty = os.strerror(11)
sys.exit(seen != [("Bad address", empty)] * 3 + [("56 bytes", empty)])
END
