#!/bin/bash
# tcpdump refuses a pcapng file with two interfaces of link type 101 (raw IP), which are of one type.
#
# Seen with tcpdump 4.99.3-1 and libpcap 1.10.3-1 (Debian 12).
# Behaviour: libpcap reads only files whose interfaces all have one link type. It seems to compare the number of a later
#   interface in the file (101) with the system's own number for that of the first (DLT_RAW, 12 on Linux). So two raw
#   interfaces differ, and two of 228 (raw IPv4) or 1 (Ethernet), whose numbers are the same in both, do not.
# Output seen:
#   101: tcpdump: pcap_loop: an interface has a type 101 different from the type of the first interface
#   228: 00:00:00.000000 IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 0
#   1: 00:00:00.000000 IP 10.0.0.1.1 > 10.0.0.2.2: UDP, length 0
# Consequence: files of several tunnels, also those that mergecap makes, cannot be read. Write one interface, or the
#   link types 228 and 229 in files of their own, or merge with `mergecap -F nsecpcap`. tshark reads all of them.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in tcpdump python3; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

write() {  # The link type of both interfaces, and the link-layer header in hexadecimal.
    python3 - "$1" "$2" <<'PYTHON'
import struct, sys

def block(kind, body):
    body += bytes(-len(body) % 4)
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size

frame = bytes.fromhex(sys.argv[2] + "4500001c000000004011 66cf 0a000001 0a000002 0001 0002 0008 0000")
file = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
file += 2 * block(1, struct.pack("<HHI", int(sys.argv[1]), 0, 65535))
sys.stdout.buffer.write(file + block(6, struct.pack("<IIIII", 1, 0, 0, len(frame), len(frame)) + frame))
PYTHON
}

show() {
    tcpdump -n -r - < "$folder/file" 2>&1 | grep -v "^reading from" || true
}

tcpdump --version 2>&1 | head -2
write 101 "" > "$folder/file"; raw=$(show)
write 228 "" > "$folder/file"; ipv4=$(show)
write 1 "0000000000000000000000000800" > "$folder/file"; ethernet=$(show)
printf '%s\n' "101: $raw" "228: $ipv4" "1: $ethernet"
[[ $raw == *"an interface has a type 101 different"* && $ipv4 == *"10.0.0.1.1 >"* && $ethernet == *"10.0.0.1.1 >"* ]]
