"""`minimize` detects changes of the data that a cost reads from outside its arguments."""

import functools

import jax
import jax.numpy as jnp
import pytest
from support import often

from jaxgd import gradient_descent, minimize
from jaxgd.descent.driver import _advance
from jaxgd.seen import seen

target, half = jnp.asarray(1.0), 0.5


def shifted(v):
    return half * jnp.sum((v - target) ** 2)


def helped(v):
    return shifted(v) + 1.0


class Holder:
    def __init__(self):
        self.target, self.calls = jnp.asarray(1.0), 0

    def cost(self, v):
        self.calls += 1
        return jnp.sum((v - self.target) ** 2) / 2

    __call__ = cost


def set_global(value):
    global target
    target = value


def cell():
    value = jnp.asarray(1.0)

    def set_cell(new):
        nonlocal value
        value = new

    return lambda v: jnp.sum((v - value) ** 2) / 2, set_cell


class Slotted:
    """A callable object that does not support weak references."""

    __slots__ = "target"

    def __call__(self, v):
        return jnp.sum((v - self.target) ** 2) / 2


def slotted():
    cost = Slotted()
    cost.target = jnp.asarray(1.0)
    return cost, lambda value: setattr(cost, "target", value)


class Classy:
    target = jnp.asarray(1.0)

    def cost(self, v):
        return self.distance(v) / 2

    def distance(self, v):
        return jnp.sum((v - self.target) ** 2)


def applied(function, v):
    return function(v)


def mapped(v):
    return jnp.sum(jax.vmap(shifted)(v[:, None]))


def held(part):
    holder = Holder()
    return getattr(holder, part) if part else holder, lambda value: setattr(holder, "target", value)


OUTSIDE = {
    "global": lambda: (shifted, set_global),
    "global of a helper": lambda: (helped, set_global),
    "variable of an outer function": cell,
    "field of a method's object": lambda: held("cost"),
    "field of a callable object": lambda: held(""),
    "slot of a callable object": slotted,
    "member of a class": lambda: (Classy().cost, lambda value: setattr(Classy, "target", value)),
    "global of a vmapped function": lambda: (mapped, set_global),
    "global read by the argument of a partial": lambda: (functools.partial(applied, shifted), set_global),
}


@pytest.mark.parametrize("name", often(OUTSIDE, ["global of a helper"]))
def test_changed_data_are_read_again(name):
    """The cost is lowest at v = `value`, so the derivative of the minimum with respect to `value` is 1.

    A second run with the same array compiles nothing.
    """
    cost, change = OUTSIDE[name]()

    def minimum(value):
        change(value)
        return minimize(cost, jnp.zeros(2), gradient_descent(0.5), max_steps=100, record=None).v[0]

    try:
        for value in (1.0, 4.0):
            assert minimum(jnp.asarray(value)) == pytest.approx(value, rel=1e-5)
        assert jax.grad(minimum)(3.0) == pytest.approx(1.0, rel=1e-5)
        same = jnp.asarray(2.0)
        minimum(same)
        before = _advance._cache_size()
        minimum(same)
        assert _advance._cache_size() == before
    finally:
        set_global(jnp.asarray(1.0))


@pytest.mark.parametrize("name", ["__call__", "distance"])
def test_a_replaced_method_is_called(name):
    """The methods read no outside data, so `seen` must compare the methods themselves."""

    class Cost:
        def __call__(self, v):
            return self.distance(v)

        def distance(self, v):
            return jnp.sum((v - 1.0) ** 2)

    cost = Cost()
    before = seen(cost)
    setattr(Cost, name, lambda self, v: jnp.sum((v - 2.0) ** 2))
    assert seen(cost) != before
    assert minimize(cost, jnp.zeros(2), gradient_descent(0.5), max_steps=9, record=None).v.tolist() == [2, 2]
