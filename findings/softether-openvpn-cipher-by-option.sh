#!/bin/bash
# SoftEther's server talks AES-128-CBC to an OpenVPN 2.6 client that names no --cipher, and the client refuses it.
#
# Seen with Debian 12's softether-vpnserver 5.01.9674+git20200806+8181039+dfsg2-2+b2 and openvpn 2.6.14-0+deb12u2.
# Behaviour: OpenVPN 2.6 offers its ciphers (--data-ciphers) to the server and names none in its options string, unless
#   --cipher is given. The server looks at that string alone, falls back on AES-128-CBC, and pushes no `cipher`. It
#   pushes `block-outside-dns`, too, which OpenVPN knows on Windows alone; that does no harm. Each attempt gets the next
#   address of the server's DHCP range, as the lease of the one before is kept.
# Output seen:
#   no option: failed to negotiate cipher with server; addresses 192.168.30.10 192.168.30.11
#   --cipher AES-256-GCM: Initialization Sequence Completed
# Consequence: give --cipher AES-256-GCM; where a client's address is set elsewhere, let the server give out only that.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in vpnserver vpncmd openvpn ip unshare; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

status=0
unshare --net --mount --pid --fork --kill-child --mount-proc bash -euo pipefail -c '
    cd "$1"
    for place in /run /var/lib /var/log; do mount -t tmpfs none $place; mkdir $place/softether; done
    ip link set lo up
    vpnserver execsvc > server 2>&1 &
    printf "%s\n" "ServerCertGet ca.pem" "Hub DEFAULT" "UserCreate alice /GROUP:none /REALNAME:none /NOTE:none" \
        "UserPasswordSet alice /PASSWORD:secret" SecureNatEnable > settings
    printf "alice\nsecret\n" > password; chmod 600 password
    for _ in $(seq 1 100); do (: < /dev/tcp/127.0.0.1/5555) 2> /dev/null && break; sleep 0.1; done
    vpncmd localhost:5555 /SERVER /IN:settings > log
    try() {  # LOG PATTERN TIMES OPTIONS...: run a client until its log has a pattern so many times
        log=$1 pattern=$2 times=$3; shift 3
        openvpn --client --nobind --dev tun --remote 127.0.0.1 1194 udp4 --ca ca.pem --auth-user-pass password \
            --ifconfig-noexec --route-noexec --verb 3 "$@" > "$log" 2>&1 &
        client=$!
        for _ in $(seq 1 200); do [ "$(grep -c "$pattern" "$log")" -ge "$times" ] && break; sleep 0.1; done
        kill $client; wait $client || true
    }
    try without "failed to negotiate cipher" 2
    try with "Initialization Sequence Completed" 1 --cipher AES-256-GCM
    addresses=$(grep -o "ifconfig [0-9.]*" without | cut -d" " -f2 | head -2 | paste -sd" ")
    echo "no option: $(grep -o "failed to negotiate cipher with server" without | head -1); addresses $addresses"
    echo "--cipher AES-256-GCM: $(grep -o "Initialization Sequence Completed" with)"
    [ "$(grep -c "server.s cipher (.AES-128-CBC.)" without)" -ge 2 ] && [ "$addresses" = "192.168.30.10 192.168.30.11" ]
' bash "$folder" || status=1
exit $status
