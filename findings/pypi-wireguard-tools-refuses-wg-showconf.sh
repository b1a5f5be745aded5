#!/bin/bash
# The library wireguard-tools of PyPI cannot read each file that wg writes, nor each that wg reads.
#
# Seen with wireguard-tools 0.6.0 of PyPI and Debian 12's wireguard-tools 1.0.20210914-1+b1.
# Behaviour: `wg showconf`, and so `wg-quick save`, write FwMark in hexadecimal. The library takes decimal numbers alone.
#   It refuses "off", which wg takes for FwMark and PersistentKeepalive, and a comment behind a value, too. `wg setconf`
#   takes all four.
# Output seen:
#   FwMark = 0x10, as of wg showconf: invalid literal for int() with base 10: '0x10'
#   FwMark = 16: read
#   PersistentKeepalive = off: invalid literal for int() with base 10: 'off'
#   ListenPort = 51820 # home: invalid literal for int() with base 10: '51820 # home'
# Consequence: a program with this library fails at the saved file of a full tunnel, as wg-quick gives such a device a
#   mark. Write the numbers in decimal, without comments, before it reads the file. threepipe reads all four.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in python3 unshare wg wireguard-go; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
{ python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q wireguard-tools==0.6.0; } ||
    { echo "the library cannot be installed"; exit 77; }
cat > "$folder/read.py" << 'END'
import sys

from wireguard_tools import WireguardConfig

try:
    WireguardConfig.from_wgconfig(sys.stdin)
except ValueError as error:
    print(error)
else:
    print("read")
END
unshare --net --mount bash -euo pipefail -c '
    mount -t tmpfs none /run
    wireguard-go -f fin0 2> /run/log &
    device=$!
    trap "kill $device; wait $device || true" EXIT
    for _ in $(seq 1 100); do wg show fin0 > /dev/null 2>&1 && break; sleep 0.05; done
    private=$(wg genkey)
    peer=$(wg genkey | wg pubkey)
    try() {
        printf "[Interface]\nPrivateKey = %s\n%s\n[Peer]\nPublicKey = %s\n%s\n" "$private" "$2" "$peer" "$3" > /run/conf
        wg setconf fin0 /run/conf || { echo "wg refuses it" >&2; exit 77; }
        [ "$1" = given ] || wg showconf fin0 > /run/conf
        "$0/venv/bin/python" "$0/read.py" < /run/conf
    }
    echo "FwMark = 0x10, as of wg showconf: $(try shown "FwMark = 16" "")"
    echo "FwMark = 16: $(try given "FwMark = 16" "")"
    echo "PersistentKeepalive = off: $(try given "" "PersistentKeepalive = off")"
    echo "ListenPort = 51820 # home: $(try given "ListenPort = 51820 # home" "")"
' "$folder" | tee "$folder/out"
sed -n 's/^#   //p' "$0" | grep -e ": read$" -e ": invalid" | cmp -s - "$folder/out" || { echo "this has changed"; exit 1; }
