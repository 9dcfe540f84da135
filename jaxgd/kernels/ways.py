"""An epoch, and the full batch, by whichever way was chosen."""

from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxgd.examples import Examples
from jaxgd.kernels import native, xla
from jaxgd.kernels.choice import Kernel
from jaxgd.network import Network


def prepared(kernel: Kernel, examples: Examples) -> Examples:
    """Examples as the kernels take them, made ready once for all epochs."""
    x, y = examples
    if kernel.name == "xla" or jnp.issubdtype(y.dtype, jnp.integer):
        return examples
    return Examples(x, y.astype(jnp.float32))


def epoch(
    kernel: Kernel,
    network: Network,
    optimizer_state: PyTree[Array],
    examples: Examples,
    order: Int[Array, " n"],
    eta: Float[Array, ""],
    rule_of: Any,
    measure: xla.Measure,
    batch_size: int,
) -> tuple[Network, PyTree[Array], Bool[Array, ""]]:
    """One update a mini-batch, over all examples in this order; and whether every mini-batch's cost was finite.

    `rule_of(eta)` is the rule of the updates; the native kernels' own is plain descent.
    """

    def by_xla(network: Network, examples: Examples, order: Array, eta: Array) -> tuple[Network, Any, Array]:
        return xla.epoch(network, optimizer_state, examples, order, rule_of(eta), measure, batch_size)

    def by_library(network: Network, examples: Examples, order: Array, eta: Array) -> tuple[Network, Any, Array]:
        network, finite = native.epoch(network, *examples, order, eta, batch_size)
        return network, optimizer_state, finite

    run = by_xla if kernel.name == "xla" else native.with_derivatives(by_library, by_xla)
    return cast(tuple[Network, Any, Array], run(network, examples, order, eta))


def full(
    kernel: Kernel, network: Network, examples: Examples, measure: xla.Measure, gradient: bool
) -> tuple[Array, Array, Network | None]:
    """C over all examples, their outputs, and ∇C if it is wanted."""

    def by_xla(network: Network, examples: Examples) -> tuple[Array, Array, Network | None]:
        if not gradient:
            return *measure.full(network, examples), None
        (c, a), found = jax.value_and_grad(measure.full, has_aux=True)(network, examples)
        return c, a, found

    def by_library(network: Network, examples: Examples) -> tuple[Array, Array, Network | None]:
        return native.evaluate(network, *examples, gradient)

    run = by_xla if kernel.name == "xla" else native.with_derivatives(by_library, by_xla)
    return cast(tuple[Array, Array, Network | None], run(network, examples))
