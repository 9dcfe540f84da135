"""JAX's transformations with types that a type checker follows.

JAX declares the results of `jit`, `tree.map` and others as Any, so a checker ignores everything computed from them. At
run time these names are JAX's own functions.
"""

from typing import TYPE_CHECKING

import jax

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, ParamSpec, Protocol, TypeVar, overload

    from jax import Array
    from jax.stages import Lowered, Traced

    P = ParamSpec("P")
    R = TypeVar("R")
    R_co = TypeVar("R_co", covariant=True)
    T = TypeVar("T")
    Names = str | Sequence[str] | None
    Numbers = int | Sequence[int] | None

    class Jitted(Protocol[P, R_co]):
        """A function compiled by `jit`, with the arguments and the result of the original."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        def lower(self, *args: P.args, **kwargs: P.kwargs) -> Lowered: ...
        def trace(self, *args: P.args, **kwargs: P.kwargs) -> Traced: ...
        def clear_cache(self) -> None: ...
        def _cache_size(self) -> int: ...

    @overload
    def jit(
        fun: Callable[P, R],
        /,
        *,
        static_argnums: Numbers = ...,
        static_argnames: Names = ...,
        donate_argnums: Numbers = ...,
        donate_argnames: Names = ...,
        in_shardings: Any = ...,
        out_shardings: Any = ...,
        keep_unused: bool = ...,
        inline: bool = ...,
        compiler_options: dict[str, Any] | None = ...,
    ) -> Jitted[P, R]: ...
    @overload
    def jit(
        *,
        static_argnums: Numbers = ...,
        static_argnames: Names = ...,
        donate_argnums: Numbers = ...,
        donate_argnames: Names = ...,
        in_shardings: Any = ...,
        out_shardings: Any = ...,
        keep_unused: bool = ...,
        inline: bool = ...,
        compiler_options: dict[str, Any] | None = ...,
    ) -> Callable[[Callable[P, R]], Jitted[P, R]]: ...
    def jit(*args: Any, **kwargs: Any) -> Any: ...

    def vmap(fun: Callable[..., R], in_axes: object = 0, out_axes: object = 0) -> Callable[..., R]: ...

    def tree_map(f: Callable[..., object], tree: T, *rest: object) -> T:
        """Apply f to each leaf. The result has the structure of `tree`, so a checker takes its type too."""

    def tree_leaves(tree: object) -> list[Array]: ...

    def cond(
        pred: Array | bool, true_fun: Callable[P, R], false_fun: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

else:
    jit = jax.jit
    vmap = jax.vmap
    tree_map = jax.tree.map
    tree_leaves = jax.tree.leaves
    cond = jax.lax.cond
