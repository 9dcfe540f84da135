"""The interface of a backend, and the job that it runs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, ParamSpec, Protocol, TypeVar, runtime_checkable

import jax
from jax.typing import ArrayLike
from jaxtyping import Array

from jaxgd.activations import name_of
from jaxgd.cost import Cost
from jaxgd.examples import Examples
from jaxgd.kernels.evaluation import Evaluation, Objective
from jaxgd.network import Network
from jaxgd.typed import Tree, tree_leaves

P = ParamSpec("P")
R = TypeVar("R")

Epoch = Callable[[Network, Examples, Array, Array, Array | None], tuple[Network, Tree, Array]]
"""A function of the network, the examples, their order, η and the decay λ/n (None without L2 regularization). It makes
one update per mini-batch. It returns the network, the state of the update rule, and True if the cost of every
mini-batch was finite."""

Evaluate = Callable[[Network, Examples], Evaluation]
"""A function of the network and the examples. It evaluates the network on all of them, without L2 regularization."""

_SHARDED = "a sharded array"


class Job(NamedTuple):
    """The facts on which the choice of a backend depends.

    Attributes:
        network: The network to train.
        examples: The training examples, on the device.
        cost: The cost function.
        optimizer: An optax transformation, or None for plain descent.
        batch_size: Examples per mini-batch, or None for the full batch.
        precision: The precision of matrix products, as in `jax.numpy.matmul`. Default None.
        divided: True if the examples are known to be divided among several devices. Default False.
        l2: The λ of L2 regularization, or None.
        schedule: The function that returns η, given the number of updates made so far. None if η is constant.
    """

    network: Network
    examples: Examples
    cost: Cost
    optimizer: object
    batch_size: int | None
    precision: jax.lax.PrecisionLike = None
    divided: bool = False
    l2: object = None
    schedule: Callable[[Array], ArrayLike] | None = None

    def other_activations(self) -> str | None:
        """Return the activations other than "sigmoid" in words, or None if all layers have sigmoid neurons."""
        others = dict.fromkeys(name_of(layer.activation) for layer in self.network if layer.activation != "sigmoid")
        return ", ".join(others) or None

    def places(self) -> set[str]:
        """Return the kinds of devices that hold the arrays, such as "cpu".

        An array on several devices and `divided` examples give "a sharded array". An array without a device, such as a
        traced one, counts as one on JAX's default platform.
        """
        return {_place(x) for x in self._arrays()} | ({_SHARDED} if self.divided else set())

    def has_divided_examples(self) -> bool:
        """Return True if the examples are known to be divided among several devices."""
        x = self.examples.x
        known = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
        return self.divided or (known and not x.is_fully_replicated)

    def is_on(self, platform: str | None) -> bool:
        """Return True if an array is on a device of this kind. None stands for every kind."""
        return platform is None or any(platform in _platforms(x) for x in self._arrays())

    def _arrays(self) -> Sequence[object]:
        # The type is `object`, because the network of a sweep's job holds ShapeDtypeStructs in place of arrays.
        return tree_leaves((self.network, self.examples))


def _platforms(x: object) -> list[str]:
    """Return the kind of each device that holds an array, or JAX's default platform if the array has no device."""
    if isinstance(x, jax.core.Tracer) or not isinstance(x, jax.Array):
        return [jax.default_backend()]
    return [device.platform for device in x.devices()]


def _place(x: object) -> str:
    platforms = _platforms(x)
    return _SHARDED if len(platforms) > 1 else platforms[0]


@runtime_checkable
class UpdateRule(Protocol):
    """A rule for updates, such as an optax transformation with extra arguments."""

    def update(self, gradient: Network, state: Tree, network: Network, /, **extra: object) -> tuple[Network, Tree]:
        """Return the step for each weight and bias, and the new state of the rule."""
        ...


class Backend(Protocol):
    """One way to run an epoch and to evaluate all examples.

    A backend is one module with the constant `BACKEND`, and one entry in `jaxgd.kernels.registry`. Subclass this class:
    its methods with a body are defaults. Backends differ only in rounding.

    Attributes:
        name: The name in the registry.
        platform: The kind of device that the backend is made for, as in `jax.Device.platform`. None means every kind.
    """

    name: str
    platform: str | None

    def about(self) -> str:
        """Return the properties of the backend on this host for `jaxgd info`, or the reason why it cannot run."""
        ...

    def fingerprint(self) -> str | None:
        """Return the property of this host that decides the bits of results, such as the instruction set.

        A run folder records it, next to the versions and the device. Return None if those already decide the bits. If
        the backend cannot run, return the reason or None.
        """
        return None

    def why_unsupported(self, job: Job) -> str | None:
        """Return the reason why the backend cannot run the job, in one line; None if it can run it."""
        ...

    def why_slower(self, job: Job) -> str | None:
        """Return the reason why "auto" should not choose the backend for a job that it can run, or None.

        Word it as an advantage of the last backend of the registry, such as "needs less memory for 20,000,000 weights".
        If "auto" chooses that backend, it may report this reason.
        """
        return None

    def why_faster(self, job: Job) -> str:
        """Return the reason to report if "auto" chooses this backend."""
        return f"quicker for these shapes ({self.about()})"

    def prepare(self, examples: Examples) -> Examples:
        """Return the examples in the dtypes that the backend takes. This method is called once, before all epochs."""
        return examples

    def epoch(self, by_xla: Epoch, optimizer_state: Tree, batch_size: int, objective: Objective) -> Epoch:
        """Return the function that runs an epoch.

        Args:
            by_xla: XLA's function. Pass it to `with_derivatives` to give its derivatives to the backend's function.
            optimizer_state: The state of the update rule before the epoch.
            batch_size: Examples per mini-batch, 1 to n.
            objective: The cost and the precision of matrix products.

        Returns:
            A function with the arguments of `by_xla`. It returns the same as `by_xla`, up to rounding.
        """
        ...

    def evaluate(self, by_xla: Evaluate, gradient: bool, objective: Objective) -> Evaluate:
        """Return the function that evaluates all examples. The default is XLA's function.

        Args:
            by_xla: XLA's function. Pass it to `with_derivatives` to give its derivatives to the backend's function.
            gradient: True to compute ∇C.
            objective: The cost and the precision of matrix products.

        Returns:
            A function with the arguments of `by_xla`. It returns the same as `by_xla`, up to rounding.
        """
        return by_xla


def with_derivatives(f: Callable[P, R], same: Callable[P, R]) -> Callable[P, R]:
    """Return f with the derivatives of `same`, a differentiable function that computes the same."""
    g = jax.custom_jvp(f)
    g.defjvp(lambda primals, tangents: jax.jvp(same, primals, tangents))
    return g
