#!/bin/bash
# One IPRoute object of pyroute2 speaks to another network namespace in another thread.
#
# Seen with pyroute2 0.9.7 and Python 3.11.7 on Linux 6.18.
# Behaviour: an IPRoute makes a socket of its own for each thread that uses it, when the thread first does. So its
#   namespace is that of the calling thread at that moment, not the one in which the object was made.
# Output seen:
#   main thread: lo outer0
#   other thread: inner0 lo
# Consequence: a program that sets routes in one thread and undoes them in another by the same object, as in a callback
#   or a finaliser, deletes them elsewhere or fails, if one of the threads has changed its namespace by setns(2).
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
for tool in python3 ip unshare; do
    command -v "$tool" > /dev/null || { echo "$tool is not installed"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "network namespaces need root"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyroute2==0.9.7 || { echo "no pyroute2"; exit 77; }

cat > "$folder/threads.py" << 'END'
import ctypes, subprocess, threading
from pyroute2 import IPRoute

def show(who, name):
    subprocess.run(["ip", "tuntap", "add", name, "mode", "tun"], check=True)
    names = {link.get("ifname") for link in iproute.get_links()}
    print(f"{who}:", *sorted(names & {"lo", "outer0", "inner0"}))

def other():
    assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET
    show("other thread", "inner0")

iproute = IPRoute()
show("main thread", "outer0")
thread = threading.Thread(target=other)
thread.start()
thread.join()
iproute.close()
END
unshare --net "$folder/venv/bin/python" -W ignore "$folder/threads.py" | tee "$folder/out"
printf '%s\n' "main thread: lo outer0" "other thread: inner0 lo" |
    cmp -s - "$folder/out" || { echo "this has changed"; exit 1; }
