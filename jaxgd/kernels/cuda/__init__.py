"""The CUDA backend: one kernel that trains a small network for an epoch, compiled at the first use of a shape."""
