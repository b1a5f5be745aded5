#!/bin/bash
# wireguard-go answers a link-local endpoint without its zone, so a saved file sends to another link.
#
# Seen with Debian 12's wireguard-go 0.0.20220316-1+b4 and wireguard-tools 1.0.20210914-1+b1 on Linux 6.18.
# Behaviour: `wg set ... endpoint [fe80::2%fin2]:9` is taken, and packets leave by fin2. The answer to get=1, and with it
#   `wg show`, `wg showconf` and `wg-quick save`, has fe80::2 alone. Set again from there, the endpoint is no error: the
#   kernel takes the first link with a route to fe80::/64.
# Output seen:
#   set with the zone fin2: packets leave by fin2
#   wg showconf: Endpoint = [fe80::2]:9
#   set again from that: packets leave by fin1
# Consequence: a tunnel over a link-local address works until the next `wg-quick save` and restart. Keep the file by
#   hand, with the zone. threepipe tells the zone.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in nft ping unshare wg wireguard-go; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }

exec unshare --net --mount bash -euo pipefail -c '
    mount -t tmpfs none /run
    mount -t sysfs none /sys
    for link in 1 2; do
        ip link add "fin$link" type veth peer name "far$link"
        ip link set "far$link" addrgenmode none up
        ip link set "fin$link" addrgenmode none up
        ip address add "fe80::1/64" dev "fin$link" nodad
        ip neighbour add fe80::2 lladdr 02:00:00:00:00:02 dev "fin$link"
    done
    wireguard-go -f wg0 2> /run/log &
    device=$!
    trap "kill $device; wait $device || true" EXIT
    for _ in $(seq 1 100); do wg show wg0 > /dev/null 2>&1 && break; sleep 0.05; done
    ip address add 10.7.7.1/24 dev wg0
    ip link set wg0 up
    nft "table inet t { chain out { type filter hook output priority 0; }; }"
    used() {
        nft "flush chain inet t out; add rule inet t out oifname fin1 udp dport 9 counter comment \"fin1\";
            add rule inet t out oifname fin2 udp dport 9 counter comment \"fin2\""
        ping -c 1 -W 1 10.7.7.2 > /dev/null || true
        nft list chain inet t out | sed -n "/packets 0 /d; s/.*comment \"\(.*\)\"/\1/p"
    }
    peer=$(wg genkey | wg pubkey)
    wg set wg0 private-key <(wg genkey) peer "$peer" allowed-ips 10.7.7.2/32 endpoint "[fe80::2%fin2]:9"
    first=$(used)
    wg showconf wg0 > /run/saved
    shown=$(grep Endpoint /run/saved)
    wg set wg0 peer "$peer" remove
    wg setconf wg0 /run/saved
    then=$(used)
    echo "set with the zone fin2: packets leave by $first"
    echo "wg showconf: $shown"
    echo "set again from that: packets leave by $then"
    [ "$first, $shown, $then" = "fin2, Endpoint = [fe80::2]:9, fin1" ]
' || { status=$?; [ "$status" = 77 ] || status=1; exit "$status"; }
