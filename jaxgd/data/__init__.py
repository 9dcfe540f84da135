"""Images with labels: the digits in the package, MNIST and its relatives, and folders of IDX files.

>>> load_dataset("digits").inputs
64
"""

from jaxgd.data.dataset import Dataset, Part
from jaxgd.data.folder import load_idx
from jaxgd.data.named import default_data_dir, load_dataset

__all__ = ["Dataset", "Part", "default_data_dir", "load_dataset", "load_idx"]
