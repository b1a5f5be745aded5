"""Benchmarks of threepipe beside its peers and beside the limit. Run them by `python -m benchmarks`."""
