"""Train a network by gradient descent on mini-batches or on the full batch, with compiled epochs."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jaxtyping import Array, PRNGKeyArray

from jaxgd import epoch
from jaxgd.activations import Activation
from jaxgd.best import Choice, require_choice_of_network, require_same_best
from jaxgd.chunks import UNLIMITED, Budget, batched_over, budget_of, require_budget
from jaxgd.cost import Cost, quadratic_cost, require_cost_fits
from jaxgd.data import Dataset
from jaxgd.epoch import Rates, Splits, StaticConfig, unpadded
from jaxgd.errors import (
    DtypeError,
    RangeError,
    describe,
    is_real,
    is_traced,
    largest_int,
    outline,
    require_bool,
    require_callable,
    require_count,
    require_key,
    require_precision,
    require_rule,
    require_scalar,
)
from jaxgd.examples import Examples, fit_splits, fit_traced_labels
from jaxgd.history import Best, History, TrainResult, TrainState
from jaxgd.kernels import Job, backend, select_backend, xla
from jaxgd.mesh import Placed
from jaxgd.mesh.axes import automatic, sharding_like, varying
from jaxgd.network import Network, activated, network_sizes, require_memory
from jaxgd.pytree import is_wide
from jaxgd.rates import Schedule, rates_of_run, updates_before
from jaxgd.records import require_records
from jaxgd.seen import hashable
from jaxgd.training_loop import Watch, donatable, train_by_epoch, train_traced
from jaxgd.typed import Real, tree_leaves


def train(
    network: Network,
    data: Dataset | Placed | tuple[Any, Any],
    *,
    epochs: int,
    batch_size: int | None,
    eta: Real | Schedule | None = None,
    key: PRNGKeyArray,
    optimizer: optax.GradientTransformation | None = None,
    cost: Cost = quadratic_cost,
    activation: Activation | Sequence[Activation] | None = None,
    l2: Real | None = None,
    evaluate: bool = True,
    gradient_norm: bool = True,
    precision: jax.lax.PrecisionLike = None,
    kernel: str = "auto",
    callback: Callable[[TrainState, History], bool | None] | None = None,
    keep: str = "last",
    by: str = "accuracy",
    patience: int | None = None,
    record: dict[str, Any] | None = None,
    progress: bool = False,
    state: TrainState | None = None,
    budget: Budget | None = None,
    donate: bool = False,
) -> TrainResult:
    """Train a network by mini-batch stochastic gradient descent, or by gradient descent on the full batch.

    Each mini-batch makes one update v → v − η∇C, where C is the mean cost over the examples of that mini-batch. An
    epoch visits every training example exactly once, in an order drawn from the key. If `batch_size` does not divide
    the number n of examples, the last mini-batch of the epoch is smaller, and its mean is over its own examples.

    The run ends early if an epoch makes the cost or a weight infinite or NaN. The outcome is then NOT_FINITE, and the
    result is the network after the last finite epoch. If the cost or a weight is infinite or NaN at the start, no
    update is made and the outcome is START_NOT_FINITE. The same holds if a label traced by jit or vmap is not from 0 to
    out − 1.

    The outcome of a complete run also judges the state after the last epoch:

    - SATURATED: every output of every training example is at most eps or at least 1 − eps, and the cost is above 10⁻³
      in absolute value. Here eps is the machine epsilon of the network's dtype. "tanh" outputs have the limits −1 and
      1, and "relu" outputs have the limit 0. With an output activation of your own, a run is never SATURATED.
    - UNCHANGED: the last epoch changed no weight, and the cost is above 10⁻³ in absolute value. With an `optimizer` or
      a schedule, which may skip updates, no epoch of the run changed a weight.

    SATURATED and UNCHANGED use the cost without the term of `l2`. With `cross_entropy`, this cost must be above
    2·out·eps too, because right outputs within eps of 0 and 1 cost up to out·eps.

    With `evaluate=False` and mini-batches, the outputs and the cost after an epoch are unknown. The outcome is then
    never SATURATED, and it may be UNCHANGED although the cost is near 0.

    Outside jit and vmap, `train` runs one compiled epoch after another. Under `jit` or `vmap` (over networks, η, keys
    or data) all epochs are one compiled loop. A batch element that stops early then keeps its network. In the rest
    of its history, the epoch and the number of updates stay the same, and all other values are NaN.

    Let a network of 2²⁴ weights or more take W bytes. Training it needs 4 W of memory, which includes `network`. The
    full batch with a callback needs 5 W, and `donate=True` needs 2 W. `keep="best"` or `patience` adds one W. A
    gradient over all examples in several chunks adds one W too. The activations of a chunk add up to about W/4. An
    optimizer's state adds its own size, or twice its size without `donate`. Runs with `kernel="native"` need more.

    Args:
        network: The network to start from, for instance from `init_network`. Ignored if `state` is given.
        data: A `Dataset`, or a pair (x, y) of training examples, or the result of `jaxgd.mesh.place` for either. x is
            (n, in) or images (n, height, width): bytes, used as x/255, or floating point, cast to the network's dtype.
            A warning names floating-point inputs that look unscaled: none is below 0, and the largest is at least 10. y
            is whole-number labels (n,) from 0 to out − 1, or floating-point targets (n, out). The validation and test
            sets of a `Dataset` are only evaluated.
        epochs: The number of epochs to run in this call, 0 or more. A given `state` is trained for this many more.
        batch_size: Examples per mini-batch, 1 to n. None is the full batch: one update per epoch.
        eta: The learning rate η, one real number above 0; or a schedule such as optax's. A schedule is a function of
            the number of earlier updates, which JAX traces. It must return finite values, 0 or more. With `state`, the
            number of updates continues. Another number η does not recompile, because η is traced. `jax.vmap` may also
            sweep a number inside a schedule. Required without an `optimizer`. With an `optimizer`, η is not used, and a
            warning says so.
        key: A JAX random key, such as jax.random.key(0), for the order of the examples. Ignored if `state` is given.
        optimizer: An optax transformation with a learning rate of its own, in place of plain descent, the default.
            Passing a new optimizer object triggers recompilation, so create it once.
        cost: A function of outputs (m, out) and targets (m, out) that returns one real scalar, their mean cost. By
            default `quadratic_cost`. `cross_entropy` is computed from the weighted inputs of the output layer. Passing
            a new function object triggers recompilation, so define the cost once.
        activation: Activations in place of the network's own, as in `init_network`. Default None, the network's own.
            With `state`, the activations cannot change.
        l2: λ of L2 regularization, one real number, 0 or more. It adds (λ/2n) Σ w² to the cost C. Here n is the number
            of all training examples, also for a mini-batch. The sum is over all weights without the biases. Another
            value does not recompile. Default None, no such term.
        evaluate: False leaves out every cost, accuracy and gradient that descent itself does not need, which saves
            time. Their entries in the history are NaN. Default True.
        gradient_norm: False leaves out ‖∇C‖ for mini-batches, which saves time. Its entries in the history are then
            NaN. The full batch needs ∇C in any case. Default True.
        precision: The precision of the matrix products in XLA, as in `jax.numpy.matmul`, such as "highest", or an
            algorithm of `jax.lax.DotAlgorithmPreset` that the device has, such as "TF32_TF32_F32_X3". It matters on
            accelerators. The native kernels always multiply in float32. The CUDA kernel splits each float32 factor into
            two TF32 numbers for None, "float32" and "highest", and rounds it to one for "tensorfloat32" and "high".
        kernel: The backend. "xla" takes ∇C from `jax.grad` and runs everywhere. "native" is C++ with ∇C derived by
            hand. It runs plain descent with a constant η on `quadratic_cost` or `cross_entropy`, with or without `l2`.
            It needs a float32 network of sigmoid neurons on the CPU, and inputs of bytes or float32. "cuda" is one
            kernel for an NVIDIA GPU. It runs plain mini-batch descent with a constant η on `quadratic_cost` without
            `l2`. It needs a small float32 network of sigmoid neurons with one hidden layer, and inputs of bytes.
            "auto", the default, takes the fastest backend that can run on this device with these shapes. The results of
            the backends differ only by rounding.
        callback: A function that is called on the host as callback(state, entry), at the start and after every epoch.
            It is not called when the cost or a weight is infinite or NaN. The entry is a `History` of that epoch: one
            scalar per field, and the values of `record` in `records`. Return True to stop the run. Not possible under
            jit or vmap.
        keep: The network to return: "last" (default) is the network after the last epoch, and "best" is the best one on
            the validation examples. The network at the start may be the best, so the result is never worse on them than
            the start. The first of equal networks is the best one. A value that is infinite or NaN is never the best.
            If no value is finite, the result is the last network, with the outcome NOT_FINITE. `result.state` belongs
            to the last epoch and holds the best network so far in `best`.
        by: The value that decides: the best network has the largest "accuracy" (default) or the smallest "cost" on the
            validation examples. Used only with `keep="best"` or `patience`.
        patience: The run ends after this number of epochs in a row without a new best network, 1 or more. The outcome
            is then PATIENCE, unless the network is SATURATED or UNCHANGED. A continued run keeps counting. Default: no
            limit.
        record: A dict from names to functions, whose values are recorded at every entry. A function takes the state,
            can be traced by JAX, and returns a number or an array of a fixed shape. `LayerGradientNorms()` and
            `TrainingSharpness(every=k)` may stand in place of a function. The recorded values become
            `history.records[name]`, with the entries as the first axis. After the end of a batch element they are NaN,
            or 0 for whole numbers. Passing a new function object triggers recompilation. Default: none.
        progress: True to show one line on stderr with the number of epochs, C, the accuracy and the time left; by
            default False. It shows nothing if stderr is not a terminal. Not possible under jit or vmap.
        state: The state of an earlier run, `result.state`, to continue it. With the data and settings of that run, the
            two runs together equal one long run bit for bit.
        budget: Limits on the memory of XLA's evaluations, a `jaxgd.chunks.Budget`. Another budget sums floats in
            another order. Default: the budget of the platform that holds the training data. By default, examples that
            are divided among devices are one chunk.
        donate: True to train in place, for networks that fill the memory. The run takes over the arrays of `network`,
            or of `state`, and JAX deletes them: a later use raises JAX's error about a deleted array. For the same
            reason, a callback must not keep a state. Each epoch overwrites the weights of the epoch before. If an epoch
            is not finite, the result is therefore the network after that epoch, with NOT_FINITE. step_norm, predicted
            and actual are NaN, and the outcome is never UNCHANGED. Not possible under jit or vmap; use donate_argnums
            of `jax.jit` instead. Default False.

    Returns:
        The trained network, the history (epochs + 1 entries, fewer if the run ended early), the outcome, the state to
        continue from, and the backend with the reason for it.

    Raises:
        ShapeError: If the data do not fit the network, hold no example, or the cost does not return one real scalar.
        DtypeError: If `eta` is missing, `eta` or `l2` is not one real number, an activation is neither a name nor a
            function, `epochs` or `batch_size` is not a whole number known before tracing, `evaluate` or
            `gradient_norm` is not True or False, the inputs are neither bytes nor floating point, or another argument
            has the wrong type.
        RangeError: If `epochs`, `batch_size`, `eta`, `l2` or `budget` is out of range, `kernel`, `precision` or an
            activation is unknown or cannot run here, the outputs do not fit `cross_entropy`, or the state belongs to
            another optimizer or to other activations. Also if `keep`, `by` or `patience` needs validation
            values that the run does not have. Also if a callback, `progress` or `donate` is given under jit or vmap, or
            vmap traces a number inside the optimizer, the cost or a function in `record`. Also if a network of 2²⁴
            weights or more needs more memory than is free.
        DataError: If a label is not from 0 to out − 1, or an input or target is NaN or infinite. Values traced by jit
            or vmap are not checked.

    Source: Nielsen, chapter 1, `SGD` and equations (20), (21); chapter 3, equations (63), (80) and (85).

    Example:
        >>> from jaxgd import init_network, load_dataset
        >>> network = init_network(jax.random.key(0), (64, 20, 10))
        >>> result = train(network, load_dataset("digits"), epochs=5, batch_size=10, eta=3.0, key=jax.random.key(1))
        >>> bool(result.history.test_accuracy[-1] > 0.8), result.outcome.reason.name
        (True, 'COMPLETED')
    """
    require_count("train", "epochs", epochs, least=0, most=largest_int())
    require_bool("train", "evaluate", evaluate)
    require_bool("train", "gradient_norm", gradient_norm)
    require_bool("train", "donate", donate)
    require_bool("train", "progress", progress)
    records = require_records(record)
    require_callable("train", "cost", cost, "It takes outputs and targets.")
    if callback is not None:
        require_callable("train", "callback", callback, "It takes a state and an entry of the history.")
    if optimizer is not None:
        require_rule("train", "optimizer", optimizer)
    if state is None:
        require_key("train", key)
    else:
        state = _ready(state, full_batch=batch_size is None)
        network = state.network
    network = _activated(network, activation, is_state=state is not None)
    fitted, counts = fit_splits("train", network, data)
    network = tuple(network)
    if batch_size is not None:
        require_count("train", "batch_size", batch_size, most=counts["train"])
    n, done = counts["train"], 0 if state is None else state.epoch
    choice = require_choice_of_network(
        keep, by, patience, evaluate=bool(evaluate), validated="validation" in fitted, outputs=network[-1].b.shape[0]
    )
    if state is not None:
        state = state._replace(best=require_same_best(state.best, network, choice))
    rates = rates_of_run(network, eta, optimizer, l2, n, functools.partial(updates_before, n, batch_size, done, epochs))
    rows = jnp.zeros((2, network[-1].b.shape[0]), network[-1].b.dtype)
    require_scalar("train", cost, rows, rows)
    require_cost_fits("train", cost, network[-1].activation)
    if budget is not None:
        require_budget("train", budget)
    run = functools.partial(
        _run,
        counts=counts,
        divided=getattr(getattr(data, "train", data), "devices", 1) > 1,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=eta if callable(eta) and optimizer is None else None,
        objective=xla.Objective(hashable(cost), precision, budget),
        evaluate=bool(evaluate),
        gradient_norm=bool(gradient_norm),
        kernel=kernel,
        watch=Watch(choice, records, callback, bool(progress)),
        donate=bool(donate),
    )
    return automatic(
        run, (network, fitted, rates, key, state), functools.partial(_shardings, network, batch_size is None, choice)
    )


def _run(
    network: Network,
    fitted: dict[str, Examples],
    rates: Rates,
    key: PRNGKeyArray,
    state: TrainState | None,
    *,
    counts: dict[str, int],
    divided: bool,
    epochs: int,
    batch_size: int | None,
    optimizer: optax.GradientTransformation | None,
    schedule: Schedule | None,
    objective: xla.Objective,
    evaluate: bool,
    gradient_norm: bool,
    kernel: str,
    watch: Watch,
    donate: bool,
) -> TrainResult:
    """Choose the backend, check the arguments that depend on it or on the state, and run the epochs."""
    arrays = (network, fitted, rates, key, state)
    network, fitted, rates, key, state = varying(arrays, arrays)
    precision = objective.precision
    job = Job(
        network, fitted["train"], objective.cost, optimizer, batch_size, precision, divided, rates.decay, schedule
    )
    choice = select_backend(kernel, job)
    # Without `precision`, JAX's setting applies, which the native kernels ignore.
    if precision is not None or choice.name != "native":
        require_precision("train", precision, network[-1].b.dtype)
    sizes, ready = network_sizes(network), dict[str, Examples]()
    labels_fit: Array | bool = True
    for name, examples in fitted.items():
        ready[name], fits = fit_traced_labels(backend.prepare(choice, examples), sizes[-1])
        labels_fit = labels_fit & fits
    splits = Splits(ready["train"], ready.get("validation"), ready.get("test"))
    batched = batched_over([examples.x for examples in ready.values()], (network, splits, rates, key, state))
    budget = objective.budget
    if budget is None:
        # If devices share the examples, take all rows as one chunk: a smaller one would lie on only a few devices.
        budget = UNLIMITED if job.has_divided_examples() else budget_of(splits.train.x)
    objective = dataclasses.replace(objective, budget=budget, batched=batched)
    traced = any(map(is_traced, tree_leaves((network, splits, rates, key, state))))
    config = StaticConfig(
        batch_size,
        optimizer,
        objective,
        evaluate,
        gradient_norm,
        choice,
        # JAX chooses the device only after the tracing, so XLA must be able to replace the chosen backend.
        portable=traced and kernel == "auto",
        counts=tuple(counts.get(name, 0) for name in Splits._fields),
        wide=is_wide(network) and not traced,
        lean=donate,
    )
    start = epoch.start if state is None else epoch.resume
    if state is not None:
        _require_same_optimizer(state, config)
    else:
        state = varying(TrainState(network, (), key, jnp.array(0), jnp.array(jnp.nan), None), network)
    if traced:
        if watch.of_host:
            raise RangeError(f"train: {watch.of_host} runs on the host.\nLeave it out under jit and vmap.")
        if donate:
            raise RangeError("train: donate=True is not possible under jit and vmap.\nUse donate_argnums of jax.jit.")
        return train_traced(start, state, unpadded(splits, config), rates, config, epochs, labels_fit, watch)
    devices = network[0].w.devices() if isinstance(network[0].w, jax.Array) else set()
    if len(devices) < 2:
        copies, purpose = (1, "the gradient") if donate else (2, "the next weights and the gradient")
        if watch.choice.follows:
            copies, purpose = copies + 1, f"{purpose}, and the best network"
        require_memory("train", sizes, network[0].w.dtype, copies, purpose, next(iter(devices), None))
    if donate:
        state = donatable(state)
    return train_by_epoch(start, state, splits, rates, config, epochs, watch)


def _shardings(network: Network, full_batch: bool, choice: Choice, replicated: NamedSharding) -> object:
    """Return the shardings of a traced result: weights and gradients like the network, all other arrays replicated."""
    like = jax.tree.map(lambda x: sharding_like(x, replicated), network)
    every: Any = replicated
    best = Best(like, every, every, every, choice.by) if choice.follows else None
    state = TrainState(like, every, every, every, every, like if full_batch else None, best)
    return TrainResult(like, every, every, state, every)


def _ready(state: object, *, full_batch: bool) -> TrainState:
    """Return a given state with its arrays converted for `train`. Raise unless it is a valid state."""
    if not isinstance(state, TrainState):
        raise DtypeError(
            f"train: state must be the state of an earlier run, got {describe(state)}.\nPass result.state."
        )
    network_sizes(state.network)
    require_key("train", state.key)
    if not is_real(state.epoch) or not jnp.issubdtype(jnp.result_type(state.epoch), jnp.integer):
        raise DtypeError(f"train: the epoch of state must be a whole number, got {describe(state.epoch)}.")
    if not is_real(state.cost) or (state.gradient is not None and outline(state.gradient) != outline(state.network)):
        raise DtypeError(
            "train: state must have a scalar cost, and a gradient that is None or like its network.\n"
            "Pass result.state unchanged."
        )
    network = tuple(state.network)
    cost = jnp.asarray(state.cost, jnp.promote_types(network[0].w.dtype, np.float32))
    gradient = tuple(state.gradient) if full_batch and state.gradient is not None else None
    return state._replace(network=network, epoch=jnp.asarray(state.epoch), cost=cost, gradient=gradient)


def _require_same_optimizer(state: TrainState, config: StaticConfig) -> None:
    mine = jax.eval_shape(epoch.rule(1.0, config).init, state.network)
    if outline(mine) != outline(state.optimizer_state):
        raise RangeError(
            "train: state must come from the same optimizer, but another one made it.\nContinue with that optimizer."
        )


def _activated(network: Network, activation: object, *, is_state: bool) -> Network:
    """Return the network with the given activations. Raise RangeError if they differ from those of a state."""
    changed = activated("train", network, activation)
    if is_state and outline(changed) != outline(network):
        raise RangeError(
            "train: the network of a state keeps its activations, but others were given.\n"
            "Leave out activation, or start from state.network without the state."
        )
    return changed
