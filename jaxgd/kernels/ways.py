"""An epoch, and the full batch, by whichever way was chosen."""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxgd.examples import Examples
from jaxgd.kernels import native, xla
from jaxgd.kernels.choice import Kernel
from jaxgd.network import Network


class Part(NamedTuple):
    """Examples as a kernel takes them."""

    examples: Examples
    rows: native.Rows | None  # the inputs as the native kernels take them, if those run


def prepared(kernel: Kernel, examples: Examples) -> Part:
    """Examples, made ready once for all epochs."""
    if kernel.name == "xla":
        return Part(examples, None)
    x, y = examples
    y = y if jnp.issubdtype(y.dtype, jnp.integer) else y.astype(jnp.float32)
    return Part(Examples(x, y), native.rows_of(x))


def epoch(
    kernel: Kernel,
    network: Network,
    optimizer_state: PyTree[Array],
    part: Part,
    order: Int[Array, " n"],
    eta: Float[Array, ""],
    rule_of: Any,
    measure: xla.Measure,
    batch_size: int,
) -> tuple[Network, PyTree[Array], Bool[Array, ""]]:
    """One update a mini-batch, over all examples in this order; and whether every mini-batch's cost was finite.

    `rule_of(eta)` is the rule of the updates; the native kernels' own is plain descent.
    """

    def by_xla(network: Network, part: Part, order: Array, eta: Array) -> tuple[Network, Any, Array]:
        return xla.epoch(network, optimizer_state, part.examples, order, rule_of(eta), measure, batch_size)

    def by_library(network: Network, part: Part, order: Array, eta: Array) -> tuple[Network, Any, Array]:
        rows = cast(native.Rows, part.rows)
        network, finite = native.epoch(network, rows, part.examples.y, order, eta, batch_size)
        return network, optimizer_state, finite

    run = by_xla if kernel.name == "xla" else native.with_derivatives(by_library, by_xla)
    return cast(tuple[Network, Any, Array], run(network, part, order, eta))


def full(
    kernel: Kernel, network: Network, part: Part, measure: xla.Measure, gradient: bool
) -> tuple[Array, Array, Network | None]:
    """C over all examples, their outputs, and ∇C if it is wanted."""

    def by_xla(network: Network, part: Part) -> tuple[Array, Array, Network | None]:
        if not gradient:
            return *measure.full(network, part.examples), None
        (c, a), found = jax.value_and_grad(measure.full, has_aux=True)(network, part.examples)
        return c, a, found

    def by_library(network: Network, part: Part) -> tuple[Array, Array, Network | None]:
        return native.evaluate(network, cast(native.Rows, part.rows), part.examples.y, gradient)

    run = by_xla if kernel.name == "xla" else native.with_derivatives(by_library, by_xla)
    return cast(tuple[Array, Array, Network | None], run(network, part))
