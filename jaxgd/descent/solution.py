"""The result of `minimize`."""

import dataclasses
from typing import Any, Generic, NoReturn

import jax
import jax.numpy as jnp

from jaxgd.descent.record import Trajectory
from jaxgd.descent.state import DescentState
from jaxgd.errors import DtypeError, ShapeError, is_traced, shown
from jaxgd.outcome import Outcome
from jaxgd.typed import Field, VField, tree_map


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Solution(Generic[VField]):
    """The end of a descent, the reason it stopped, and the recorded path.

    It is a pytree. Under vmap, the batch axes come first in every array, and `at(i)` returns one element of the batch.

    Attributes:
        v: The variables after `steps` updates, a tree like v₀.
        cost: C(v), a scalar.
        gradient: ∇C(v), a tree like v₀.
        best_v: The variables with the lowest C on the path; with record=None, the last v.
        best_cost: C(best_v), a scalar.
        steps: The number of updates. It includes the updates of the earlier runs that `state` continues.
        evaluations: The number of evaluations of C, ∇C or a Hessian-vector product. C and ∇C at the same point count as
            one. Evaluations for a recorded sharpness, the stall check and the check of the minimum do not count.
        outcome: The reason the descent stopped.
        trajectory: The recorded path; None with record=None.
        state: The state to continue from, with `minimize(..., state=solution.state)`.
        aux: The cost's second result at v, with `has_aux=True`; otherwise None.

    With m mini-batches, `cost` and `gradient` belong to mini-batch `steps` mod m. `best_cost` is the lowest of the
    costs C(v_k), each on mini-batch k mod m. With record=None, it is `cost`.
    """

    v: VField
    cost: Field
    gradient: VField
    best_v: VField
    best_cost: Field
    steps: Field
    evaluations: Field
    outcome: Outcome
    trajectory: Trajectory[VField] | None
    state: DescentState[VField]
    aux: Any = None

    def at(self, i: Any) -> "Solution[VField]":
        """Return one element of a batch.

        Args:
            i: The index of the element: an int, a traced index, or a tuple of indices for a batch of batches. The value
                of a traced index is not checked.

        Returns:
            The solution of this element, with every array indexed by i.

        Raises:
            ShapeError: If this solution is not a batch, or i has too many indices or is out of range.

        Example:
            >>> from jaxgd import gradient_descent, minimize
            >>> run = lambda eta: minimize(jnp.square, 1.0, gradient_descent(eta), max_steps=1, record=None)
            >>> print(jax.vmap(run)(jnp.array([0.1, 0.5])).at(1).v)
            0.0
        """
        batch, indices = jnp.shape(self.cost), i if isinstance(i, tuple) else (i,)
        # JAX would clamp an index that is out of range.
        inside = all(is_traced(j) or -n <= j < n for j, n in zip(indices, batch, strict=False))
        if not indices or len(indices) > len(batch) or not inside:
            raise ShapeError(f"Solution.at: i must index the batch, of shape {batch}, got {shown(i)}.")
        return tree_map(lambda x: x[i], self)

    def __getitem__(self, i: object) -> NoReturn:
        """Raise an error that names `at`, because an index could mean a field or an element of a batch."""
        raise DtypeError("Solution: a solution has no index. Use solution.at(i) for element i of a batch.")

    def _replace(self, **fields: Any) -> "Solution[VField]":
        return dataclasses.replace(self, **fields)

    def __repr__(self) -> str:
        """Show the main results. The trajectory and the state are too long to show."""
        shown = [f"{name}={getattr(self, name)!r}" for name in ("v", "cost", "steps", "evaluations", "outcome")]
        return f"Solution({', '.join(shown)}, …)"
