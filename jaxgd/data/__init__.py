"""Images with labels: the digits in the package, MNIST and its relatives, and folders of IDX files.

Each name is imported on first use, so the command line can read `jaxgd.data.registry` without JAX.

>>> from jaxgd.data import load_dataset
>>> load_dataset("digits").inputs
64
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxgd.data.dataset import Dataset, Part
    from jaxgd.data.folder import load_idx
    from jaxgd.data.named import default_data_dir, load_dataset

__all__ = ["Dataset", "Part", "default_data_dir", "load_dataset", "load_idx"]

_MODULE_OF = {
    **dict.fromkeys(("Dataset", "Part"), "dataset"),
    "load_idx": "folder",
    **dict.fromkeys(("default_data_dir", "load_dataset"), "named"),
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'jaxgd.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxgd.data.{_MODULE_OF[name]}"), name)
