"""JAX's functions with types that a type checker follows.

JAX declares the results of `jit`, `tree.map`, `grad` and others as Any, so a checker ignores everything computed from
them. At run time these names are JAX's own functions.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.custom_batching
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree as ravel_pytree_of_jax
from jax.typing import ArrayLike
from jaxtyping import Array, PyTree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Concatenate, Literal, ParamSpec, Protocol, TypedDict, Unpack, overload
    from typing import Generic as Generic

    import numpy as np
    from jax.stages import Lowered, Traced
    from jax.typing import DTypeLike
    from typing_extensions import TypeVar

    # A tree of arrays. A checker would treat jaxtyping's PyTree as Any, and check nothing.
    Tree = object
    # One real number, also as an array or a tracer.
    Real = Array | np.ndarray[Any, np.dtype[Any]] | np.floating[Any] | np.integer[Any] | float
    # Types of fields of a registered dataclass: an array, a number and a tree of variables. At run time they are Any,
    # because JAX also puts None, bool or object() into these fields.
    Field = Array
    RealField = Real
    VField = TypeVar("VField", default=Any)
    # A tree of variables. It defaults to Any, so `Solution` without a parameter means `Solution[Any]`.
    V = TypeVar("V", default=Any)

    P = ParamSpec("P")
    R = TypeVar("R")
    R_co = TypeVar("R_co", covariant=True)
    S = TypeVar("S")
    T = TypeVar("T")
    X = TypeVar("X")
    Names = str | Sequence[str] | None
    Numbers = int | Sequence[int] | None

    class Jitted(Protocol[P, R_co]):
        """A function compiled by `jit`, with the arguments and the result of the original."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        def lower(self, *args: object, **kwargs: object) -> Lowered: ...
        def trace(self, *args: object, **kwargs: object) -> Traced: ...
        def clear_cache(self) -> None: ...
        def _cache_size(self) -> int: ...

    class Batchable(Protocol[P, R_co]):
        """A function that can define its own rule for `vmap`."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        def def_vmap(self, rule: T) -> T: ...

    def custom_vmap(fun: Callable[P, R]) -> Batchable[P, R]: ...

    class JitOptions(TypedDict, total=False):
        """The options of `jit`."""

        static_argnums: Numbers
        static_argnames: Names
        donate_argnums: Numbers
        donate_argnames: Names
        in_shardings: object
        out_shardings: object
        keep_unused: bool
        inline: bool
        compiler_options: dict[str, Any] | None

    @overload
    def jit(fun: Callable[P, R], /, **options: Unpack[JitOptions]) -> Jitted[P, R]: ...
    @overload
    def jit(**options: Unpack[JitOptions]) -> Callable[[Callable[P, R]], Jitted[P, R]]: ...
    def jit(*args: object, **kwargs: object) -> object: ...

    def vmap(
        fun: Callable[P, R], in_axes: object = 0, out_axes: object = 0, *, axis_size: int | None = None
    ) -> Callable[P, R]: ...

    @overload
    def grad(fun: Callable[Concatenate[V, P], ArrayLike]) -> Callable[Concatenate[V, P], V]: ...
    @overload
    def grad(
        fun: Callable[Concatenate[V, P], tuple[ArrayLike, X]], *, has_aux: Literal[True]
    ) -> Callable[Concatenate[V, P], tuple[V, X]]: ...
    def grad(fun: Callable[..., object], *, has_aux: bool = False) -> Callable[..., object]:
        """Differentiate with respect to the first argument."""

    @overload
    def value_and_grad(fun: Callable[Concatenate[V, P], R]) -> Callable[Concatenate[V, P], tuple[R, V]]: ...
    @overload
    def value_and_grad(
        fun: Callable[Concatenate[V, P], tuple[R, X]], *, has_aux: Literal[True]
    ) -> Callable[Concatenate[V, P], tuple[tuple[R, X], V]]: ...
    def value_and_grad(fun: Callable[..., object], *, has_aux: bool = False) -> Callable[..., object]:
        """Differentiate with respect to the first argument."""

    @overload
    def jvp(fun: Callable[[T], R], primals: tuple[T], tangents: tuple[T]) -> tuple[R, R]: ...
    @overload
    def jvp(fun: Callable[[S, T], R], primals: tuple[S, T], tangents: tuple[S, T]) -> tuple[R, R]: ...
    def jvp(fun: Callable[..., object], primals: object, tangents: object) -> tuple[object, object]: ...

    @overload
    def vjp(fun: Callable[[T], R], x: T, /) -> tuple[R, Callable[[R], tuple[T]]]: ...
    @overload
    def vjp(fun: Callable[[S, T], R], x: S, y: T, /) -> tuple[R, Callable[[R], tuple[S, T]]]: ...
    def vjp(fun: Callable[..., object], *primals: object) -> tuple[object, Callable[..., Any]]: ...

    def checkpoint(fun: Callable[P, R]) -> Callable[P, R]: ...

    def eval_shape(fun: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the shapes and dtypes of the result of `fun`, as a tree of the same structure."""

    # For functions that return no array, use `jax.tree.map`.
    @overload
    def tree_map(f: Callable[[Array], Array], tree: T, /) -> T: ...
    @overload
    def tree_map(f: Callable[[Array, Array], Array], tree: T, a: object, /) -> T: ...
    @overload
    def tree_map(f: Callable[[Array, Array, Array], Array], tree: T, a: object, b: object, /) -> T: ...
    @overload
    def tree_map(
        f: Callable[[Array, Array, Array, Array], Array], tree: T, a: object, b: object, c: object, /
    ) -> T: ...
    def tree_map(f: Callable[..., Array], tree: object, *rest: object) -> object:
        """Apply f to each leaf, or to the corresponding leaves of several trees."""

    def tree_leaves(tree: object, is_leaf: Callable[[object], bool] | None = None) -> list[Array]: ...

    def ravel_pytree(tree: T) -> tuple[Array, Callable[[Array], T]]: ...

    def cond(
        pred: ArrayLike, true_fun: Callable[P, R], false_fun: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    def fori_loop(lower: ArrayLike, upper: ArrayLike, body_fun: Callable[[Array, T], T], init_val: T) -> T: ...

    def map_rows(f: Callable[[X], R], xs: X) -> R:
        """Apply f to one row after the other with `jax.lax.map`, and stack the results."""

    def block_until_ready(tree: T) -> T: ...

    def optimization_barrier(tree: T) -> T: ...

    class FloatInfo(Protocol):
        """The properties of a floating-point dtype. Its limits are numbers of that dtype."""

        eps: np.floating[Any]
        tiny: np.floating[Any]
        smallest_subnormal: np.floating[Any]
        max: np.floating[Any]
        min: np.floating[Any]
        bits: int
        nmant: int
        nexp: int
        minexp: int
        maxexp: int

    def finfo(dtype: DTypeLike) -> FloatInfo: ...

else:
    from typing import TypeVar

    class Generic:
        """A base that makes a NamedTuple generic for type checkers. At run time, it adds nothing."""

        def __class_getitem__(cls, _):
            """Accept any parameter."""
            return cls()

        def __mro_entries__(self, bases):
            """Add no base to the class."""
            return ()

    Tree = PyTree[Array]
    Real = ArrayLike
    RealField = Any
    Field = Any
    # V has no bound, because a leaf may also be a Python number or a tracer.
    V = TypeVar("V")
    VField = TypeVar("VField")
    custom_vmap = jax.custom_batching.custom_vmap
    jit = jax.jit
    vmap = jax.vmap
    grad = jax.grad
    value_and_grad = jax.value_and_grad
    jvp = jax.jvp
    vjp = jax.vjp
    checkpoint = jax.checkpoint
    eval_shape = jax.eval_shape
    tree_map = jax.tree.map
    tree_leaves = jax.tree.leaves
    ravel_pytree = ravel_pytree_of_jax
    cond = jax.lax.cond
    fori_loop = jax.lax.fori_loop
    map_rows = jax.lax.map
    block_until_ready = jax.block_until_ready
    optimization_barrier = jax.lax.optimization_barrier
    finfo = jnp.finfo
