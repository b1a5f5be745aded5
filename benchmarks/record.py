"""The run as JSON: every sample, the medians and ratios, and the machine and versions they were taken on."""

import os
import platform
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.build import BORINGTUN, GOTATUN, TUN_RS_LOCK, WIREGUARD_GO
from benchmarks.contenders import Contender
from benchmarks.network import Failed, output
from benchmarks.results import Results
from benchmarks.wanted import reached
from benchmarks.workloads import Workload

__all__ = ["record"]

_PACKAGES = ("threepipe", "threepipe-native", "pyroute2", "python-pytun", "pytun-pmd3", "scapy")
_TOOLS = {"iperf3": "iperf3 --version", "ping": "ping -V", "ip": "ip -V", "gcc": "gcc --version", "rustc": "rustc -V"}
_PEERS = {
    "wireguard-go": f"go version -m {WIREGUARD_GO}",
    "wireguard-go-debian": "dpkg-query --show wireguard-go",
    "boringtun": f"{BORINGTUN} --version",
    "gotatun": f"{GOTATUN} --version",
    "wg": "wg --version",
}
_TOOL_SECONDS = 10.0


def record(
    results: Results, workloads: Sequence[Workload], contenders: Sequence[Contender], rounds: int, seconds: int
) -> dict[str, Any]:
    """Everything, as what `json` can write."""
    return {
        "machine": _machine(),
        "settings": {"rounds": rounds, "seconds": seconds},
        "workloads": {
            workload.key: {
                "title": workload.title,
                "metrics": {metric.key: asdict(metric) for metric in workload.metrics},
                "medians": {
                    contender.key: {
                        metric.key: results.median(workload.key, contender.key, metric.key)
                        for metric in workload.metrics
                    }
                    for contender in contenders
                    if workload.kind in contender.kinds
                },
            }
            for workload in workloads
        },
        "ratios": [
            {**asdict(outcome), "at_least": outcome.at_least, "met": outcome.met} for outcome in reached(results)
        ],
        "missing": results.missing,
        "cannot": {contender.key: dict(contender.cannot) for contender in contenders if contender.cannot},
        "samples": [asdict(sample) for sample in results.samples],
    }


def _machine() -> dict[str, Any]:
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: _package(name) for name in _PACKAGES},
        "crates": {"tun-rs": _crate("tun-rs")},
        "tools": {name: _tool(command) for name, command in _TOOLS.items()},
        "wireguard": {name: _tool(command) for name, command in _PEERS.items()},
    }


def _cpu() -> str | None:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _crate(name: str) -> str | None:
    packages = tomllib.loads(TUN_RS_LOCK.read_text())["package"]
    return next((str(package["version"]) for package in packages if package["name"] == name), None)


def _tool(command: str) -> str | None:
    """The line that says its version: the first, or that of the module where Go lists what a program is made of."""
    try:
        lines = output(command.split(), _TOOL_SECONDS).splitlines()
    except Failed:
        return None
    modules = [" ".join(line.split()[1:3]) for line in lines if line.startswith("\tmod\t")]
    return next(iter(modules or lines), None)
