"""Bad calls of the public functions: each argument takes values of wrong types, shapes, dtypes and ranges.

A call may be accepted, or refused by one of jaxgd's exceptions with a message of at most 600 characters.
"""

import functools
import inspect
import itertools
import os
import random
import resource
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.campaign.attack import Attack, Options
from benchmarks.campaign.children import Try, isolated, without_network

_LONGEST = 600
_MEMORY = 16 * 2**30


class OwnError(Exception):
    """An exception of the caller's own function, which must reach the caller."""


class _Bomb:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise OwnError


def _raising(*_: Any, **__: Any) -> Any:
    raise OwnError


class Traced(NamedTuple):
    """A value that the call receives as the argument of a function inside jit."""

    value: Any


def calls(options: Options) -> Iterator[Attack]:
    """Make bad calls: every argument with every bad value in random order, then pairs of bad values."""
    rng = random.Random(options.seed)
    pool = list(values())
    places = [(name, (place,)) for name, found in arguments().items() for place in found]
    single = [(name, place, (value,)) for name, place in places for value in pool]
    rng.shuffle(single)

    def pairs() -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        while True:
            name = rng.choice([name for name, found in arguments().items() if len(found) > 1])
            yield name, tuple(rng.sample(arguments()[name], 2)), (rng.choice(pool), rng.choice(pool))

    tries = []
    for name, where, bad in itertools.islice(itertools.chain(single, pairs()), options.count):
        about = f"{name}({', '.join(f'{place} = {value}' for place, value in zip(where, bad, strict=True))})"
        tries.append(Try(name, about, functools.partial(_call, name, where, bad, about)))
    yield from isolated(tries, options.work / "calls", options)


def arguments() -> dict[str, list[str]]:
    """Return the arguments of every public function, and parts of some of them, such as `stop.cost`."""
    import jaxgd

    found: dict[str, list[str]] = {}
    for name in jaxgd.__all__:
        function = inspect.unwrap(getattr(jaxgd, name))
        if inspect.isfunction(function):
            found[name] = [*inspect.signature(function).parameters, *PARTS.get(name, {})]
    return found


def _call(name: str, where: tuple[str, ...], bad: tuple[str, ...], about: str) -> Attack:
    """Make one call. Return its end."""
    import jax

    import jaxgd

    _prepare()
    drawn = [values()[value]() for value in bad]

    def call(*given: Any) -> Any:
        keywords = good()[name]()
        for place, value in zip(where, given, strict=True):
            keywords |= PARTS[name][place](value) if place in PARTS.get(name, {}) else {place: value}
        positional = keywords.pop("args", ()) if name == "check_gradients" else ()
        if name == "check_gradients":
            positional = (keywords.pop("f"), *(positional if isinstance(positional, tuple) else (positional,)))
        out = getattr(jaxgd, name)(*positional, **keywords)
        if isinstance(out, jaxgd.Rule):
            out = jaxgd.minimize(_square, jax.numpy.ones(2), out, max_steps=3)
        return [x for x in jax.tree.leaves(out) if isinstance(x, jax.Array)]

    group = " and ".join(f"{name}.{place}: {value}" for place, value in zip(where, bad, strict=True))
    try:
        if any(isinstance(value, Traced) for value in drawn):
            traced = [value.value for value in drawn if isinstance(value, Traced)]

            def inside(*xs: Any) -> Any:
                rest = iter(xs)
                return call(*(next(rest) if isinstance(value, Traced) else value for value in drawn))

            jax.block_until_ready(jax.jit(inside)(*traced))
        else:
            jax.block_until_ready(call(*drawn))
    except jaxgd.JaxgdError as error:
        if len(str(error)) <= _LONGEST:
            return Attack(name, "refused", False, about)
        return Attack(name, "long message", True, f"{about}: {len(str(error))} characters: {error}")
    except OwnError:
        return Attack(name, "the caller's own exception", False, about)
    except Exception as error:
        own = "a class" in bad and any(_takes_function(name, place) for place in where)
        if own or _in_own_function(error):
            return Attack(name, "the caller's own exception", False, about)
        return Attack(name, "raw exception", True, f"{about}: {type(error).__name__}: {' '.join(str(error).split())}")
    return Attack(name, "accepted", False, about, group)


