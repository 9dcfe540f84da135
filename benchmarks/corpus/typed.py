"""JAX functions and classes with the types that a type checker does not get from JAX."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import ode
from jax.scipy.sparse.linalg import cg
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

inv: Callable[[Array], Array] = jnp.linalg.inv
solve: Callable[[Array, Array], Array] = jnp.linalg.solve
eigh: Callable[[Array], tuple[Array, Array]] = jnp.linalg.eigh
linear_solve: Callable[..., Array] = lax.custom_linear_solve
custom_root: Callable[..., Array] = lax.custom_root
associative_scan: Callable[..., tuple[Array, Array]] = lax.associative_scan
segment_sum: Callable[..., Array] = jax.ops.segment_sum
conjugate_gradients: Callable[..., tuple[Array, object]] = cg
odeint: Callable[..., Array] = ode.odeint
psum: Callable[[Array, str], Array] = lax.psum
Spec: Callable[..., PartitionSpec] = PartitionSpec
Struct: Callable[[tuple[int, ...], DTypeLike], jax.ShapeDtypeStruct] = jax.ShapeDtypeStruct
