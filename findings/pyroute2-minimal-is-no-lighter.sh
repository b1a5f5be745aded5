#!/bin/bash
# The distribution pyroute2.minimal is hardly lighter to import than pyroute2, and the two own the same files.
#
# Seen with pyroute2 0.9.7 and pyroute2.minimal 0.9.7 from PyPI, Python 3.11.
# Behaviour: pyroute2.minimal is smaller on disk. But its `import pyroute2` loads nearly as many modules as that of the
#   whole library, asyncio among them, in nearly the same memory. It has no name of its own for the import: it brings
#   files of the package pyroute2, which pip writes over those of pyroute2 without a word. Removing one of the two
#   distributions removes files of the other: `import pyroute2` still succeeds, and the package is empty.
# Output seen:
#   pyroute2: 279 modules more, 19.6 MiB more
#   pyroute2.minimal: 234 modules more, 15.8 MiB more
#   both installed, pyroute2.minimal removed: module 'pyroute2' has no attribute 'IPRoute'
# Consequence: a program that sets up an interface pays for the whole library at its start. Depend on pyroute2 alone,
#   import it where it is needed, and never depend on pyroute2.minimal in a library.
# Exits 0 if it is seen again, 1 if it changed, 77 if it cannot run.

set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
pip() { python3 -m pip "$@" > "$folder/log" 2>&1 || { cat "$folder/log"; exit 77; }; }
modules() {  # The modules and the memory, in tenths of a MiB, that the import adds.
    PYTHONPATH=$1 python3 -c '
import sys
def size():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
modules, memory = len(sys.modules), size()
import pyroute2
print(len(sys.modules) - modules, (size() - memory) * 10 >> 20)'
}
python3 -m pip --version > /dev/null 2>&1 || { echo "pip is not installed"; exit 77; }
for name in pyroute2 pyroute2.minimal; do
    pip install --no-deps --target "$folder/$name" "$name==0.9.7"
    read -r count memory < <(modules "$folder/$name")
    echo "$name: $count modules more, $((memory / 10)).$((memory % 10)) MiB more"
done
[ "$count" -gt 200 ] && [ "$memory" -gt 150 ] || { echo "pyroute2.minimal has become lighter"; exit 1; }
python3 -m venv "$folder/both"
for name in pyroute2 pyroute2.minimal; do
    "$folder/both/bin/pip" install --quiet --no-deps "$name==0.9.7" > "$folder/log" 2>&1 || { cat "$folder/log"; exit 77; }
done
"$folder/both/bin/pip" uninstall --quiet --yes pyroute2.minimal > /dev/null 2>&1
error=$("$folder/both/bin/python" -c "import pyroute2; pyroute2.IPRoute" 2>&1 | tail -1) || true
echo "both installed, pyroute2.minimal removed: ${error#*: }"
[ "${error%%:*}" = AttributeError ] || { echo "this has changed"; exit 1; }
