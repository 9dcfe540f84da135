"""Limits of the process that JAX cannot work with."""


def require_address_space() -> None:
    """Raise unless the address space is large enough."""
