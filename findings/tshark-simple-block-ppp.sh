#!/bin/bash
# tshark calls a pcapng file damaged that has a simple packet block of link type 204 (PPP with direction).
#
# Seen with tshark 4.0.17-0+deb12u3 (Debian 12).
# Behaviour: two equal frames in enhanced packet blocks are read. If the first is in a simple packet block, which the
#   format allows for the first interface, of any link type, tshark reads neither. It seems to read the direction byte
#   as a pseudo-header, and then as many bytes as if that byte were still to be read.
# Output seen:
#   enhanced: 10.0.0.1 10.0.0.1
#   simple: tshark: The file "..." appears to be damaged or corrupt.
#   (pcapng: total block lengths (first 48 and second 100663296) don't match)
#   simple without direction: 10.0.0.1 10.0.0.1
# Consequence: that packet and all behind it are lost to tshark. Enhanced packet blocks avoid it. The simple block
#   with link type 9 (PPP without the direction) is read.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in tshark python3; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

write() {  # The type of block, the link type, and what precedes the PPP header in hexadecimal.
    python3 - "$1" "$2" "$3" <<'PYTHON'
import struct, sys

def block(kind, body):
    body += bytes(-len(body) % 4)
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size

kind, link, before = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
frame = before + bytes.fromhex("0021 4500001c000000004011 66cf 0a000001 0a000002 0001 0002 0008 0000")
heads = {3: struct.pack("<I", len(frame)), 6: struct.pack("<IIIII", 0, 0, 0, len(frame), len(frame))}
file = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(1, struct.pack("<HHI", link, 0, 0))
sys.stdout.buffer.write(file + block(kind, heads[kind] + frame) + block(6, heads[6] + frame))
PYTHON
}

show() {
    tshark -r "$folder/file" -T fields -e ip.src 2>&1 | grep -v "^Running as user" | grep . | paste -sd " " || true
}

tshark --version 2> /dev/null | head -1
write 6 204 01 > "$folder/file"; enhanced=$(show)
write 3 204 01 > "$folder/file"; simple=$(show)
write 3 9 "" > "$folder/file"; without=$(show)
printf '%s\n' "enhanced: $enhanced" "simple: $simple" "simple without direction: $without"
both="10.0.0.1 10.0.0.1"
[[ $enhanced == "$both" && $without == "$both" && $simple == *"damaged or corrupt"* ]]
