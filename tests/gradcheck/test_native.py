"""One function however it is run, and what the user's own dtype adds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgd import check_gradients

A = jnp.arange(1.0, 7.0).reshape(2, 3)


def test_another_value_in_every_run():
    rng = np.random.default_rng(0)
    report = check_gradients(lambda x: jnp.sum(x) * rng.uniform(), A)
    assert (report.verdict, report.cause) == ("cannot tell", "not deterministic")
    assert "fix its random key" in report.reason


def test_another_value_under_jit():
    def f(x):
        return jnp.sum(x**2) * (2 if isinstance(x, jax.core.Tracer) else 1)

    report = check_gradients(f, A)
    assert (report.verdict, report.cause) == ("cannot tell", "f depends on how it is run")
    assert "eager = jit" in str(report)


def doubled_under_vmap(x):
    f = jax.custom_batching.custom_vmap(lambda x: x**2)
    f.def_vmap(lambda axis_size, in_batched, x: (2 * x**2, True))
    return jnp.sum(f(x))


def test_another_value_under_vmap_is_told_and_not_used():
    """The derivative is that of the function as it stands, found without vmap; that vmap differs is said."""
    report = check_gradients(doubled_under_vmap, A, gradient=lambda x: 2 * x)
    vmap = next(c for c in report.consistency if c.name == "jit = vmap")
    assert vmap.cause == "f depends on how it is run"
    assert report.verdict == "cannot tell"
    assert report.leaf("x").verdict == "right", str(report)
    assert check_gradients(doubled_under_vmap, A, gradient=lambda x: 4 * x).leaf("x").verdict == "wrong"


def test_all_ways_agree():
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


def test_a_function_that_cannot_be_vmapped():
    """A callback without a rule for vmap: slower, and no less sure."""

    def f(x, y):
        return jnp.sum(jax.pure_callback(lambda z: np.sin(z), jax.ShapeDtypeStruct(x.shape, x.dtype), x + y))

    report = check_gradients(f, A, A, gradient=lambda x, y: (jnp.cos(x + y), jnp.sin(x + y)), argnums=(0, 1))
    assert (report.leaf("x").verdict, report.leaf("y").verdict) == ("right", "wrong")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_rounding_is_reported_and_no_error_of_algebra(dtype):
    report = check_gradients(lambda x: jnp.sum(jnp.sin(x)), A.astype(dtype))
    assert report.verdict == "right"
    (line,) = report.precision
    assert f"gradient in {dtype} is within" in line


def test_random_numbers_that_depend_on_the_dtype():
    """Under x64 the same key draws others: another function, right in itself, and not to be compared."""

    def f(x, key):
        return jnp.sum(x * jax.random.normal(key, x.shape))

    # XLA compiles its own generator faster than the default one.
    report = check_gradients(f, A, jax.random.key(0, impl="rbg"))
    assert report.verdict == "right"
    assert "random numbers of the default dtype?" in report.precision[0]


def test_a_gradient_that_overflows_in_its_own_dtype():
    """d/dx x³/1e30 at 1e20 is 3e10; by way of x², which float32 cannot hold, it is infinite."""
    f = jax.custom_vjp(lambda x: jnp.sum(x * (x * 1e-20) * (x * 1e-20)))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * 3 * x * x * 1e-40,))
    report = check_gradients(f, jnp.array([1e20, 2e20]))
    assert report.verdict == "wrong"
    assert "float32 = float64" in report.reason
    with jax.enable_x64(True):
        assert check_gradients(f, jnp.array([1e20, 2e20])).verdict == "right"


def test_a_rule_that_is_wrong_in_float32_alone_is_doubted():
    def backward(x, g):
        return (g * jnp.cos(x) * (2 if x.dtype == jnp.float32 else 1),)

    f = jax.custom_vjp(lambda x: jnp.sum(jnp.sin(x)))
    f.defvjp(lambda x: (f(x), x), backward)
    report = check_gradients(f, A)
    assert (report.verdict, report.cause) == ("cannot tell", "far off only in the dtype of the arguments")


def test_the_users_settings_are_as_before():
    before = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision

    def breaks(x):
        if x.dtype == jnp.float64:
            raise KeyboardInterrupt
        return jnp.sum(x)

    with pytest.raises(KeyboardInterrupt):
        check_gradients(breaks, A)
    assert (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision) == before


def test_products_are_pinned_to_the_highest_precision():
    """What the checker runs sees no other precision than the highest; the device's default is for its own line."""
    seen = set()

    def f(x):
        seen.add(jax.config.jax_default_matmul_precision)
        return jnp.sum(x @ x.T)

    check_gradients(f, A, gradient=jax.jit(jax.grad(lambda x: jnp.sum(x @ x.T))))
    assert seen == {"highest"} if jax.default_backend() == "cpu" else "highest" in seen


def test_partials_methods_and_objects_are_functions_too():
    class Cost:
        scale = 2.0
        __hash__ = None

        def __call__(self, x):
            return self.scale * jnp.sum(x**2)

        def method(self, x):
            return self(x)

    for f in (Cost(), Cost().method, functools.partial(lambda k, x: k * jnp.sum(x**2), 2.0), jax.jit(Cost().method)):
        assert check_gradients(f, A, gradient=lambda x: 4 * x).verdict == "right"
