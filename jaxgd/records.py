"""Values that `train` records at every epoch: functions of the state, gradient norms per layer, and the sharpness."""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxgd.curvature import sharpness
from jaxgd.epoch import StaticConfig
from jaxgd.errors import (
    DtypeError,
    as_array,
    describe,
    largest_int,
    require_callable,
    require_choice,
    require_count,
    shown,
)
from jaxgd.examples import Examples
from jaxgd.history import History, TrainState
from jaxgd.kernels import backend
from jaxgd.kernels.evaluation import penalized, penalty
from jaxgd.mesh import control
from jaxgd.network import Network
from jaxgd.pytree import norm, wide_dtype
from jaxgd.seen import seen
from jaxgd.typed import eval_shape

Records = tuple[tuple[str, Any], ...]
"""The name and the function of each value to record. The functions become part of the compiled program."""


@dataclasses.dataclass(frozen=True)
class LayerGradientNorms:
    """Record how fast each layer learns: the length of the gradient in each layer, for `train(record=…)`.

    By default, the value of a layer with weights w and biases b is ‖∂C/∂(w, b)‖. C is the cost over all training
    examples. An entry has the shape (layers,), with the first hidden layer first. With `of="layer"`, the squares of an
    entry's numbers add up to gradient_norm². A run with mini-batches computes ∇C once more per entry. A full-batch run
    already has ∇C.

    Attributes:
        of: "layer" (default); "w" for the weights only; or "b" for the biases only, which gives the book's ‖δ^l‖.
        every: The number of epochs between two entries, at least 1 (default). The other epochs have NaN.

    Source: Nielsen, chapter 5, "The vanishing gradient problem", for `of="b"`.

    Example:
        >>> LayerGradientNorms(of="b")
        LayerGradientNorms(of='b', every=1)
    """

    of: str = "layer"
    every: int = 1

    def value(self, state: TrainState, examples: Examples, decay: Array | None, config: StaticConfig) -> Array:
        """Return the length of each layer's gradient at a state."""
        gradient = state.gradient
        if gradient is None:
            args = (config.objective, True, config.portable)
            evaluated = backend.evaluate(config.backend, state.network, examples, *args)
            gradient = (evaluated if decay is None else penalized(evaluated, state.network, decay)).gradient
        layers: Network = gradient or ()
        return jnp.stack([norm(layer if self.of == "layer" else getattr(layer, self.of)) for layer in layers])


@dataclasses.dataclass(frozen=True)
class TrainingSharpness:
    """Record the sharpness: the largest eigenvalue λ_max of the Hessian of the training cost, for `train(record=…)`.

    λ_max = max ⟨u, Hu⟩ over all u of length 1, with H = ∇²C over all training examples. Full-batch descent is stable
    while λ_max < 2/η. An entry is NaN if the search for λ_max does not converge. An entry costs 31 or more
    Hessian-vector products, and memory for 32 networks. A network with n ≤ 16 weights and biases needs only n products.
    XLA computes λ_max, even if another kernel trains the network.

    Attributes:
        every: The number of epochs between two entries, at least 1 (default). The other epochs have NaN. Under vmap
            with states at different epochs, every epoch takes the time of an entry.

    Source: Cohen et al., ICLR 2021.

    Example:
        >>> import jax
        >>> from jaxgd import init_network, train
        >>> network, x, y = init_network(jax.random.key(0), (2, 1)), jnp.ones((4, 2)), jnp.zeros((4, 1))
        >>> settings = {"epochs": 4, "batch_size": None, "eta": 1.0, "key": jax.random.key(0)}
        >>> result = train(network, (x, y), record={"sharpness": TrainingSharpness(every=2)}, **settings)
        >>> print(jnp.isfinite(result.history.records["sharpness"]))
        [ True False  True False  True]
    """

    every: int = 1

    def value(self, state: TrainState, examples: Examples, decay: Array | None, config: StaticConfig) -> Array:
        """Return λ_max at a state."""

        def cost(network: Network, x: Array, y: Array) -> Array:
            c = config.objective.full(network, Examples(x, y))[0]
            return c if decay is None else c + penalty(network, decay)

        # The search starts in the same random direction at every epoch, so that a continued run computes the same bits.
        largest = sharpness(cost, state.network, args=tuple(examples))
        return jnp.where(largest.converged, largest.value, jnp.nan).astype(wide_dtype(state.network))


def require_records(record: object) -> Records:
    """Return the names and functions of `record`. Raise unless `record` is None or a dict of functions by name."""
    if record is None:
        return ()
    if not isinstance(record, dict):
        raise DtypeError(f'train: record must be a dict, got {describe(record)}.\nPass record={{"name": function}}.')
    for name, f in record.items():
        place = f"record[{shown(name)}]"
        if not isinstance(name, str) or name == "" or name in History._fields:
            raise DtypeError(
                "train: a name in record must be a non-empty string that is not a field of History, "
                f"got {shown(name)}.\nRename it."
            )
        if isinstance(f, LayerGradientNorms | TrainingSharpness):
            require_count("train", f"{place}.every", f.every, most=largest_int())
            if isinstance(f, LayerGradientNorms):
                require_choice("train", f"{place}.of", f.of, ("layer", "w", "b"))
        else:
            require_callable("train", place, f, "It takes a state.")
    return tuple(
        (name, f if isinstance(f, LayerGradientNorms | TrainingSharpness) else seen(f))
        for name, f in sorted(record.items())
    )


def recorded(
    record: Records, state: TrainState, examples: Examples, decay: Array | None, config: StaticConfig, k: Array
) -> dict[str, Array]:
    """Return the values to record after k epochs."""

    def value(name: str, f: Any) -> Array:
        if not isinstance(f, LayerGradientNorms | TrainingSharpness):
            return jnp.asarray(as_array("train", f"the result of record[{name!r}]", f(state)))
        compute = functools.partial(f.value, state, examples, decay, config)
        if f.every == 1:
            return compute()
        outline = eval_shape(compute)
        return control.cond(k % f.every == 0, compute, lambda: jnp.full_like(outline, jnp.nan))

    return {name: value(name, f) for name, f in record}
