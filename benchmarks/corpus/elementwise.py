"""Functions of jax.nn, jax.numpy, jax.lax and jax.scipy.special, most of them elementwise, at smooth points.

A row holds the name, the function, the draw and scales. The function is checked at the drawn point, and at the point
times each scale. The function is smooth there, with finite values and slopes. A few checks are hard: at x = 1e-6, a
step of the size of x changes cos x by only 1e-12.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import jax.scipy.special as special
from jax import lax, nn

from .draws import Draw, apart, away, fixed, fractions, normal, pieces, together, uniform, whole

Row = tuple[str, Callable[..., object], Draw, tuple[float, ...]]

TINY, HUGE = (1e-6,), (1e6,)
BOTH = TINY + HUGE

_positive, _signed, _unit = uniform(0.3, 3.0), away(), uniform(0.1, 0.9)
_inside = away(least=0.1, most=0.9)
_wide = normal((5,), scale=2.0)

ACTIVATIONS: tuple[Row, ...] = (
    ("nn.celu", nn.celu, _signed, BOTH),
    ("nn.elu", nn.elu, _signed, BOTH),
    ("nn.gelu tanh", nn.gelu, _wide, TINY),
    ("nn.gelu exact", partial(nn.gelu, approximate=False), _wide, BOTH),
    ("nn.glu", nn.glu, normal((2, 6)), BOTH),
    ("nn.hard_sigmoid", nn.hard_sigmoid, pieces((-5, -3.2), (-2.8, 2.8), (3.2, 5)), TINY),
    ("nn.hard_silu", nn.hard_silu, pieces((-5, -3.2), (-2.8, 2.8), (3.2, 5)), TINY),
    ("nn.hard_tanh", nn.hard_tanh, pieces((-3, -1.2), (-0.8, 0.8), (1.2, 3)), TINY),
    ("nn.identity", nn.identity, _wide, BOTH),
    ("nn.leaky_relu", nn.leaky_relu, _signed, BOTH),
    ("nn.log1mexp", nn.log1mexp, pieces((0.2, 0.6), (0.8, 3.0)), TINY),
    ("nn.log_sigmoid", nn.log_sigmoid, _wide, BOTH),
    ("nn.mish", nn.mish, _wide, BOTH),
    ("nn.relu", nn.relu, _signed, BOTH),
    ("nn.relu6", nn.relu6, pieces((-2, -0.2), (0.2, 5.8), (6.2, 9)), BOTH),
    ("nn.selu", nn.selu, _signed, BOTH),
    ("nn.sigmoid", nn.sigmoid, _wide, BOTH),
    ("nn.silu", nn.silu, _wide, BOTH),
    ("nn.soft_sign", nn.soft_sign, _signed, BOTH),
    ("nn.softplus", nn.softplus, _wide, BOTH),
    ("nn.sparse_plus", nn.sparse_plus, pieces((-3, -1.2), (-0.8, 0.8), (1.2, 3)), TINY),
    ("nn.sparse_sigmoid", nn.sparse_sigmoid, pieces((-3, -1.2), (-0.8, 0.8), (1.2, 3)), TINY),
    ("nn.squareplus", nn.squareplus, _wide, BOTH),
    ("nn.tanh", nn.tanh, _wide, BOTH),
)

ONE_ARGUMENT: tuple[Row, ...] = (
    ("abs", jnp.abs, _signed, BOTH),
    ("arccos", jnp.arccos, _inside, TINY),
    ("arccosh", jnp.arccosh, uniform(1.2, 4.0), HUGE),
    ("arcsin", jnp.arcsin, _inside, TINY),
    ("arcsinh", jnp.arcsinh, _wide, BOTH),
    ("arctan", jnp.arctan, _wide, BOTH),
    ("arctanh", jnp.arctanh, _inside, TINY),
    ("cbrt", jnp.cbrt, _signed, BOTH),
    ("clip", lambda x: jnp.clip(x, -1, 1), pieces((-3, -1.2), (-0.8, 0.8), (1.2, 3)), TINY),
    ("copysign", lambda x: jnp.copysign(x, jnp.flip(x)), _signed, BOTH),
    ("cos", jnp.cos, _wide, BOTH),
    ("cosh", jnp.cosh, _wide, TINY),
    ("degrees", jnp.degrees, _wide, BOTH),
    ("exp", jnp.exp, _wide, TINY),
    ("exp2", jnp.exp2, _wide, TINY),
    ("expm1", jnp.expm1, _wide, TINY),
    ("fabs", jnp.fabs, _signed, BOTH),
    ("frexp, mantissa", lambda x: jnp.frexp(x)[0], pieces((0.6, 0.9), (1.1, 1.9), (2.1, 3.9)), ()),
    ("i0", jnp.i0, _signed, TINY),
    ("ldexp", lambda x: jnp.ldexp(x, 3), _wide, BOTH),
    ("log", jnp.log, _positive, BOTH),
    ("log10", jnp.log10, _positive, BOTH),
    ("log1p", jnp.log1p, _positive, BOTH),
    ("log2", jnp.log2, _positive, BOTH),
    ("modf, fraction", lambda x: jnp.modf(x)[0], fractions(), TINY),
    ("nan_to_num", jnp.nan_to_num, _wide, BOTH),
    ("negative", jnp.negative, _wide, BOTH),
    ("polyval", lambda x: jnp.polyval(jnp.array([1.0, -2.0, 0.5, 3.0], x.dtype), x), _wide, BOTH),
    ("positive", jnp.positive, _wide, BOTH),
    ("power 3", lambda x: x**3, _signed, BOTH),
    ("power −2", lambda x: x**-2, _signed, BOTH),
    ("power 1.5", lambda x: x**1.5, _positive, BOTH),
    ("radians", jnp.radians, _wide, BOTH),
    ("reciprocal", jnp.reciprocal, _signed, BOTH),
    ("rsqrt", lax.rsqrt, _positive, BOTH),
    ("sin", jnp.sin, _wide, BOTH),
    ("sinc", jnp.sinc, _signed, BOTH),
    ("sinc, one element at 0", jnp.sinc, fixed([0.0, 0.3, -1.4, 2.2]), ()),
    ("sinh", jnp.sinh, _wide, TINY),
    ("sqrt", jnp.sqrt, _positive, BOTH),
    ("square", jnp.square, _signed, BOTH),
    ("tan", jnp.tan, uniform(-1.2, 1.2), TINY),
    ("tanh", jnp.tanh, _wide, BOTH),
    ("unwrap", jnp.unwrap, uniform(0.2, 0.8), ()),
)

# Functions with jumps. Between jumps, they have the slope 0 or 1. The points are away from the jumps.
STAIRS: tuple[Row, ...] = (
    ("ceil", jnp.ceil, fractions(), ()),
    ("floor", jnp.floor, fractions(), ()),
    ("floor_divide", jnp.floor_divide, together(fractions(), fixed([1.0, 1.0, 1.0, 1.0, 1.0])), ()),
    ("heaviside", lambda x: jnp.heaviside(x, 0.5), _signed, ()),
    ("rint", jnp.rint, fractions(), ()),
    ("sign", jnp.sign, _signed, ()),
    ("trunc", jnp.trunc, fractions(), ()),
    ("x + floor x", lambda x: x + jnp.floor(x), fractions(), ()),
)

TWO_ARGUMENTS: tuple[Row, ...] = (
    ("add", jnp.add, normal((5,), (5,)), BOTH),
    ("arctan2", jnp.arctan2, away((5,), (5,)), BOTH),
    ("divide", jnp.divide, away((5,), (5,)), BOTH),
    ("float_power", jnp.float_power, together(_positive, _signed), ()),
    ("fmax", jnp.fmax, apart(), BOTH),
    ("fmin", jnp.fmin, apart(), BOTH),
    ("fmod", lambda x: jnp.fmod(x, 1.0), fractions(), ()),
    ("hypot", jnp.hypot, away((5,), (5,)), BOTH),
    ("interp", lambda x, y: jnp.interp(x, jnp.arange(4.0, dtype=x.dtype), y), together(
        pieces((0.1, 0.9), (1.1, 1.9), (2.1, 2.9)), normal((4,))), ()),
    ("logaddexp", jnp.logaddexp, apart(), BOTH),
    ("logaddexp2", jnp.logaddexp2, apart(), BOTH),
    ("maximum", jnp.maximum, apart(), BOTH),
    ("minimum", jnp.minimum, apart(), BOTH),
    ("mod", lambda x: jnp.mod(x, 1.0), fractions(), ()),
    ("multiply", jnp.multiply, away((5,), (5,)), BOTH),
    ("power", jnp.power, together(_positive, _signed), ()),
    ("remainder, derivative in y too", jnp.remainder, together(uniform(2.1, 2.9), uniform(0.98, 1.02)), ()),
    ("subtract", jnp.subtract, normal((5,), (5,)), BOTH),
    ("where", lambda x: jnp.where(x > 0, jnp.sin(x), x**2), _signed, BOTH),
    ("piecewise", lambda x: jnp.piecewise(x, [x < -1, x > 1], [lambda x: -x, jnp.exp, jnp.cos]),
     pieces((-3, -1.2), (-0.8, 0.8), (1.2, 3)), ()),
    ("select", lambda x: jnp.select([x < -1, x < 1], [x**2, jnp.sin(x)], jnp.log(jnp.abs(x))),
     pieces((-3, -1.2), (-0.8, 0.8), (1.2, 3)), ()),
)  # fmt: skip

SPECIAL: tuple[Row, ...] = (
    ("bessel_jn", lambda x: special.bessel_jn(x, v=2), _positive, ()),
    ("beta", special.beta, uniform(0.3, 3.0, (5,), (5,)), ()),
    ("betainc", lambda x: special.betainc(jnp.full_like(x, 1.5), jnp.full_like(x, 2.5), x), _unit, ()),
    ("betaln", special.betaln, uniform(0.3, 3.0, (5,), (5,)), ()),
    ("boxcox", special.boxcox, together(_positive, _signed), ()),
    ("boxcox1p", special.boxcox1p, together(_positive, _signed), ()),
    ("dawsn", special.dawsn, _wide, TINY),
    ("digamma", special.digamma, _positive, BOTH),
    ("entr", special.entr, _positive, BOTH),
    ("erf", special.erf, _wide, BOTH),
    ("erfc", special.erfc, _wide, TINY),
    ("erfcx", special.erfcx, _wide, TINY),
    ("erfinv", special.erfinv, _inside, TINY),
    ("exp1", special.exp1, _positive, ()),
    ("expi", special.expi, _positive, TINY),
    ("expn", lambda x: special.expn(2, x), _positive, ()),
    ("factorial", special.factorial, _positive, ()),
    ("fresnel", special.fresnel, _positive, ()),
    ("gamma", special.gamma, _positive, TINY),
    ("gammainc", special.gammainc, uniform(0.3, 3.0, (5,), (5,)), ()),
    ("gammaincc", special.gammaincc, uniform(0.3, 3.0, (5,), (5,)), ()),
    ("gammaln", special.gammaln, _positive, BOTH),
    ("hyp1f1", special.hyp1f1, uniform(0.5, 2.0, (3,), (3,), (3,)), ()),
    ("i0e", special.i0e, _signed, BOTH),
    ("i1", special.i1, _signed, TINY),
    ("i1e", special.i1e, _signed, BOTH),
    ("kl_div", special.kl_div, uniform(0.3, 3.0, (5,), (5,)), BOTH),
    ("log_ndtr", special.log_ndtr, _wide, TINY),
    ("logit", special.logit, _unit, TINY),
    ("multigammaln", lambda x: special.multigammaln(x, 2), uniform(1.0, 4.0), HUGE),
    ("ndtr", special.ndtr, _wide, BOTH),
    ("ndtri", special.ndtri, _unit, TINY),
    ("owens_t", special.owens_t, away((5,), (5,)), ()),
    ("poch", special.poch, uniform(0.5, 2.0, (5,), (5,)), ()),
    ("polygamma", lambda n, x: special.polygamma(n, x), together(whole(1), _positive), TINY),
    ("rel_entr", special.rel_entr, uniform(0.3, 3.0, (5,), (5,)), BOTH),
    ("sici", special.sici, _positive, BOTH),
    ("spence", special.spence, _unit, ()),
    ("xlog1py", special.xlog1py, uniform(0.3, 3.0, (5,), (5,)), TINY),
    ("xlogy", special.xlogy, uniform(0.3, 3.0, (5,), (5,)), BOTH),
    ("zeta", special.zeta, together(uniform(1.5, 4.0), _positive), ()),
)

# Normalizations and log-sum-exps of jax.nn, which are not elementwise.
NORMALIZED: tuple[Row, ...] = (
    ("nn.log_softmax", nn.log_softmax, normal((2, 4)), TINY),
    ("nn.logmeanexp", nn.logmeanexp, normal((5,)), TINY),
    ("nn.logsumexp", lambda x: nn.logsumexp(x, axis=-1), normal((2, 4)), TINY),
    ("nn.logsumexp with b", lambda x, b: nn.logsumexp(x, b=b), together(normal(), uniform(0.5, 2.0)), ()),
    ("nn.logsumexp, elements far apart", nn.logsumexp, fixed([-40.0, 0.5, 3.0, 35.0, 36.0]), ()),
    ("nn.softmax", nn.softmax, normal((2, 4)), TINY),
    ("nn.softmax, masked", lambda x: nn.softmax(x, where=jnp.arange(x.shape[-1])[None] < 3), normal((2, 4)), ()),
    ("nn.standardize", nn.standardize, normal((2, 4)), HUGE),
)

ROWS = ACTIVATIONS + ONE_ARGUMENT + STAIRS + TWO_ARGUMENTS + SPECIAL + NORMALIZED
