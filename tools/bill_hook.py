"""The build hook that adds the bill of materials, which tools/wheels.py wrote, to the wheel. Other builds have none."""

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BillHook(BuildHookInterface[Any]):
    """Adds the file that THREEPIPE_SBOM names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if bill := os.environ.get("THREEPIPE_SBOM"):
            build_data["sbom_files"].append(bill)
