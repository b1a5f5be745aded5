#!/bin/bash
# wg-quick takes the MTU of the widest path to any endpoint, so that full packets to other peers do not fit.
#
# Seen with Debian 12's wireguard-tools 1.0.20210914-1+b1 and wireguard-go 0.0.20220316-1+b4 on Linux 6.18.
# Behaviour: wg-quick(8) says that without `MTU` it is "automatically determined from the endpoint addresses or the
#   system default route". Of several endpoints, the one with the largest MTU decides, in whichever order they are.
# Output seen:
#   endpoints by links of 1500 and 1400 bytes: MTU 1420
#   endpoints by links of 1400 and 1500 bytes: MTU 1420
#   one endpoint by the link of 1400 bytes: MTU 1320
# Consequence: messages to the other peer are sent in fragments, or lost where these are dropped: pings pass, and
#   downloads stall. Write the smallest path's MTU less 80 into the file. `threepipe wg up` takes that itself.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in unshare wg wg-quick wireguard-go; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }

exec unshare --net --mount bash -euo pipefail -c '
    mount -t tmpfs none /run
    mount -t sysfs none /sys
    for number in 1 2; do
        ip link add "fin$number" type veth peer name "far$number"
        ip address add "10.$number.0.1/24" dev "fin$number"
        ip link set "far$number" up
        ip link set "fin$number" up
    done
    ip link set fin2 mtu 1400
    mtu() {
        {
            printf "[Interface]\nPrivateKey = %s\nAddress = 10.7.7.1/24\n" "$(wg genkey)"
            for endpoint; do
                key=$(wg genkey | wg pubkey)
                printf "[Peer]\nPublicKey = %s\nEndpoint = %s:9\n" "$key" "$endpoint"
            done
        } > /run/fin0.conf
        LOG_LEVEL=silent wg-quick up /run/fin0.conf > /run/log 2>&1 || { cat /run/log; exit 77; }
        cat /sys/class/net/fin0/mtu
        wg-quick down /run/fin0.conf > /run/log 2>&1
        while [ -e /run/wireguard/fin0.sock ]; do sleep 0.05; done
    }
    wide=$(mtu 10.1.0.2 10.2.0.2)
    turned=$(mtu 10.2.0.2 10.1.0.2)
    narrow=$(mtu 10.2.0.2)
    echo "endpoints by links of 1500 and 1400 bytes: MTU $wide"
    echo "endpoints by links of 1400 and 1500 bytes: MTU $turned"
    echo "one endpoint by the link of 1400 bytes: MTU $narrow"
    [ "$wide $turned $narrow" = "1420 1420 1320" ]
' || { status=$?; [ "$status" = 77 ] || status=1; exit "$status"; }
