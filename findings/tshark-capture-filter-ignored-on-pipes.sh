#!/bin/bash
# tshark and dumpcap ignore a capture filter for a pipe without a word, and write into the file that it was applied.
#
# Seen with Debian 12's tshark 4.0.17-0+deb12u3 (dumpcap is in wireshark-common of that version).
# Behaviour: `-f FILTER` with `-i -` or `-i FIFO` captures every packet. Even a filter that is wrong is accepted, which
#   for an interface is an error. dumpcap's file has the filter as option if_filter all the same.
# Output seen:
#   ports of 4 packets that pass `-f "udp port 2"`: 1 2 3 2
#   with `-f "udp prt 2"`: 1 2 3 2
#   the file says: Filter string = udp port 2
# Consequence: `... | tshark -i - -f EXPRESSION` stores what it was told to leave out, and who reads the file believes
#   otherwise. Filter at the source (`threepipe capture --filter`), or afterwards by `tshark -r FILE -Y EXPRESSION`.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in capinfos dumpcap python3 tshark; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/make.py" << 'END'
import struct
import sys

file = sys.stdout.buffer
file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))  # Raw IP.
for port in (1, 2, 3, 2):
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    file.write(struct.pack("<IIII", 0, 0, 28, 28) + ip + struct.pack("!HHHH", port, 9, 8, 0))
END
python3 "$folder/make.py" > "$folder/in"
ports() { tshark -n "$@" -T fields -e udp.srcport 2> /dev/null | xargs; }
right=$(ports -i - -f "udp port 2" < "$folder/in")
wrong=$(ports -i - -f "udp prt 2" < "$folder/in")
dumpcap -q -i - -f "udp port 2" -w "$folder/out" < "$folder/in" 2> /dev/null
filter=$(capinfos "$folder/out" | grep -o "Filter string = .*")
[ "$(ports -r "$folder/out")" = "$right" ] || { echo "dumpcap wrote other packets"; exit 1; }
echo "ports of 4 packets that pass \`-f \"udp port 2\"\`: $right"
echo "with \`-f \"udp prt 2\"\`: $wrong"
echo "the file says: $filter"
[ "$right" = "1 2 3 2" ] && [ "$wrong" = "$right" ] && [ "$filter" = "Filter string = udp port 2" ]
