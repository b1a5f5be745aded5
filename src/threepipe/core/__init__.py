"""The work of every packet, in pure Python; `fast` puts the native core in its place where it is installed."""
