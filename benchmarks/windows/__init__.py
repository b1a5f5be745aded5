"""Loops over Wintun's contract on Windows' Python under Wine. Run by `python -m benchmarks.windows`."""
