"""The CUDA backend: one kernel that trains a small network for an epoch, compiled for the device at first use."""
