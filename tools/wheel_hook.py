"""The hook of hatchling that puts the native core into a wheel.

tools/wheels.py describes a wheel in a file that THREEPIPE_WHEEL names: its core, tag and bills of materials.
Without that variable (pip install of a checkout or of the source archive) the core is built here if cargo can build it,
and otherwise the wheel is pure. An editable installation has the core that tools/build_native.py puts into src/.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags


class WheelHook(BuildHookInterface[Any]):
    """Adds the core and the files that belong to it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        if described := os.environ.get("THREEPIPE_WHEEL"):
            plan = json.loads(Path(described).read_text())
        else:
            plan = self._own_plan()
        build_data["sbom_files"] += plan.get("bills", [])
        if core := plan.get("core"):
            build_data["pure_python"] = False
            build_data["tag"] = f"cp311-abi3-{plan['platform']}"
            build_data["force_include"][core] = f"threepipe/{plan['name']}"

    def _own_plan(self) -> dict[str, str]:
        """Build the core for this machine. Return an empty plan, and print why, if that is not possible."""
        sys.path.insert(0, str(Path(self.root, "tools")))
        from build_native import FILE_NAME, artifacts, library, obstacle

        if reason := obstacle():
            self.app.display_warning(f"The native core is left out: {reason}. threepipe runs in pure Python.")
            return {}
        try:
            core = library(artifacts())
        except subprocess.CalledProcessError:
            self.app.display_warning("The native core is left out: it did not build. threepipe runs in pure Python.")
            return {}
        # A core built here may need more than the manylinux and musllinux tags promise.
        platforms = (tag.platform for tag in sys_tags() if not tag.platform.startswith(("manylinux", "musllinux")))
        return {"core": str(core), "platform": next(platforms), "name": FILE_NAME}
