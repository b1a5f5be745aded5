"""A run as JSON: every sample, the medians, the outcomes of the goals, the machine and the versions of all programs."""

import json
import os
import platform
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.build import BORINGTUN, GOTATUN, TUN_RS_LOCK, WIREGUARD_GO
from benchmarks.contenders import Contender
from benchmarks.goals import Outcome
from benchmarks.processes import Failed, output
from benchmarks.results import Results, Sample
from benchmarks.workloads import WORKLOADS, Workload

__all__ = ["as_json", "load"]

_PACKAGES = ("threepipe", "pyroute2", "python-pytun", "pytun-pmd3", "scapy")
_TOOLS = {"iperf3": "iperf3 --version", "ping": "ping -V", "ip": "ip -V", "gcc": "gcc --version", "rustc": "rustc -V"}
_PEERS = {
    "wireguard-go": f"go version -m {WIREGUARD_GO}",
    "wireguard-go-debian": "dpkg-query --show wireguard-go",
    "boringtun": f"{BORINGTUN} --version",
    "gotatun": f"{GOTATUN} --version",
    "wg": "wg --version",
}
_TOOL_SECONDS = 10.0


def as_json(
    results: Results,
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    outcomes: Sequence[Outcome],
    settings: Mapping[str, object],
) -> dict[str, Any]:
    """Return the whole run as values that `json` can write."""
    return {
        "machine": _machine(),
        "settings": dict(settings),
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
        "outcomes": [{**asdict(outcome), "at_least": outcome.at_least, "met": outcome.met} for outcome in outcomes],
        "unavailable": results.unavailable,
        "excluded": {contender.key: dict(contender.excluded) for contender in contenders if contender.excluded},
        "samples": [asdict(sample) for sample in results.samples],
    }


def load(file: Path) -> tuple[Results, list[Workload]]:
    """Return the samples of a run that was written as JSON, and its workloads."""
    run = json.loads(file.read_text())
    results = Results([Sample(**sample) for sample in run["samples"]], run["unavailable"])
    return results, [WORKLOADS[key] for key in run["workloads"]]


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
    """Return the line with the version: the first, or the module's own if Go lists the modules of a program."""
    try:
        lines = output(command.split(), _TOOL_SECONDS).splitlines()
    except Failed:
        return None
    modules = [" ".join(line.split()[1:3]) for line in lines if line.startswith("\tmod\t")]
    return next(iter(modules or lines), None)
