"""Compile the native kernels when pip builds jaxgd."""

import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = "jaxgd/kernels"
# The oldest supported jaxlib. Every newer jaxlib accepts a library that was compiled with its headers.
HEADERS = "jaxlib==0.10.2"


class NativeKernels(BuildHookInterface):
    """Build the native library in the source folder, and put it into a wheel.

    If compilation fails, jaxgd is installed without the native kernels, and XLA runs every epoch. `pip install -v`
    shows the reason, and `jaxgd info` reports that the library is missing.
    """

    def dependencies(self) -> list[str]:
        """Return the package with the headers, or an empty list if the library is up to date."""
        build = runpy.run_path(str(Path(self.root, KERNELS, "src/build.py")))
        return [] if build["is_current"]() else [HEADERS]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library before hatchling collects the files of a wheel."""
        done = subprocess.run([sys.executable, Path(self.root, KERNELS, "src/build.py")], check=False)
        if done.returncode != 0:
            self.app.display_warning("jaxgd: installing without the native kernels; XLA will run every epoch.")
        elif version == "standard":
            build_data["artifacts"].append(f"/{KERNELS}/_native.so")
            build_data["pure_python"] = False
            # The library works with every version of Python.
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
