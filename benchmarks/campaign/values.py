"""Good arguments of every public function, and bad values for them."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from jax import Array

    from jaxgd.network import Network


class OwnError(Exception):
    """An exception that the user's function raises. It may reach the caller of jaxgd."""


class _RaisingArray:
    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise OwnError


def _raising(*_: object, **__: object) -> NoReturn:
    raise OwnError


class Traced(NamedTuple):
    """A bad value that is passed as a tracer: the call runs inside jit."""

    value: object


def square(v: "Array", *_: object) -> "Array":
    return (v**2).sum()


@functools.cache
def values() -> dict[str, Callable[[], object]]:
    """Return a function for each bad value, by name. The function makes the value."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    whole = (6, 4)
    return {
        "None": lambda: None, "a text": lambda: "3", "bytes": lambda: b"3", "a list": lambda: [1.0, 2.0],
        "a dict": lambda: {}, "an empty tuple": lambda: (), "NaN": lambda: float("nan"), "inf": lambda: float("inf"),
        "-1.0": lambda: -1.0, "0": lambda: 0, "-1": lambda: -1, "True": lambda: True, "1j": lambda: 1j,
        "10**30": lambda: 10**30, "2**31": lambda: 2**31, "1e39": lambda: 1e39, "1e-46": lambda: 1e-46,
        "np.float16": lambda: np.float16(3), "np.float64": lambda: np.float64(3), "np.int8": lambda: np.int8(3),
        "an object in 0 dimensions": lambda: np.array(None, object),
        "an array of objects": lambda: np.array([None, 1], object),
        "an array of texts": lambda: np.array(["a"]), "dates": lambda: np.array(["2020-01-01"], "datetime64[D]"),
        "records": lambda: np.zeros(2, [("a", "f4")]),
        "a masked array": lambda: np.ma.masked_array([1.0, 2.0], [False, True]),
        "an empty array": lambda: jnp.zeros(0), "0 × 4": lambda: jnp.zeros((0, 4)), "6 × 0": lambda: jnp.zeros((6, 0)),
        "three dimensions": lambda: jnp.ones((2, 3, 4)), "float16": lambda: jnp.ones(whole, jnp.float16),
        "bfloat16": lambda: jnp.ones(whole, jnp.bfloat16), "float8": lambda: jnp.ones(whole, jnp.float8_e4m3fn),
        "int32": lambda: jnp.ones(whole, int), "booleans": lambda: jnp.ones(whole, bool),
        "complex64": lambda: jnp.ones(whole, jnp.complex64), "NaNs": lambda: jnp.full(whole, jnp.nan),
        "strided": lambda: np.ones((6, 8))[:, ::2], "big endian": lambda: np.ones(whole, ">f4"),
        "read-only": lambda: np.broadcast_to(np.float32(1), whole), "a function": lambda: lambda *_: 1.0,
        "a class": lambda: int, "a key": lambda: jax.random.key(0), "an old key": lambda: jax.random.PRNGKey(0),
        "an array that raises": _RaisingArray, "a function that raises": lambda: _raising,
        "a generator": lambda: (i for i in range(3)), "a range": lambda: range(3),
        "a shape": lambda: jax.eval_shape(lambda: jnp.ones(whole)), "a path that is missing": lambda: "missing/x",
        "a null byte": lambda: "a\0b", "half of a surrogate pair": lambda: "\udcff", "a long text": lambda: "x" * 5000,
        "a nested list": lambda: [[1.0], [2.0, 3.0]], "an iterator that ends": lambda: iter(()),
        "traced NaN": lambda: Traced(jnp.nan), "traced -1": lambda: Traced(-1.0), "traced 2": lambda: Traced(2),
        "traced 6 × 4": lambda: Traced(jnp.ones(whole)), "traced labels": lambda: Traced(jnp.arange(6) % 9),
    }  # fmt: skip


@functools.cache
def _examples() -> "tuple[Array, Array]":
    import jax.numpy as jnp

    return jnp.ones((6, 4)), jnp.zeros((6, 2))


@functools.cache
def _network() -> "Network":
    import jax

    import jaxgd

    return jaxgd.init_network(jax.random.key(0), (4, 3, 2))


@functools.cache
def good() -> dict[str, Callable[[], dict[str, object]]]:
    """Return, by the name of each public function, a function that makes good arguments for it."""
    import jax
    import jax.numpy as jnp

    import jaxgd
    from jaxgd.descent import driver
    from jaxgd.rules.registry import RULES

    key = jax.random.key(0)
    network, (x, y), v = _network(), _examples(), jnp.ones(2)
    record = jaxgd.Record(v=True)
    solution = driver.minimize(
        lambda v: (v**2).sum(), jnp.ones(3), jaxgd.gradient_descent(0.1), max_steps=3, record=record
    )
    named: dict[str, dict[str, object]] = {
        **{name: {h.name: h.default for h in rule.hyperparams} for name, rule in RULES.items()},
        "accuracy": {"a": y, "y": jnp.arange(6) % 2},
        "assess": {"network": network, "x": x, "labels": jnp.arange(6) % 2},
        "backprop": {"network": network, "x": x, "y": y},
        "check_gradients": {"f": square, "args": (v,)},
        "cost_slice": {"cost": square, "v": v, "key": key, "resolution": 3},
        "cross_entropy": {"a": y, "y": y},
        "eigenpairs": {"cost": square, "v": v},
        "feedforward": {"network": network, "x": x},
        "hessian_vector_product": {"cost": square, "v": v, "u": v},
        "init_network": {"key": key, "sizes": (4, 3, 2)},
        "load_dataset": {"name": "digits"},
        "load_idx": {"folder": "missing"},
        "load_network": {"path": "missing.safetensors"},
        "load_state": {"path": "missing.state", "v0": v, "rule": jaxgd.gradient_descent(0.1)},
        "merge_sweep": {"folder": "missing"},
        "minimize": {"cost": square, "v0": v, "rule": jaxgd.gradient_descent(0.1), "max_steps": 3},
        "network_cost": {"network": network, "x": x, "y": y},
        "plot": {"result": solution, "cost": square, "minima": [x[0, :3]], "through": (x[1, :3], jnp.arange(3.0))},
        "quadratic_cost": {"a": y, "y": y},
        "save_network": {"path": "network.safetensors", "network": network},
        "save_state": {"path": "run.state", "state": solution.state},
        "sharpness": {"cost": square, "v": v},
        "sigmoid": {"z": v},
        "sigmoid_prime": {"z": v},
        "sweep": {"data": (x, y), "sizes": (4, 3, 2), "eta": 1.0, "seeds": 1, "epochs": 1, "batch_size": 2},
        "train": {"network": network, "data": (x, y), "epochs": 1, "batch_size": 2, "eta": 1.0, "key": key},
        "update": {"v": network, "gradient": network, "eta": 0.1},
    }
    return {name: functools.partial(dict, keywords) for name, keywords in named.items()}


def _data(**new: object) -> dict[str, object]:
    x, y = _examples()
    return {"data": (new.get("x", x), new.get("y", y))}


def _stop(**new: Any) -> dict[str, object]:
    import jaxgd

    return {"stop": jaxgd.Stop(**new)}


def _ones(length: int) -> "Array":
    import jax.numpy as jnp

    return jnp.ones(length)


def _record(**new: Any) -> dict[str, object]:
    import jaxgd

    return {"record": jaxgd.Record(**new)}


def _every(bad: Any) -> dict[str, object]:
    import jaxgd

    return {"record": {"x": jaxgd.TrainingSharpness(every=bad)}}


def _layer(**new: Any) -> dict[str, object]:
    network = _network()
    return {"network": (network[0]._replace(**new), network[1])}


# Parts of arguments. Each has a function that puts a bad value into this part and returns the changed arguments.
PARTS: dict[str, dict[str, Callable[[object], dict[str, object]]]] = {
    "init_network": {"sizes[1]": lambda bad: {"sizes": (4, bad, 2)}},
    "minimize": {
        **{f"stop.{name}": functools.partial(lambda name, bad: _stop(**{name: bad}), name)
           for name in ("gradient_atol", "gradient_rtol", "step_rtol", "cost", "diverging", "stalled")},
        **{f"record.{name}": functools.partial(lambda name, bad: _record(**{name: bad}), name)
           for name in ("every", "v", "function", "sharpness")},
        "cost's result": lambda bad: {"cost": lambda *_: bad},
        "cost's aux": lambda bad: {"cost": lambda v, *_: (square(v), bad), "has_aux": True},
        "batches[0]": lambda bad: {"batches": (bad, _ones(3))},
        "bounds[0]": lambda bad: {"bounds": (bad, 1.0)},
        "bounds[1]": lambda bad: {"bounds": (-1.0, bad)},
        "v0[1]": lambda bad: {"v0": [1.0, bad], "cost": lambda v, *_: v[0] ** 2 + v[1] ** 2},
    },
    "check_gradients": {
        "f's result": lambda bad: {"f": lambda *_: bad},
        "gradient's result": lambda bad: {"gradient": lambda *_: bad},
    },
    "train": {
        "data.x": lambda bad: _data(x=bad),
        "data.y": lambda bad: _data(y=bad),
        "network[0].w": lambda bad: _layer(w=bad),
        "network[0].b": lambda bad: _layer(b=bad),
        "cost's result": lambda bad: {"cost": lambda *_: bad},
        "record's value": lambda bad: {"record": {"x": bad}},
        "record's result": lambda bad: {"record": {"x": lambda *_: bad}},
        "record's every": _every,
    },
    "sweep": {"sizes[1]": lambda bad: {"sizes": (4, bad, 2)}, "eta[1]": lambda bad: {"eta": [1.0, bad]}},
    "feedforward": {"network[0].w": lambda bad: _layer(w=bad)},
    "save_network": {"network[0].w": lambda bad: _layer(w=bad)},
}  # fmt: skip
