#!/bin/bash
# `wg syncconf` leaves a peer its preshared key and keepalive when the file has none; `wg setconf` takes them away.
#
# Seen with Debian 12's wireguard-tools 1.0.20210914-1+b1 and wireguard-go 0.0.20220316-1+b4 on Linux 6.18.
# Behaviour: wg(8) describes syncconf as setconf that only makes the changes needed. It compares the peers and their
#   allowed IPs with the file, but a line that was removed from a peer's section changes nothing. A file without
#   ListenPort makes the device choose another port, as with setconf.
# Output seen:
#   before:         preshared key yes, keepalive 25
#   after syncconf: preshared key yes, keepalive 25
#   after setconf:  preshared key no, keepalive off
# Consequence: a preshared key that was removed from both ends' files stays in use at the end that ran syncconf, and no
#   handshake succeeds with an end that ran setconf. Remove it by setconf, or by `wg set ... preshared-key /dev/null`.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in wg wireguard-go unshare mount; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }

exec unshare --net --mount bash -euo pipefail -c '
    mount -t tmpfs none /run
    wireguard-go -f wg0 2> /run/log &
    device=$!
    trap "kill $device; wait $device || true" EXIT
    for _ in $(seq 1 100); do wg show wg0 > /dev/null 2>&1 && break; sleep 0.05; done
    private=$(wg genkey)
    peer=$(wg genkey | wg pubkey)
    interface="[Interface]\nPrivateKey = %s\nListenPort = 51820\n"
    plain=$(printf "$interface[Peer]\nPublicKey = %s\nAllowedIPs = 10.0.0.2/32\n" "$private" "$peer")
    shown() {
        read -r _ secret <<< "$(wg show wg0 preshared-keys)"
        read -r _ keepalive <<< "$(wg show wg0 persistent-keepalive)"
        [ "$secret" = "(none)" ] && secret=no || secret=yes
        echo "preshared key $secret, keepalive $keepalive"
    }
    wg setconf wg0 <(printf "%s\nPresharedKey = %s\nPersistentKeepalive = 25\n" "$plain" "$(wg genpsk)")
    before=$(shown)
    wg syncconf wg0 <(echo "$plain")
    synced=$(shown)
    wg setconf wg0 <(echo "$plain")
    set=$(shown)
    printf "before:         %s\nafter syncconf: %s\nafter setconf:  %s\n" "$before" "$synced" "$set"
    [ "$before" = "preshared key yes, keepalive 25" ] && [ "$synced" = "$before" ] &&
        [ "$set" = "preshared key no, keepalive off" ]
' || { status=$?; [ "$status" = 77 ] || status=1; exit "$status"; }
