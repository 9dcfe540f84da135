"""Gradient descent on the network: epochs of mini-batches, or of the full batch, each one compiled loop."""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from jaxgd.cost import Cost, accuracy, quadratic_cost
from jaxgd.data import Dataset
from jaxgd.errors import DtypeError, RangeError, is_traced, require_count, require_positive, require_scalar
from jaxgd.examples import Examples, require_fit
from jaxgd.kernels import Kernel, choose, random_order, ways, xla
from jaxgd.network import Network, network_sizes
from jaxgd.outcome import Outcome, Reason
from jaxgd.pytree import all_finite, dot, norm, select, subtract
from jaxgd.rules import gradient_descent


class TrainState(NamedTuple):
    """Everything an epoch needs and leaves behind. A pytree: scan it, vmap it, save it whole."""

    network: Network
    optimizer_state: PyTree[Array]
    key: PRNGKeyArray  # of the run; epoch k draws its order of examples from fold_in(key, k)
    epoch: Int[Array, ""]  # epochs done so far
    cost: Float[Array, ""]  # the training cost C(v); NaN where it was not evaluated
    gradient: Network | None  # ∇C(v) of the full batch, which the next full-batch step will follow; else None


class History(NamedTuple):
    """One entry an epoch. Entry k is after k epochs and entry 0 is the start; the book's "Epoch j" is entry j + 1.

    What was not evaluated, and what no step led to, is NaN. C is the cost over all training examples.

    Shapes: every field is (epochs + 1,), with the lanes in front under vmap.
    """

    epoch: Int[Array, "*entries"]  # epochs done
    updates: Int[Array, "*entries"]  # updates made
    cost: Float[Array, "*entries"]  # C(v_k)
    accuracy: Float[Array, "*entries"]  # of the training examples, 0 to 1
    validation_cost: Float[Array, "*entries"]
    validation_accuracy: Float[Array, "*entries"]
    test_cost: Float[Array, "*entries"]
    test_accuracy: Float[Array, "*entries"]
    gradient_norm: Float[Array, "*entries"]  # ‖∇C(v_k)‖
    step_norm: Float[Array, "*entries"]  # ‖Δv‖ = ‖v_k − v_{k−1}‖, over the whole epoch
    predicted: Float[Array, "*entries"]  # ∇C(v_{k−1}) · Δv; full batch only, where an epoch is one step
    actual: Float[Array, "*entries"]  # ΔC = C(v_k) − C(v_{k−1})


