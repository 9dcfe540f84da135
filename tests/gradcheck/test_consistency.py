"""A function must return the same values in every run, and its gradient in the user's dtype is checked too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import check_gradients

A = jnp.arange(1.0, 7.0).reshape(2, 3)


def test_a_random_function_is_not_deterministic():
    rng = np.random.default_rng(0)
    report = check_gradients(lambda x: jnp.sum(x) * rng.uniform(), A)
    assert (report.verdict, report.cause) == ("cannot tell", "not deterministic")
    assert "fix the random key" in report.reason


def test_a_function_that_differs_under_jit_is_reported():
    def f(x):
        return jnp.sum(x**2) * (2 if isinstance(x, jax.core.Tracer) else 1)

    report = check_gradients(f, A)
    assert (report.verdict, report.cause) == ("cannot tell", "f depends on how it is run")
    assert "eager = jit" in str(report)


def doubled_under_vmap(x):
    f = jax.custom_batching.custom_vmap(lambda x: x**2)
    f.def_vmap(lambda axis_size, in_batched, x: (2 * x**2, True))
    return jnp.sum(f(x))


def test_a_function_that_differs_under_vmap_is_checked_without_vmap():
    """The report says that f differs under vmap. The claim is compared with the derivative without vmap."""
    report = check_gradients(doubled_under_vmap, A, gradient=lambda x: 2 * x)
    vmap = next(c for c in report.consistency if c.name == "jit = vmap")
    assert vmap.cause == "f depends on how it is run"
    assert report.verdict == "cannot tell"
    assert report.leaf("x").verdict == "right", str(report)
    assert check_gradients(doubled_under_vmap, A, gradient=lambda x: 4 * x).leaf("x").verdict == "wrong"


def test_all_consistency_checks_agree_on_a_pure_function():
    report = check_gradients(lambda x: jnp.sum(jnp.sin(x)), A)
    assert {c.name for c in report.consistency} == {
        "second run",
        "eager = jit",
        "jit = vmap",
        "f = its value under jax.vjp",
        "autodiff's second run",
        "autodiff's jit = vmap",
    }
    assert all(c.verdict == "right" and c.error < 1e-6 for c in report.consistency)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_rounding_in_the_users_dtype_is_reported_and_not_wrong(dtype):
    report = check_gradients(lambda x: jnp.sum(jnp.sin(x)), A.astype(dtype))
    assert report.verdict == "right"
    (line,) = report.precision
    assert f"gradient in {dtype} is within" in line


def test_random_numbers_that_depend_on_x64_are_not_compared():
    """Under x64 the same key draws other numbers, so f in float32 and f in float64 are different functions."""

    def f(x, key):
        return jnp.sum(x * jax.random.normal(key, x.shape))

    # XLA compiles its own random generator faster than JAX's default one.
    report = check_gradients(f, A, jax.random.key(0, impl="rbg"))
    assert report.verdict == "right"
    assert "random numbers of the default dtype?" in report.precision[0]


def test_a_gradient_that_overflows_only_in_float32_is_wrong():
    """At x = 1e20 the slope 3x² · 1e-40 is 3, but the rule computes x², which overflows in float32."""
    f = jax.custom_vjp(lambda x: jnp.sum(x * (x * 1e-20) * (x * 1e-20)))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * 3 * x * x * 1e-40,))
    report = check_gradients(f, jnp.array([1e20, 2e20]))
    assert report.verdict == "wrong"
    assert "float32 = float64" in report.reason


@pytest.mark.slow
def test_a_gradient_that_overflows_only_in_float32_is_right_in_float64(x64):
    f = jax.custom_vjp(lambda x: jnp.sum(x * (x * 1e-20) * (x * 1e-20)))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * 3 * x * x * 1e-40,))
    assert check_gradients(f, jnp.array([1e20, 2e20])).verdict == "right"


def test_a_rule_that_is_wrong_only_in_float32_is_undecided():
    def backward(x, g):
        return (g * jnp.cos(x) * (2 if x.dtype == jnp.float32 else 1),)

    f = jax.custom_vjp(lambda x: jnp.sum(jnp.sin(x)))
    f.defvjp(lambda x: (f(x), x), backward)
    report = check_gradients(f, A)
    assert (report.verdict, report.cause) == ("cannot tell", "far off only in the dtype of the arguments")
