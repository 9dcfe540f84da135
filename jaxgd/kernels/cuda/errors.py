"""The exception of the CUDA backend."""

from jaxgd.errors import JaxgdError


class CudaError(JaxgdError, RuntimeError):
    """The CUDA kernel cannot run, or a call of the CUDA driver or of NVRTC failed. The message is one line."""