def _in_own_function(error: BaseException) -> bool:
    """Return True if a function that this module passed to jaxgd has raised the error."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return frame.filename == __file__ and frame.name in ("_square", "<lambda>")


def _takes_function(name: str, place: str) -> bool:
    return callable(good()[name]().get(place)) or place in ("callback", "gradient", "vjp", "jvp")


@functools.cache
def _prepare() -> None:
    """Prepare the child: no warnings, no network, an empty folder, a limit of memory, and the good arguments."""
    good()  # outside jit, where a cached array would be a tracer
    warnings.simplefilter("ignore")
    without_network()
    os.environ["JAXGD_DATA_DIR"] = "no data"
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.RLIM_INFINITY))
    os.chdir(tempfile.mkdtemp(dir="."))


def _square(v: Any, *_: Any) -> Any:
    return (v**2).sum()


@functools.cache
def values() -> dict[str, Callable[[], Any]]:
    """Return makers of bad values by name. No array is made before a maker is called."""
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
        "an object in 0 dimensions": lambda: np.array(None), "an array of objects": lambda: np.array([None, 1], object),
        "an array of texts": lambda: np.array(["a"]), "dates": lambda: np.array(["2020-01-01"], "datetime64[D]"),
        "records": lambda: np.zeros(2, [("a", "f4")]), "a masked array": lambda: np.ma.masked_array([1.0, 2.0], [0, 1]),
        "an empty array": lambda: jnp.zeros(0), "0 × 4": lambda: jnp.zeros((0, 4)), "6 × 0": lambda: jnp.zeros((6, 0)),
        "three dimensions": lambda: jnp.ones((2, 3, 4)), "float16": lambda: jnp.ones(whole, jnp.float16),
        "bfloat16": lambda: jnp.ones(whole, jnp.bfloat16), "float8": lambda: jnp.ones(whole, jnp.float8_e4m3fn),
        "int32": lambda: jnp.ones(whole, int), "booleans": lambda: jnp.ones(whole, bool),
        "complex64": lambda: jnp.ones(whole, jnp.complex64), "NaNs": lambda: jnp.full(whole, jnp.nan),
        "strided": lambda: np.ones((6, 8))[:, ::2], "big endian": lambda: np.ones(whole, ">f4"),
        "read-only": lambda: np.broadcast_to(np.float32(1), whole), "a function": lambda: lambda *_: 1.0,
        "a class": lambda: int, "a key": lambda: jax.random.key(0), "an old key": lambda: jax.random.PRNGKey(0),
        "an array that raises": _Bomb, "a function that raises": lambda: _raising,
        "a generator": lambda: (i for i in range(3)), "a range": lambda: range(3),
        "a shape": lambda: jax.ShapeDtypeStruct(whole, jnp.float32), "a path that is missing": lambda: "missing/x",
        "a null byte": lambda: "a\0b", "half a character": lambda: "\udcff", "a long text": lambda: "x" * 5000,
        "a nested list": lambda: [[1.0], [2.0, 3.0]], "an iterator that ends": lambda: iter(()),
        "traced NaN": lambda: Traced(jnp.nan), "traced -1": lambda: Traced(-1.0), "traced 2": lambda: Traced(2),
        "traced 6 × 4": lambda: Traced(jnp.ones(whole)), "traced labels": lambda: Traced(jnp.arange(6) % 9),
    }  # fmt: skip


@functools.cache
def good() -> dict[str, Callable[[], dict[str, Any]]]:
    """Return makers of good arguments for every public function."""
    import jax
    import jax.numpy as jnp

    import jaxgd

    key = jax.random.key(0)
    network = jaxgd.init_network(key, (4, 3, 2))
    x, y, v = jnp.ones((6, 4)), jnp.zeros((6, 2)), jnp.ones(2)
    named: dict[str, dict[str, Any]] = {
        "accuracy": {"a": y, "y": jnp.arange(6) % 2},
        "backprop": {"network": network, "x": x, "y": y},
        "backtracking": {},
        "check_gradients": {"f": _square, "args": (v,)},
        "cost_slice": {"cost": _square, "v": v, "key": key, "resolution": 3},
        "eigenpairs": {"cost": _square, "v": v},
        "feedforward": {"network": network, "x": x},
        "fixed_length": {"epsilon": 0.1},
        "gradient_descent": {"eta": 0.1},
        "gradient_flow": {"dt": 0.1},
        "heavy_ball": {"eta": 0.1, "mu": 0.9},
        "hessian_vector_product": {"cost": _square, "v": v, "u": v},
        "init_network": {"key": key, "sizes": (4, 3, 2)},
        "load_dataset": {"name": "digits"},
        "load_idx": {"folder": "missing"},
        "load_network": {"path": "missing.safetensors"},
        "minimize": {"cost": _square, "v0": v, "rule": jaxgd.gradient_descent(0.1), "max_steps": 3},
        "nesterov": {"eta": 0.1, "mu": 0.9},
        "network_cost": {"network": network, "x": x, "y": y},
        "newton": {},
        "quadratic_cost": {"a": y, "y": y},
        "save_network": {"path": "network.safetensors", "network": network},
        "sharpness": {"cost": _square, "v": v},
        "sigmoid": {"z": v},
        "sigmoid_prime": {"z": v},
        "train": {"network": network, "data": (x, y), "epochs": 1, "batch_size": 2, "eta": 1.0, "key": key},
        "update": {"v": network, "gradient": network, "eta": 0.1},
        "wolfe": {},
    }
    return {name: functools.partial(dict, keywords) for name, keywords in named.items()}


def _data(**new: Any) -> dict[str, Any]:
    x, y = good()["train"]()["data"]
    return {"data": (new.get("x", x), new.get("y", y))}


def _stop(**new: Any) -> dict[str, Any]:
    import jaxgd

    return {"stop": jaxgd.Stop(**new)}


def _record(**new: Any) -> dict[str, Any]:
    import jaxgd

    return {"record": jaxgd.Record(**new)}


def _layer(**new: Any) -> dict[str, Any]:
    network = good()["train"]()["network"]
    return {"network": (network[0]._replace(**new), network[1])}


# Parts of arguments, each with the arguments that hold a bad part.
PARTS: dict[str, dict[str, Callable[[Any], dict[str, Any]]]] = {
    "init_network": {"sizes[1]": lambda bad: {"sizes": (4, bad, 2)}},
    "minimize": {
        **{f"stop.{name}": functools.partial(lambda name, bad: _stop(**{name: bad}), name)
           for name in ("gradient_atol", "gradient_rtol", "step_rtol", "cost", "diverging", "stalled")},
        **{f"record.{name}": functools.partial(lambda name, bad: _record(**{name: bad}), name)
           for name in ("every", "v", "function", "sharpness")},
        "cost's result": lambda bad: {"cost": lambda *_: bad},
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
    },
    "feedforward": {"network[0].w": lambda bad: _layer(w=bad)},
    "save_network": {"network[0].w": lambda bad: _layer(w=bad)},
}  # fmt: skip
