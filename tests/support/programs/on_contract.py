"""Runs a program with adapters of the contract library in the place of the driver's.

    python on_contract.py PROGRAM.py [ARGUMENT ...]
    python on_contract.py -m MODULE [ARGUMENT ...]

For Windows, and for programs that make adapters as everybody does. The library is the one that THREEPIPE_CONTRACT
names, and what is behind its adapters THREEPIPE_CONTRACT_UDP says.
"""

import os
import runpy
import sys
from pathlib import Path

from tests.support.contract_system import Bench
from threepipe.platforms.windows import device


def main(program: str, *arguments: str) -> None:
    bench = Bench(Path(os.environ["THREEPIPE_CONTRACT"]))
    device.system = lambda: bench.system  # type: ignore[assignment]
    try:
        if program == "-m":
            sys.argv = list(arguments)
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [program, *arguments]
            sys.path[0] = str(Path(program).parent)
            runpy.run_path(program, run_name="__main__")
    finally:
        bench.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
