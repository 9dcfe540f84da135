"""The exception of the CUDA backend."""

from jaxgd.errors import JaxgdError


class CudaError(JaxgdError, RuntimeError):
    """A call of the CUDA driver or of the compiler NVRTC that failed. Its message is one line."""
