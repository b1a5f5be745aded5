"""The C headers of macOS and the BSDs, as the package ziglang has them, and compiling against them."""

import subprocess
from pathlib import Path

import pytest

__all__ = ["HEADERS", "TARGETS", "complaints"]

_COMMON = ["stddef.h", "sys/types.h", "sys/param.h", "sys/socket.h", "sys/ioctl.h", "sys/sockio.h", "sys/filio.h"]
_COMMON += ["sys/sysctl.h", "sys/time.h", "net/if.h", "net/if_dl.h", "net/if_types.h", "net/route.h", "netinet/in.h"]
_BSD = [*_COMMON, "net/if_tun.h", "netinet/in_var.h", "netinet6/in6_var.h", "netinet6/nd6.h"]

HEADERS = {
    "macos": [*_COMMON, "net/if_utun.h", "sys/kern_control.h"],
    "freebsd": _BSD,
    "netbsd": _BSD,
    "openbsd": _BSD,
}

TARGETS = {
    "macos": ("x86_64", "aarch64"),
    "freebsd": ("x86_64", "aarch64", "riscv64", "powerpc64"),
    "netbsd": ("x86_64", "aarch64", "riscv64", "sparc64"),
    "openbsd": ("x86_64", "aarch64", "riscv64", "sparc64", "powerpc64"),
}
"""The 64-bit machines of each system whose headers ziglang has."""


def complaints(folder: Path, system: str, machine: str, conditions: list[str]) -> str:
    """Compile the conditions as static assertions, and return the compiler's output; skip the test without headers."""
    ziglang = pytest.importorskip("ziglang", reason="there is no package ziglang, which has the headers of the BSDs")
    lines = [
        "#define _NETBSD_SOURCE 1",
        "#define _DARWIN_C_SOURCE 1",
        *(f"#include <{each}>" for each in HEADERS[system]),
    ]
    lines += [f'_Static_assert({text}, "ours differs");' for text in conditions]
    source = folder / "assertions.c"
    source.write_text("\n".join(lines) + "\n")
    zig = Path(ziglang.__file__).with_name("zig")
    command = [str(zig), "cc", "-target", f"{machine}-{system}", "-std=gnu11", "-ferror-limit=0", "-w"]
    done = subprocess.run(
        [
            *command,
            "-S",
            str(source),
            "-o",
            str(folder / "assertions.s"),
        ],  # Only to the assembler's text.
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder), "HOME": str(folder)},
    )
    return done.stdout if done.returncode else ""
