"""The work per packet, in pure Python; `fast` replaces it with the native core where that is installed."""
