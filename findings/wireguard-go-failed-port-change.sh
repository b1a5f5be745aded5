#!/bin/bash
# wireguard-go that is refused a new port no longer listens at its old one, and reports the refusal as a negative errno.
#
# Seen with Debian 12's wireguard-go 0.0.20220316-1+b4 on Linux 6.18.
# Behaviour: `set=1` with a listen_port that another socket has is answered by errno=-98. The device has closed its old
#   sockets by then and opens none, so peers reach it no more until a port is set.
#   Its protocol's page (wireguard.com/xplatform) speaks of errno values without a sign.
# Output seen:
#   before: errno=0, sockets at 20001: 2
#   after: errno=-98, sockets at 20001: 0
# Consequence: a tool that tries a port and goes on after the error has cut the tunnel. Set the old port again. A reader
#   of answers takes either sign.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in wireguard-go python3 ip unshare ss; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "it needs root and /dev/net/tun"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/ask.py" << 'END'
import socket
import subprocess


def ask(request):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/var/run/wireguard/wg0.sock")
        client.sendall(request.encode())
        answer = b""
        while not answer.endswith(b"\n\n"):
            answer += client.recv(1000)
        return answer.decode().split()[-1]


def sockets():
    return subprocess.run(["ss", "-lnuH"], capture_output=True, text=True).stdout.count(":20001 ")


taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
taken.bind(("0.0.0.0", 20002))
print(f"before: {ask('set=1' + chr(10) + 'listen_port=20001' + chr(10) * 2)}, sockets at 20001: {sockets()}")
print(f"after: {ask('set=1' + chr(10) + 'listen_port=20002' + chr(10) * 2)}, sockets at 20001: {sockets()}")
END
unshare --net --mount sh -ec '
mount -t tmpfs none /var/run
ip link set lo up
wireguard-go --foreground wg0 > /dev/null 2>&1 &
until [ -S /var/run/wireguard/wg0.sock ]; do kill -0 $!; sleep 0.1; done
ip link set wg0 up
python3 "$0/ask.py"
kill $!
' "$folder" | tee "$folder/out"
printf '%s\n' "before: errno=0, sockets at 20001: 2" "after: errno=-98, sockets at 20001: 0" |
    cmp -s - "$folder/out" || { echo "this has changed"; exit 1; }
