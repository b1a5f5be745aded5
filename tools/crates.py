"""The crates of others in a build of the native core: their bill of materials, and their license texts.

cargo tells which crates it has compiled. Some of them only build the core, and are listed too. The texts are the files
that each crate ships.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from build_native import CRATE

__all__ = ["Crate", "bill", "crates", "license_texts"]

_TEXTS = ("LICEN", "COPY", "NOTICE", "UNLICEN")
_RULE = "=" * 80


class Crate(NamedTuple):
    """A crate of others."""

    name: str
    version: str
    license: str
    """An SPDX expression."""
    folder: Path


def crates(artifacts: Iterable[dict[str, Any]]) -> list[Crate]:
    """Return the crates of those artifacts of cargo."""
    manifests = {Path(made["manifest_path"]) for made in artifacts if made["package_id"].startswith("registry+")}
    packages = [(tomllib.loads(path.read_text())["package"], path.parent) for path in manifests]
    return sorted(Crate(one["name"], one["version"], one["license"], folder) for one, folder in packages)


def bill(found: Iterable[Crate], version: str) -> str:
    """Return the bill of materials (CycloneDX) of a core of that version."""
    locked = tomllib.loads((CRATE / "Cargo.lock").read_text())["package"]
    checksums = {(package["name"], package["version"]): package.get("checksum", "") for package in locked}
    components = [
        {
            "type": "library",
            "name": crate.name,
            "version": crate.version,
            "purl": f"pkg:cargo/{crate.name}@{crate.version}",
            "licenses": [{"expression": crate.license}],
            "hashes": [{"alg": "SHA-256", "content": checksums[crate.name, crate.version]}],
        }
        for crate in found
    ]
    core = {"type": "library", "name": "threepipe._native", "version": version}
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": core}}
    return json.dumps({**head, "components": components}, indent=1, sort_keys=True)


def license_texts(found: Iterable[Crate]) -> str:
    """Return the license texts of those crates, each text once. Raises ValueError if a crate has none."""
    texts: dict[str, str] = {}
    users: dict[str, list[str]] = {}
    for crate in found:
        files = sorted(path for path in crate.folder.iterdir() if path.name.upper().startswith(_TEXTS))
        if not files:
            raise ValueError(f"{crate.name} {crate.version} ships no license text")
        for path in files:
            text = path.read_text().strip()
            key = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
            texts.setdefault(key, text)
            users.setdefault(key, []).append(f"{crate.name} {crate.version} ({crate.license}): {path.name}")
    parts = ["The native core of threepipe is built from these crates. Each text is here once, for all that have it."]
    for key, text in texts.items():
        parts += [_RULE, "\n".join(users[key]), _RULE, text]
    return "\n\n".join(parts) + "\n"
