"""`minimize` and the rules refuse bad arguments with one clear error."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from costs import quadratic, valley

from jaxgd import (
    Record,
    Stop,
    backtracking,
    fixed_length,
    gradient_descent,
    heavy_ball,
    minimize,
    nesterov,
)
from jaxgd.errors import DtypeError, JaxgdError, RangeError, ShapeError


def sides(v):
    return v**2


def with_aux(aux):
    return lambda v: (jnp.sum(v), aux)


BAD = {
    "cost is not a function": (
        lambda: minimize(3.0, jnp.ones(2), gradient_descent(0.1), max_steps=1),
        DtypeError,
        "cost",
    ),
    "cost is not a scalar": (
        lambda: minimize(sides, jnp.ones(2), gradient_descent(0.1), max_steps=1),
        ShapeError,
        "one real scalar",
    ),
    "cost is complex": (
        lambda: minimize(lambda v: jnp.sum(v) * 1j, jnp.ones(2), gradient_descent(0.1), max_steps=1),
        ShapeError,
        "one real scalar",
    ),
    "v0 holds integers": (
        lambda: minimize(valley, jnp.array([1, 2]), gradient_descent(0.1), max_steps=1),
        DtypeError,
        "v0",
    ),
    "v0 is a tree with integers": (
        lambda: minimize(lambda v: v["x"], {"x": 1.0, "n": jnp.array(3)}, gradient_descent(0.1), max_steps=1),
        DtypeError,
        r"v0\['n'\]",
    ),
    "v0 holds no variables": (
        lambda: minimize(valley, {}, gradient_descent(0.1), max_steps=1),
        ShapeError,
        "at least one variable",
    ),
    "v0 is text": (lambda: minimize(valley, "v", gradient_descent(0.1), max_steps=1), DtypeError, "v0"),
    "eta is text": (lambda: gradient_descent("0.1"), DtypeError, "eta"),
    "eta is 0": (lambda: gradient_descent(0.0), RangeError, "eta"),
    "eta below 0": (lambda: gradient_descent(-0.1), RangeError, "eta"),
    "mu is 1": (lambda: heavy_ball(0.1, 1.0), RangeError, "mu"),
    "mu is an array": (lambda: nesterov(0.1, jnp.ones(2)), DtypeError, "mu"),
    "epsilon below 0": (lambda: fixed_length(-1.0), RangeError, "epsilon"),
    "memory is 0": (lambda: backtracking(0), RangeError, "memory"),
    "rule is a number": (lambda: minimize(valley, jnp.ones(2), 0.1, max_steps=1), DtypeError, "rule"),
    "max_steps below 0": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=-1),
        RangeError,
        "max_steps",
    ),
    "max_steps is 1.5": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1.5),
        DtypeError,
        "max_steps",
    ),
    "args is not a tuple": (
        lambda: minimize(quadratic, jnp.ones(2), gradient_descent(0.1), args=jnp.eye(2), max_steps=1),
        DtypeError,
        "args must be a tuple",
    ),
    "args holds text": (
        lambda: minimize(lambda v, s: v**2, 1.0, gradient_descent(0.1), args=("s",), max_steps=1),
        DtypeError,
        "args",
    ),
    "stop is a number": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, stop=1e-3),
        DtypeError,
        "stop",
    ),
    "stop with a tolerance below 0": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, stop=Stop(gradient_rtol=-1.0)),
        RangeError,
        "gradient_rtol",
    ),
    "record is True": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, record=True),
        DtypeError,
        "record",
    ),
    "record every 0 updates": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, record=Record(every=0)),
        RangeError,
        "every",
    ),
    "callback under jit": (
        lambda: jax.jit(lambda v: minimize(valley, v, gradient_descent(0.1), max_steps=1, callback=print))(jnp.ones(2)),
        RangeError,
        "callback",
    ),
    "progress under jit": (
        lambda: jax.jit(lambda v: minimize(valley, v, gradient_descent(0.1), max_steps=1, progress=True))(jnp.ones(2)),
        RangeError,
        "callback, seconds and progress need the host",
    ),
    "seconds below 0": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, seconds=-1),
        RangeError,
        "seconds",
    ),
    "state is a number": (
        lambda: minimize(valley, None, gradient_descent(0.1), max_steps=1, state=3),
        DtypeError,
        "state",
    ),
    "v0 of other shapes than the state": (
        lambda: minimize(
            valley,
            jnp.ones(3),
            gradient_descent(0.1),
            max_steps=1,
            state=minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=0).state,
        ),
        ShapeError,
        r"v0 must be a tree like the variables in state, float32\[2\], got float32\[3\]",
    ),
    "unknown differentiate": (
        lambda: minimize(valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, differentiate="magic"),
        RangeError,
        "differentiate",
    ),
    "a pair without has_aux": (
        lambda: minimize(with_aux(1.0), jnp.ones(2), gradient_descent(0.1), max_steps=1),
        ShapeError,
        "one real scalar, got a pair.\nPass has_aux=True",
    ),
    "has_aux without a pair": (
        lambda: minimize(lambda v: (1.0, 2.0, v), jnp.ones(2), gradient_descent(0.1), max_steps=1, has_aux=True),
        ShapeError,
        "with has_aux=True the cost must return a pair",
    ),
    "aux holds text": (
        lambda: minimize(with_aux({"a": "x"}), jnp.ones(2), gradient_descent(0.1), max_steps=1, has_aux=True),
        DtypeError,
        r"aux must hold arrays and numbers, got str at aux\['a'\]",
    ),
    "unroll with a stopping test": (
        lambda: minimize(
            valley, jnp.ones(2), gradient_descent(0.1), max_steps=1, differentiate="unroll", stop=Stop(cost=0.1)
        ),
        RangeError,
        "unroll",
    ),
}

RUN = {
    "cost": (DtypeError, ("x", None, jnp.ones(2))),
    "v0": (
        DtypeError,
        (
            *(np.array([None]), np.array(["a"]), np.array(["2020-01-01"], "datetime64[D]"), np.zeros(2, [("a", "f4")])),
            *(np.ma.ones(2), np.ones(2, ">f4"), jnp.ones(2, jnp.float8_e4m3fn), jax.random.key(0), range(3)),
            jax.ShapeDtypeStruct((2,), jnp.float32),
        ),
    ),
    "rule": (DtypeError, (gradient_descent, None, "x", int)),
    "max_steps": (RangeError, (2**40, -1)),
    "stop": (
        DtypeError,
        ("x", 3, Stop(cost="x"), Stop(stalled=1), Stop(step_atol=np.ones(2)), Stop(cost=None, diverging=1j)),
    ),
    "record": (DtypeError, ("x", Record(function=lambda v: "x"))),
    "args": (DtypeError, ([1.0], None, (np.array(["a"]),), (object(),), (np.ma.ones(2),))),
    "callback": (DtypeError, (3, "x")),
    "chunk": (DtypeError, (0.5, "x")),
    "seconds": (RangeError, ("x", 0, np.nan, np.ones(2))),
    "progress": (DtypeError, (None, 1, np.array([True]))),
    "has_aux": (DtypeError, (None, 1, np.array([True]))),
    "differentiate": (RangeError, (None, np.array(["implicit", "unroll"]))),
}


@pytest.mark.bad_input
@pytest.mark.parametrize(("name", "i"), [(name, i) for name, (_, values) in RUN.items() for i in range(len(values))])
def test_arguments_of_wrong_types_or_out_of_range_are_refused(name, i):
    error, values = RUN[name]
    arguments = {"cost": valley, "v0": jnp.ones(2), "rule": gradient_descent(0.1), "max_steps": 2} | {name: values[i]}
    with pytest.raises(error, match=r"^minimize: .*" + name) as caught:
        minimize(**arguments)
    assert len(str(caught.value)) < 400


@pytest.mark.bad_input
@pytest.mark.parametrize("result", ["x", None, np.array([None]), np.ma.ones(()), 10**30], ids=repr)
def test_a_cost_that_returns_no_jax_scalar_is_refused(result):
    with pytest.raises(ShapeError, match="the cost must return one real scalar, got"):
        minimize(lambda v: result, jnp.ones(2), gradient_descent(0.1), max_steps=1)


@pytest.mark.bad_input
@pytest.mark.parametrize("value", [10**30, "x", np.ones(2), jax.random.key(0), np.ma.ones(()), None], ids=repr)
@pytest.mark.parametrize(
    "rule", [gradient_descent, fixed_length, lambda x: heavy_ball(x, 0.5), lambda x: nesterov(0.1, x)]
)
def test_hyperparameters_of_wrong_types_or_out_of_range_are_refused(rule, value):
    with pytest.raises((DtypeError, RangeError), match=r"must be one real number|must fit int32"):
        rule(value)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name):
    call, error, words = BAD[name]
    with pytest.raises(error, match=words) as caught:
        call()
    assert isinstance(caught.value, JaxgdError)
    assert re.match(r"\w+: ", str(caught.value))  # the message starts with the name of the function


def test_an_exception_of_the_cost_reaches_the_caller():
    def cost(v):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        minimize(cost, jnp.ones(2), gradient_descent(0.1), max_steps=1)
