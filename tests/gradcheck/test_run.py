"""Batches run under vmap, jit or eagerly; compiled programs are kept; the jaxpr shows dtypes and while loops."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import check_gradients
from jaxgd.gradcheck import run
from jaxgd.gradcheck.run import Runner, Traits, eps_of, traits

A = jnp.arange(1.0, 7.0).reshape(2, 3)
X = jnp.array([0.3, 1.2, 2.5])
BATCH = np.arange(1, 4, dtype=np.float32)


def square(x):
    return jnp.sum(x**2)


def with_rule(f, backward):
    """Return f with a custom reverse rule: backward(x, g) is the cotangent of x."""
    wrapped = jax.custom_vjp(lambda x: f(x))
    wrapped.defvjp(lambda x: (f(x), x), lambda x, g: (backward(x, g),))
    return wrapped


# Modes.


def scaled(shared, x):
    return {"y": shared * x}


def by_callback(shared, x):
    """A callback without a vmap rule."""
    return {"y": jax.pure_callback(lambda z: np.asarray(2 * z), jax.ShapeDtypeStruct((), x.dtype), x)}


def by_numpy(shared, x):
    if (x := np.asarray(x)) > 2:
        raise ValueError("above 2")
    return {"y": 2 * x}


@pytest.mark.parametrize(
    ("fn", "mode", "expected"),
    [(scaled, "vmap", [2, 4, 6]), (by_callback, "jit", [2, 4, 6]), (by_numpy, "eager", [2, 4, np.nan])],
)
def test_a_batch_runs_in_the_fastest_mode_that_works(fn, mode, expected):
    """In an eager run, the result of an element that raises is NaN."""
    runner = Runner()
    for _ in range(2):
        out = runner(fn, np.float32(2), BATCH)
        np.testing.assert_array_equal(out["y"], expected)
    assert runner.modes == {fn: mode}
    assert runner.runs == {fn: 6}
    assert 0 < runner.seconds[fn] < 60


def test_a_batch_is_padded_so_that_few_programs_cover_all_sizes():
    runner = Runner()
    for n in (9, 13, 16):
        out = runner(scaled, np.float32(2), np.arange(n, dtype=np.float32))
        np.testing.assert_array_equal(out["y"], 2 * np.arange(n))
    assert len(runner.programs) == 1
    assert runner.runs[scaled] == 3 * 16


def test_vmap_can_be_left_out():
    runner = Runner(without_vmap=True)
    np.testing.assert_array_equal(runner(scaled, np.float32(2), BATCH)["y"], 2 * BATCH)
    assert runner.modes == {scaled: "jit"}


def test_the_exception_of_the_first_element_passes_through_if_all_raise():
    with pytest.raises(ValueError, match="above 2"):
        Runner()(by_numpy, np.float32(2), BATCH + 5)


def test_large_shared_data_limit_the_elements_that_run_at_once(monkeypatch):
    """The limit is eight copies of the shared data, one per element."""
    monkeypatch.setattr(run, "_BYTES_AT_ONCE", 8 * A.nbytes)
    runner = Runner()
    out = runner(lambda shared, x: jnp.sum(shared) * x, A, np.arange(20, dtype=np.float32))
    np.testing.assert_array_equal(out, 21 * np.arange(20))
    ((batched, *_),) = runner.programs
    assert batched.size == 8


# Dtypes.


def cast(dtype):
    return lambda v: v[0].astype(dtype)


def counted(v):
    """Use bfloat16 in a computation that does not depend on v."""
    return v[0] * jnp.sum(jnp.ones(2, jnp.bfloat16) * 2).astype(v[0].dtype)


def in_scan(v):
    return jax.lax.scan(lambda c, _: (jnp.sin(c.astype(jnp.float16)).astype(c.dtype), None), v[0], length=2)[0]


def in_while(v):
    return jax.lax.while_loop(lambda c: c[1] > 1, lambda c: (c[0], c[1] / 2), (v[0], jnp.max(v[0])))[0]


def unrelated(v):
    """Iterate on a value that does not depend on v."""
    return v[0] * jax.lax.while_loop(lambda c: c < 3, lambda c: c + 1, 0)


# Each case: a function of v, the coarsest float or complex dtype in which it computes with v, and True if a while loop
# depends on v.
TRAITS = {
    "float64": (lambda v: jnp.sin(v[0]), "float64", False),
    "float32": (cast(jnp.float32), "float32", False),
    "bfloat16": (lambda v: cast(jnp.bfloat16)(v).astype(v[0].dtype), "bfloat16", False),
    "complex64": (cast(jnp.complex64), "complex64", False),
    "an int8 does not count": (lambda v: v[0] * jnp.argmax(v[0]).astype(jnp.int8), "float64", False),
    "float16 inside jit": (lambda v: jax.jit(cast(jnp.float16))(v), "float16", False),
    "float16 inside scan": (in_scan, "float16", False),
    "bfloat16 independent of v": (counted, "float64", False),
    "a while loop": (in_while, "float64", True),
    "a while loop inside jit": (lambda v: jax.jit(in_while)(v), "float64", True),
    "a while loop independent of v": (unrelated, "float64", False),
    "NumPy, which JAX cannot trace": (lambda v: np.float32(v[0]), "float64", False),
}


@pytest.mark.parametrize(("fn", "dtype", "iterates"), TRAITS.values(), ids=TRAITS)
def test_the_jaxpr_shows_the_traits_of_computations_with_the_arguments(x64, fn, dtype, iterates):
    assert traits(fn, [np.zeros(2)]) == Traits(eps_of(dtype), iterates, dtype == "float16")


# Kept programs.


def test_a_second_check_compiles_nothing():
    check_gradients(square, A)
    before = set(run._PROGRAMS)
    check_gradients(square, A + 1)
    assert set(run._PROGRAMS) == before


def test_the_least_recently_used_program_is_dropped(monkeypatch):
    monkeypatch.setattr(run, "_PROGRAMS", collections.OrderedDict())
    monkeypatch.setattr(run, "_MOST_PROGRAMS", 2)
    one = np.ones(2, np.float32)
    kept = []
    for fn in (jnp.add, jnp.subtract, jnp.add, jnp.multiply):
        run.single(fn, one, one)
        kept.append(list(run._PROGRAMS.values()))
    add, subtract = kept[1]
    assert kept[2] == [subtract, add]
    assert kept[3][0] is add
    assert len(kept[3]) == 2


def test_a_changed_captured_array_or_rule_changes_the_verdict():
    """The function objects stay the same, so a cached program would give the old verdict."""
    array = np.full((2, 3), 2.0)
    rule = with_rule(square, lambda x, g: g * 2 * x)

    def by_array(x):
        return jnp.asarray(array, x.dtype) * x

    checks = (
        lambda: check_gradients(square, A, gradient=by_array),
        lambda: check_gradients(rule, A),
    )
    assert [check().verdict for check in checks] == ["right"] * 2
    array[:] = 3.0
    rule.defvjp(lambda x: (square(x), x), lambda x, g: (g * 3 * x,))
    assert [check().verdict for check in checks] == ["wrong"] * 2


def test_another_constant_in_an_inner_jit_is_another_program():
    """The programs have the same text, so the text alone must not be the key."""

    def result(table):
        table = jnp.array(table)
        scaled = jax.jit(lambda x: table * x)
        return run.single(lambda _, x: scaled(x), 0.0, X).tolist()

    for table in ([2.0, 2.0, 2.0], [2.0, 2.0, 3.0], [2.0, 2.0, 2.0]):
        np.testing.assert_allclose(result(table), np.multiply(table, X))


def test_a_program_with_large_constants_is_not_kept(monkeypatch):
    monkeypatch.setattr(run, "_PROGRAMS", collections.OrderedDict())
    for n in (2**17, 2**19):
        table = jnp.ones(n)
        run.single(lambda _, x, table=table: jnp.sum(table) * x, 0.0, X)
    assert len(run._PROGRAMS) == 1


class Scaled:
    """A function whose text does not show its factor."""

    def __init__(self, factor):
        self.factor = factor

    def __repr__(self):
        return "Scaled()"

    def __call__(self, x):
        return np.asarray(self.factor * np.asarray(x))


def test_a_program_with_a_callback_is_not_kept():
    """Two callbacks may have the same text."""
    for factor in (2, 3):
        callback = Scaled(np.float32(factor))
        result = run.single(
            lambda _, x, f=callback: jax.pure_callback(f, jax.ShapeDtypeStruct(x.shape, x.dtype), x), 0.0, X
        )
        np.testing.assert_allclose(result, factor * X)


# Whole checks.


@pytest.mark.slow
def test_a_function_without_a_vmap_rule_is_checked():
    """A callback has no vmap rule, which makes the check slower but not weaker."""

    def f(x, y):
        return jnp.sum(jax.pure_callback(lambda z: np.sin(z), jax.ShapeDtypeStruct(x.shape, x.dtype), x + y))

    report = check_gradients(f, A, A, gradient=lambda x, y: (jnp.cos(x + y), jnp.sin(x + y)), argnums=(0, 1))
    assert (report.leaf("x").verdict, report.leaf("y").verdict) == ("right", "wrong")


@pytest.mark.slow
def test_a_function_that_raises_outside_its_domain_is_checked():
    """The function uses NumPy, so it runs eagerly and raises for steps that leave the domain."""

    def log(x, y):
        x, y = np.asarray(x), np.asarray(y)
        if (x <= 0).any() or y <= 0:
            raise ValueError("not above 0")
        return float(np.sum(np.log(x)) + np.log(y))

    def gradient(x, y):
        return 1 / np.asarray(x), 2 / np.asarray(y)

    x, y = np.array([1.0, 1e-3]), np.array(1e-3)
    report = check_gradients(log, x, y, gradient=gradient, argnums=(0, 1))
    assert (report.leaf("x").verdict, report.leaf("y").verdict) == ("right", "wrong")
    with pytest.raises(ValueError, match="not above 0"):
        check_gradients(log, -x, y, gradient=gradient, argnums=(0, 1))
