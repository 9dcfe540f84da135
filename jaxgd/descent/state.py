"""The state of a descent between two updates, and the args of the cost at each update."""

from typing import Any, NamedTuple

from jax import lax
from jaxtyping import Array, Float, Int

from jaxgd.typed import Generic, Tree, V, tree_leaves, tree_map


class DescentState(NamedTuple, Generic[V]):
    """The state of a descent between two updates. It is a pytree, so it works with `scan` and `vmap`, and can be saved.

    Under vmap, the batch axes come first in every array. A run that continues with another cost resets `best_v`,
    `best_cost`, `scale` and `size` to the values at v.

    Attributes:
        v: The variables.
        cost: C(v), a scalar.
        gradient: ∇C(v), a tree like v.
        rule: The state of the rule.
        step: The number of updates made so far.
        evaluations: The number of evaluations of C, ∇C or a Hessian-vector product. C and ∇C at the same point count as
            one. Evaluations for a recorded sharpness, the stall check and the check of the minimum do not count.
        best_v: The variables with the lowest C so far; v if nothing is recorded.
        best_cost: C(best_v), a scalar.
        first_norm: ‖∇C(v₀)‖, the factor of `gradient_rtol`; with bounds, the norm of the reduced gradient. A check that
            finds no minimum near v makes `first_norm` smaller.
        scale: max(|C(v₀)|, |C(v₁)|), for the divergence test and the check of a minimum.
        size: ‖v₀‖, for the check of a minimum.
        cost_before: C before the latest update; infinite at the start, or if no test needs it.
        step_norm: ‖Δv‖ of the latest update; infinite at the start, or if no test needs it.
        next_look: The number of updates after which progress is checked next.
        cost_seen: C at the latest check of progress; C at the start before the first check.
    """

    v: V
    cost: Float[Array, "*batch"]
    gradient: V
    rule: Any
    step: Int[Array, "*batch"]
    evaluations: Int[Array, "*batch"]
    best_v: V
    best_cost: Float[Array, "*batch"]
    first_norm: Float[Array, "*batch"]
    scale: Float[Array, "*batch"]
    size: Float[Array, "*batch"]
    cost_before: Float[Array, "*batch"]
    step_norm: Float[Array, "*batch"]
    next_look: Int[Array, "*batch"]
    cost_seen: Float[Array, "*batch"]


class BatchedArgs(NamedTuple):
    """The args of a cost that gets another batch at every update.

    Attributes:
        batches: All batches: a tree of arrays with a leading axis of length m.
        args: The args that follow the batch.
    """

    batches: Tree
    args: tuple[Any, ...]


def args_at(args: tuple[Any, ...], k: Array | int) -> tuple[Any, ...]:
    """Return the cost's args after k updates. With m batches, these are batch k mod m and the other args."""
    if not isinstance(args, BatchedArgs):
        return args
    m = len(tree_leaves(args.batches)[0])
    return tree_map(lambda x: lax.dynamic_index_in_dim(x, k % m, keepdims=False), args.batches), *args.args
