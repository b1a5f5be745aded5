"""What this Linux machine offers, found out by trying. Leaves nothing behind."""

import sys

assert sys.platform == "linux"


from threepipe.finding import Finding

__all__ = ["probe"]


def probe() -> list[Finding]:
    return []
