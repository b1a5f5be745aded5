#!/bin/bash
# tun2proxy's option --tun-fd cannot be used on Linux: it needs --tun, and excludes it.
#
# Seen with tun2proxy 0.8.7 of crates.io (0.6.0, 0.7.10 and 0.7.19 have the same two checks), on Linux 6.18.
# Behaviour: --tun-fd is for a descriptor of an adapter that another program made. Without --setup the program demands
#   --tun, which names an interface; the two options exclude each other. With --setup it asks for root.
# Output seen:
#   --tun-fd 3: Missing required argument, '--tun' must present when '--setup' is not used.
#   --tun-fd 3 --tun tp0: error: the argument '--tun-fd <fd>' cannot be used with '--tun <name>'
# Consequence: give it a persistent adapter by name (`--tun tp0`), owned by the user who runs it; that needs no root.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run. It builds the program, in some minutes.

set -euo pipefail
command -v cargo > /dev/null || { echo "cargo is not installed"; exit 77; }
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cargo install --quiet --locked --root "$folder" tun2proxy@0.8.7 || { echo "tun2proxy 0.8.7 cannot be built"; exit 77; }

told() { timeout 20 "$folder/bin/tun2proxy-bin" --proxy socks5://127.0.0.1:1080 "$@" 3<> /dev/null 2>&1 | head -1 || true; }
alone=$(told --tun-fd 3)
both=$(told --tun-fd 3 --tun tp0)
printf -- '--tun-fd 3: %s\n--tun-fd 3 --tun tp0: %s\n' "$alone" "$both"
[[ "$alone" == *"'--tun' must present when '--setup' is not used"* ]] && [[ "$both" == *"cannot be used with"* ]]
