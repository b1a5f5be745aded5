#!/bin/bash
# pyroute2 cannot be imported by a Python without TLS or SQLite, even for netlink alone.
#
# Seen with pyroute2 0.9.7 and Python 3.11.7.
# Behaviour: `from pyroute2 import IPRoute` loads the database of interfaces (pyroute2.ndb), which imports sqlite3, and the
#   messages of its probes, which import ssl. Each import fails if the module is not there. Python's own asyncio, which
#   pyroute2 uses, does without ssl.
# Output seen:
#   without ssl: No module named 'ssl'
#   without sqlite3: No module named 'sqlite3'
#   with both: imported
# Consequence: on a router or in an image with a reduced Python, as of OpenWrt, whose python3-light has neither module, a
#   program that only sets an address fails at the import.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
command -v python3 > /dev/null || { echo "python3 is not installed"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyroute2==0.9.7 || { echo "no pyroute2"; exit 77; }

cat > "$folder/imports.py" << 'END'
import sys

class Missing:
    """Finds no module of that name, as in a Python that was built without it."""
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Missing())
import asyncio
try:
    from pyroute2 import IPRoute
    print("imported")
except ModuleNotFoundError as error:
    print(error)
END
seen=$(for module in ssl sqlite3 none; do
    echo "without $module: $("$folder/venv/bin/python" "$folder/imports.py" "$module")"
done | sed 's/^without none/with both/')
echo "$seen"
expected="without ssl: No module named 'ssl'
without sqlite3: No module named 'sqlite3'
with both: imported"
[ "$seen" = "$expected" ] || { echo "this has changed"; exit 1; }