class TrainResult(NamedTuple):
    """What `train` returns."""

    network: Network
    history: History
    outcome: Outcome
    state: TrainState  # to continue from: train(..., state=result.state)
    kernel: Kernel  # the way the epochs ran, and why


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What decides the compiled program, as one hashable value."""

    batch_size: int | None
    optimizer: optax.GradientTransformation | None
    measure: xla.Measure
    evaluate: bool
    kernel: Kernel


class _Parts(NamedTuple):
    train: Examples
    validation: Examples | None
    test: Examples | None


def train(
    network: Network,
    data: Dataset | tuple[Any, Any],
    *,
    epochs: int,
    batch_size: int | None,
    eta: Any = None,
    key: PRNGKeyArray,
    optimizer: optax.GradientTransformation | None = None,
    cost: Cost = quadratic_cost,
    evaluate: bool = True,
    precision: jax.lax.PrecisionLike = None,
    kernel: Literal["auto", "xla", "native"] = "auto",
    callback: Callable[[TrainState, History], bool | None] | None = None,
    state: TrainState | None = None,
) -> TrainResult:
    """Teach a network by mini-batch stochastic gradient descent, or by gradient descent on the full batch.

    v → v − η∇C, once a mini-batch, where C is the mean cost over that mini-batch's own examples. Each epoch visits the
    examples in a new order drawn from the key, all of them and none twice: where n is not a multiple of `batch_size`,
    the last mini-batch of the epoch is short and its mean is over the examples it has. `batch_size=None` is the full
    batch: one update an epoch.

    `kernel` is the way an epoch runs. "xla" takes ∇C from `jax.grad`, and goes everywhere. "native" is C++ with the
    gradient derived by hand: for plain descent on the quadratic cost, in float32 on the CPU, with bytes or float32 as
    inputs. "auto" takes it where it can run and is the quicker; the result's `kernel` says which it was, and why. They
    compute the same but for the order in which float32 sums are rounded.

    An epoch that makes the cost or a weight infinite or NaN ends the run: the outcome says so, and the network is the
    one after the last epoch that was finite.

    Called plainly, it runs one compiled epoch after the other. Under `jit` or `vmap` (over networks, η, keys, data) it
    is one compiled loop; then a lane that stopped keeps its network and the rest of its history is NaN.

    Shapes: `data` is a `Dataset`, or a pair (x, y): x is (n, in) or images (n, height, width), bytes (taken as x/255)
    or floating point (taken as they are); y is (n,) whole-number labels or (n, out) floating-point targets.
    `epochs` more are run, also from a `state`. `cost(a, y)` of outputs and targets (n, out) returns one scalar, their
    mean cost.
    Range: η > 0, traced, so that changing it does not recompile. With an `optimizer`, whose learning rate is its own,
    η is not used. `evaluate=False` leaves out all that the descent itself does not need.
    `callback(state, entry)` runs on the host after the start and after every epoch, with that entry of the history;
    returning True stops the run. `state=` continues an earlier run of the same settings, bit for bit, in place of
    `network` and `key`.
    Raises: ShapeError, DtypeError, RangeError or DataError for arguments and data that do not fit.
    Source: Nielsen, chapter 1, `SGD` and equations (20), (21).

    >>> from jaxgd import init_network, load_dataset
    >>> network = init_network(jax.random.key(0), (64, 20, 10))
    >>> result = train(network, load_dataset("digits"), epochs=5, batch_size=10, eta=3.0, key=jax.random.key(1))
    >>> bool(result.history.test_accuracy[-1] > 0.8), result.outcome.reason.name
    (True, 'COMPLETED')
    """
    require_count("train", "epochs", epochs, least=0)
    if state is not None:
        network = state.network
    fitted = _fitted(network, data)
    if batch_size is not None:
        require_count("train", "batch_size", batch_size, most=len(fitted["train"].y))
    eta = _step_size(network, eta, optimizer)
    chosen = choose(kernel, network, fitted["train"], cost, optimizer, batch_size)
    ready = {name: ways.prepared(chosen, examples) for name, examples in fitted.items()}
    parts = _Parts(ready["train"], ready.get("validation"), ready.get("test"))
    plan = _Plan(batch_size, optimizer, xla.Measure(cost, precision), bool(evaluate), chosen)
    sizes = network_sizes(network)
    rows = jnp.zeros((2, sizes[-1]), network[-1].b.dtype)
    require_scalar("train", cost, rows, rows)

    traced = any(map(is_traced, jax.tree.leaves((network, parts, eta, key, state))))
    start = _start if state is None else _entry_of
    state = TrainState(network, (), key, jnp.array(0), jnp.array(jnp.nan), None) if state is None else state
    if traced:
        if callback is not None:
            raise RangeError("train: a callback runs on the host, which jit and vmap do not; leave it out there.")
        return _train_traced(start, state, parts, eta, plan, epochs)
    return _train_by_epoch(start, state, parts, eta, plan, epochs, callback)


def _fitted(network: Network, data: Any) -> dict[str, Examples]:
    """The data on the device, checked against the network."""
    named = (
        {"train": data.train, "validation": data.validation, "test": data.test}
        if isinstance(data, Dataset)
        else {"train": data}
    )
    return {name: require_fit("train", name, network, *part) for name, part in named.items()}


def _step_size(network: Network, eta: Any, optimizer: Any) -> Array:
    if optimizer is not None:
        if eta is not None:
            warnings.warn("train: eta is not used, since the optimizer has a learning rate of its own.", stacklevel=3)
        eta = 1.0
    if eta is None:
        raise DtypeError("train: eta must be one real number, got none.\nGive eta, or an optimizer with its own rate.")
    if callable(eta):
        raise DtypeError(
            "train: eta must be one real number, got a function.\n"
            "Give a schedule to an optimizer: optimizer=optax.sgd(schedule)."
        )
    require_positive("train", "eta", eta)
    # bfloat16 networks multiply by η in float32 and round once, on being updated.
    dtype = jnp.promote_types(network[0].w.dtype, jnp.float32)
    if not is_traced(eta):
        with np.errstate(over="ignore"):
            require_positive("train", f"eta in {dtype}", np.asarray(eta).astype(dtype))
    return jnp.asarray(eta, dtype)


def _train_by_epoch(
    start: Any, state: TrainState, parts: _Parts, eta: Array, plan: _Plan, epochs: int, callback: Any
) -> TrainResult:
    state, numbers = _packed(start, state, parts, eta, plan)
    entries: list[History] = []
    reason = Reason.COMPLETED
    for k in range(epochs + 1):
        if is_traced(numbers[0]):
            raise RangeError(
                "train: a number inside the optimizer or the cost is traced, which train cannot see under vmap.\n"
                "Wrap the vmapped function in jax.jit and vmap over train's own arguments too, or loop over the number."
            )
        entry, finite = _unpacked(numbers)
        if finite or k == 0:
            entries.append(entry)
        if not finite:
            reason = Reason.NOT_FINITE
            break
        if callback is not None and callback(state, entry) and k < epochs:
            reason = Reason.STOPPED
            break
        if k < epochs:
            state, numbers = _packed(_epoch, state, parts, eta, plan)
    history = jax.device_put(jax.tree.map(lambda *xs: np.stack(xs), *entries))
    return TrainResult(state.network, history, Outcome(jnp.array(reason)), state, plan.kernel)


@functools.partial(jax.jit, static_argnames=("advance", "plan"))
def _packed(
    advance: Any, state: TrainState, parts: _Parts, eta: Array, plan: _Plan
) -> tuple[TrainState, tuple[Array, Array]]:
    """The state, and what the host wants to know in as few arrays as can be: each takes it 30 µs to fetch."""
    state, entry, finite = advance(state, parts, eta, plan)
    counts = jnp.stack([entry.epoch, entry.updates, finite.astype(entry.epoch.dtype)])
    return state, (counts, jnp.stack(entry[2:]))


def _unpacked(numbers: tuple[Array, Array]) -> tuple[History, bool]:
    counts, values = map(np.asarray, numbers)
    return History(counts[0], counts[1], *values), bool(counts[2])


def _train_traced(start: Any, state: TrainState, parts: _Parts, eta: Array, plan: _Plan, epochs: int) -> TrainResult:
    state, first, finite = start(state, parts, eta, plan)

    def body(carry: tuple[TrainState, Array], _: None) -> tuple[tuple[TrainState, Array], History]:
        state, alive = carry
        advanced, entry, finite = _epoch(state, parts, eta, plan)
        go = alive & finite
        blank = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan if x.dtype.kind == "f" else x), entry)
        blank = blank._replace(epoch=state.epoch, updates=_updates(state.epoch, parts, plan))
        return (_keep(go, advanced, state), go), select(go, entry, blank)

    (state, alive), entries = jax.lax.scan(body, (state, finite), None, length=epochs)
    history = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs]), first, entries)
    outcome = Outcome(jnp.where(alive, int(Reason.COMPLETED), int(Reason.NOT_FINITE)))
    return TrainResult(state.network, history, outcome, state, plan.kernel)


def _keep(go: Array, advanced: TrainState, state: TrainState) -> TrainState:
    # Keys are not for lax.select, and this one never changes.
    key, state, advanced = state.key, state._replace(key=jnp.array(0)), advanced._replace(key=jnp.array(0))
    return cast(TrainState, select(go, advanced, state)._replace(key=key))


def _rule(eta: Array, plan: _Plan) -> optax.GradientTransformationExtraArgs:
    return optax.with_extra_args_support(gradient_descent(eta) if plan.optimizer is None else plan.optimizer)


def _accuracy(a: Array, examples: Examples) -> Array:
    # Of a single output there is no strongest one.
    return jnp.array(jnp.nan) if examples.y.shape[1:] == (1,) else accuracy(a, examples.y)


@functools.partial(jax.jit, static_argnames="plan")
def _start(state: TrainState, parts: _Parts, eta: Array, plan: _Plan) -> tuple[TrainState, History, Array]:
    state = state._replace(optimizer_state=_rule(eta, plan).init(state.network))
    return _measured(state, None, parts, plan)


@functools.partial(jax.jit, static_argnames="plan")
def _entry_of(state: TrainState, parts: _Parts, eta: Array, plan: _Plan) -> tuple[TrainState, History, Array]:
    """The entry of a state handed in, which itself must not change by a bit; only a gradient it lacks is added."""
    measured, entry, finite = _measured(state, None, parts, plan)
    return measured if plan.batch_size is None and state.gradient is None else state, entry, finite


@functools.partial(jax.jit, static_argnames="plan")
def _epoch(state: TrainState, parts: _Parts, eta: Array, plan: _Plan) -> tuple[TrainState, History, Array]:
    """One epoch. The state after it, its entry and True; or the old state, a meaningless entry and False."""
    if plan.batch_size is None:
        network, optimizer_state = xla.step(
            state.network,
            state.optimizer_state,
            cast(Network, state.gradient),
            _rule(eta, plan),
            value=state.cost,
            value_fn=lambda v: plan.measure.full(v, parts.train)[0],
        )
        finite = jnp.array(True)
    else:
        order = random_order(jax.random.fold_in(state.key, state.epoch), len(parts.train.y))
        network, optimizer_state, finite = ways.epoch(
            plan.kernel,
            state.network,
            state.optimizer_state,
            parts.train,
            order,
            eta,
            lambda eta: _rule(eta, plan),
            plan.measure,
            plan.batch_size,
        )
    advanced = state._replace(network=network, optimizer_state=optimizer_state, epoch=state.epoch + 1)
    advanced, entry, measured_finite = _measured(advanced, state, parts, plan)
    finite &= measured_finite
    return _keep(finite, advanced, state), entry, finite


def _updates(epoch: Array, parts: _Parts, plan: _Plan) -> Array:
    return epoch * (1 if plan.batch_size is None else -(-len(parts.train.y) // plan.batch_size))


def _measured(
    state: TrainState, before: TrainState | None, parts: _Parts, plan: _Plan
) -> tuple[TrainState, History, Array]:
    """The state with its cost and gradient, its entry of the history, and whether all of it is finite."""
    network, nan = state.network, jnp.full((), jnp.nan, jnp.promote_types(state.network[0].w.dtype, jnp.float32))
    values = dict.fromkeys(History._fields, nan)
    finite = all_finite(network)
    full_batch = plan.batch_size is None
    if full_batch or plan.evaluate:
        c, a, gradient = ways.full(plan.kernel, network, parts.train, plan.measure, gradient=True)
        c = c.astype(nan.dtype)
        values |= {"cost": c, "gradient_norm": norm(gradient)}
        finite &= jnp.isfinite(c)
        state = state._replace(cost=c, gradient=gradient if full_batch else None)
        if plan.evaluate:
            values["accuracy"] = _accuracy(a, parts.train)
    else:
        state = state._replace(cost=nan)
    if plan.evaluate:
        for name in ("validation", "test"):
            if (part := getattr(parts, name)) is not None:
                c, a, _ = ways.full(plan.kernel, network, part, plan.measure, gradient=False)
                values |= {f"{name}_cost": c, f"{name}_accuracy": _accuracy(a, part)}
    if before is not None:
        step = subtract(network, before.network)
        values["step_norm"] = norm(step)
        values["actual"] = state.cost - before.cost
        if full_batch:
            values["predicted"] = dot(before.gradient, step)
    values = {name: jnp.asarray(value, nan.dtype) for name, value in values.items()}
    values |= {"epoch": state.epoch, "updates": _updates(state.epoch, parts, plan)}
    return state, History(**values), finite
