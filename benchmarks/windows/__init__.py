"""Benchmarks of Wintun's contract on Windows' Python under Wine. Run them by `python -m benchmarks.windows`."""
