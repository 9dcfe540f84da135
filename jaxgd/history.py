"""The state, the history and the result of `train`."""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from jaxgd.kernels import BackendChoice
from jaxgd.network import Network
from jaxgd.outcome import Outcome
from jaxgd.typed import Field


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Best:
    """The best network of a run so far, by its accuracy or its cost on the validation examples.

    Attributes:
        network: The best network. As long as no value was finite, it is the network at the start.
        epoch: The number of epochs that produced it, an integer scalar; 0 for the start. −1 as long as no value was
            finite.
        value: Its accuracy or cost on the validation examples, a scalar. NaN as long as no value was finite.
        waited: The number of epochs since the best one, an integer scalar. As long as no value was finite, it
            is the number of epochs so far.
        by: "accuracy" or "cost".
    """

    network: Network
    epoch: Field
    value: Field
    waited: Field
    by: str = dataclasses.field(metadata={"static": True})


class TrainState(NamedTuple):
    """The state between two epochs: all that the next epoch needs besides the data and the arguments of `train`.

    It is a pytree: scan it, vmap it, save it whole.

    Attributes:
        network: The weights and biases v.
        optimizer_state: The optimizer's own state, a pytree of arrays; without arrays for plain descent.
        key: The random key of the run, which training never changes. With mini-batches, epoch k draws its order of
            examples from fold_in(key, k). The first epoch is k = 0.
        epoch: The number of epochs done so far, an integer scalar.
        cost: The cost C(v) over all training examples, with the term of `l2`; a scalar. NaN if it was not evaluated.
        gradient: ∇C(v) over all training examples, which the next full-batch update follows. None in a run of
            mini-batches.
        best: The best network so far and the number of epochs since, a `Best`. None if neither `keep="best"` nor
            `patience` was given.
    """

    network: Network
    optimizer_state: PyTree[Array]
    key: PRNGKeyArray
    epoch: Int[Array, ""]
    cost: Float[Array, ""]
    gradient: Network | None
    best: Best | None = None


class History(NamedTuple):
    """The course of a run. Entry 0 is the start, and entry k is the state after k epochs.

    The book's "Epoch j" is entry j + 1. v_k are the weights and biases at entry k, and Δv = v_k − v_{k−1}. A value that
    was not evaluated is NaN. At entry 0, before any update of this run, step_norm, predicted and actual are NaN.

    Every field has the shape (epochs + 1,). Outside jit and vmap, a run that ended early has fewer entries. Under vmap,
    the batch axes come first. The fields epoch and updates are integers. All other fields have the network's dtype, but
    float32 for a bfloat16 or float16 network. Only the arrays in `records` may have further axes and other dtypes.

    Attributes:
        epoch: Epochs done. If this run continues another one, they count from the start of the first run.
        updates: `epoch` times the number of updates per epoch in this run.
        cost: C(v_k), the mean cost over all training examples, with the term of `l2`. Descent minimizes C.
        accuracy: The fraction of training examples, 0 to 1, whose strongest output is the right one. NaN for a network
            with a single output.
        validation_cost: The mean cost over all validation examples, without the term of `l2`. NaN without a validation
            set.
        validation_accuracy: The accuracy on the validation examples, 0 to 1.
        test_cost: The mean cost over all test examples, without the term of `l2`. NaN without a test set.
        test_accuracy: The accuracy on the test examples, 0 to 1.
        gradient_norm: ‖∇C(v_k)‖, the Euclidean norm of the gradient over all training examples.
        step_norm: ‖Δv‖, the Euclidean norm of the change over the whole epoch.
        predicted: ∇C(v_{k−1}) · Δv, the first-order prediction of ΔC. Only for the full batch, where an epoch is one
            update; NaN for mini-batches.
        actual: ΔC = C(v_k) − C(v_{k−1}), the actual change.
        records: The recorded values by their names in `record`, each of shape (epochs + 1, …). Empty without `record`.
    """

    epoch: Int[Array, "*entries"]
    updates: Int[Array, "*entries"]
    cost: Float[Array, "*entries"]
    accuracy: Float[Array, "*entries"]
    validation_cost: Float[Array, "*entries"]
    validation_accuracy: Float[Array, "*entries"]
    test_cost: Float[Array, "*entries"]
    test_accuracy: Float[Array, "*entries"]
    gradient_norm: Float[Array, "*entries"]
    step_norm: Float[Array, "*entries"]
    predicted: Float[Array, "*entries"]
    actual: Float[Array, "*entries"]
    records: dict[str, Shaped[Array, "..."]] = {}  # noqa: RUF012  a NamedTuple has no default factory; nothing changes this dict


# The fields with one number per entry.
NUMBERS = tuple(name for name in History._fields if name != "records")


class TrainResult(NamedTuple):
    """The result of `train`.

    Attributes:
        network: The network after the last epoch that left the cost and all weights finite. With `donate`, the network
            after the last epoch, even if it is not finite. With `keep="best"`, the best network if any validation value
            was finite.
        history: One entry per epoch, and one for the start.
        outcome: The reason why the run ended: COMPLETED, UNCHANGED, SATURATED, NOT_FINITE, START_NOT_FINITE, PATIENCE,
            STOPPED by the callback, or BAD_RULE. BAD_RULE means that a traced η or λ is NaN or out of range.
        state: The state at the end. Pass `state=result.state` to continue the run bit for bit.
        kernel: The backend that ran the epochs, and the reason for it.
    """

    network: Network
    history: History
    outcome: Outcome
    state: TrainState
    kernel: BackendChoice

    @property
    def best_epoch(self) -> Int[Array, "*batch"] | None:
        """The number of epochs that produced the best network; 0 is the start.

        None if neither `keep="best"` nor `patience` was given. −1 if no value on the validation examples was finite.
        """
        return None if self.state.best is None else self.state.best.epoch
