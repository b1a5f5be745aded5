"""The tests of macOS and the BSDs run on every POSIX system: the models of the kernels need nothing else."""

import sys

collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []
