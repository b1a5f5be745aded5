#!/bin/bash
# Fractions of a second in pcapng files whose if_tsresol is finer than about a nanosecond are shown wrong.
#
# Seen with tshark 4.0.17-0+deb12u3 and tcpdump 4.99.3-1 with libpcap 1.10.3-1 (Debian 12).
# Behaviour: each packet below is captured 0.5 s after 1970, and the file says so in a valid resolution. tshark is right
#   for 10^-9 and wrong for 10^-11, 10^-12 and 2^-40; tcpdump is right for powers of ten and wrong for 2^-40. The whole
#   seconds are right. It looks like 64 bits that overflow when the fraction is multiplied by 10^9.
# Output seen:      tshark              tcpdump
#   10^-9           0.500000000         0.500000000
#   10^-11          0.131065118         0.500000000
#   10^-12          0.001937910         0.500000000
#   2^-40           0.013460736         0.013460736
# Consequence: a file of a card that stamps in picoseconds has delays in these tools that were never on the wire.
#   scapy 2.8.0 and dpkt 1.9.8 compute all four right.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in tshark tcpdump python3; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

write() {  # The value of if_tsresol, and half a second in that unit.
    python3 - "$1" "$2" <<'PYTHON'
import struct, sys

def block(kind, body):
    size = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + size + body + size

resolution, half = map(int, sys.argv[1:])
packet = bytes.fromhex("4500001c000000004011 66cf 0a000001 0a000002 0001 0002 0008 0000")
file = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
file += block(1, struct.pack("<HHI", 228, 0, 0) + struct.pack("<HHB3xI", 9, 1, resolution, 0))
file += block(6, struct.pack("<IIIII", 0, half >> 32, half & 0xFFFFFFFF, len(packet), len(packet)) + packet)
sys.stdout.buffer.write(file)
PYTHON
}

tshark --version 2> /dev/null | head -1
changed=0
for case in "10^-9 9 500000000 right right" "10^-11 11 50000000000 wrong right" \
            "10^-12 12 500000000000 wrong right" "2^-40 168 549755813888 wrong wrong"; do
    read -r name resolution half tshark tcpdump <<< "$case"
    write "$resolution" "$half" > "$folder/file"
    seen=$(tshark -r "$folder/file" -T fields -e frame.time_epoch 2> /dev/null)
    other=$(tcpdump -ttn --time-stamp-precision=nano -r - < "$folder/file" 2> /dev/null | cut -d' ' -f1)
    echo "$name: tshark $seen, tcpdump $other"
    [[ $([[ $seen == 0.500000000 ]] && echo right || echo wrong) == "$tshark" ]] || changed=1
    [[ $([[ $other == 0.500000000 ]] && echo right || echo wrong) == "$tcpdump" ]] || changed=1
done
exit $changed
