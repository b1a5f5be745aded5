"""Benchmarks: threepipe beside its peers and beside the limit, in one run. Run by `python -m benchmarks`."""
