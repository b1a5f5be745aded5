"""A program that runs another with adapters of the contract library in place of the driver's.

    python on_contract.py PROGRAM.py [ARGUMENT ...]
    python on_contract.py -m MODULE [ARGUMENT ...]

It is for Windows, and for programs that create adapters in the usual way. THREEPIPE_CONTRACT names the library, and
THREEPIPE_CONTRACT_UDP the networks behind its adapters.
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
