"""Points where a function jumps or has an infinite slope."""

import jax.numpy as jnp

from .case import undecided
from .draws import fixed

JUMPS = (
    undecided("jump", jnp.floor, fixed([2.0, 0.4]), "jump"),
    undecided("sine plus a jump", lambda x: jnp.sin(x) + (x >= 0.5), fixed([0.5, 0.9]), "jump"),
    undecided("root at 0", lambda x: jnp.sqrt(jnp.abs(x)), fixed([0.0, 1.0]), "infinite slope"),
    undecided("cube root at 0", jnp.cbrt, fixed([0.0, 1.0]), "infinite slope"),
)
