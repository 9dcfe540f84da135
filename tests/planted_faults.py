"""Plant faults in jaxgd/, one at a time, and check that the listed tests catch each fault.

`python tests/planted_faults.py` plants all faults. `python tests/planted_faults.py rules descent` plants the faults in
two rooms, which are modules or packages of jaxgd/. Each fault is undone before the next is planted. The checkout must
have no uncommitted changes in jaxgd/. The output has one line for each fault: the room, the seconds, the fault, and the
first test that failed. If a fault is missed, its line ends with the reason, and the exit status is 1.

Faults replace exact text, so a fault whose line has changed is reported as missed. Faults in C++ rebuild the library.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """A text in a file, the same text with a fault, and the tests that must catch the fault."""

    file: str
    right: str
    wrong: str
    tests: str


NETWORK, COST, BACKPROP, PYTREE = (
    "tests/test_network.py",
    "tests/test_cost.py",
    "tests/test_backpropagation.py",
    "tests/test_pytree.py",
)
FIRST, EVALUATING = "tests/rules/test_first_order.py tests/rules/test_evaluating.py", "tests/rules/test_evaluating.py"
PLOTS, SWEEP_PLOTS = "tests/report/test_plotting.py tests/report/test_history.py", "tests/report/test_sweep.py"
BEST, RECORDS = "tests/test_best.py", "tests/test_records.py"
PAGE, REPORT = "tests/report/test_run_page.py", "tests/cli/test_report.py"
BROWSER = "-m slow tests/report/test_run_page_in_browser.py"
SWEEPS = "tests/cli/test_sweep.py"
COMPILE, DRIVER = "tests/kernels/test_cuda_compile.py", "tests/kernels/test_cuda_driver.py"
CUDA, LAUNCH = "tests/kernels/test_cuda_backend.py", "-m slow tests/kernels/test_cuda_launch.py"
REGISTRY, EMULATION = "tests/kernels/test_registry.py", "tests/kernels/test_emulation.py"
CURVATURE, KERNELS = "tests/test_curvature.py", "tests/kernels/test_native.py tests/kernels/test_order.py"
STOP, LOOP = "tests/descent/test_stop.py", "tests/descent/test_loop.py"
MINIMIZE = " ".join(f"tests/descent/test_{name}.py" for name in ("minimize", "continuing", "arguments"))
RECORD, IMPLICIT = "tests/descent/test_record.py", "tests/descent/test_implicit.py"
STEPWISE, BATCHES = "tests/descent/test_stepwise.py", "tests/descent/test_batches.py"
CHECKS, CORE = "tests/gradcheck", "tests/gradcheck/test_core.py tests/gradcheck/test_quotients.py"
PICTURES = "tests/data/test_find_digits.py"
TRAINING, CHECKPOINT, TRAIN = "tests/test_training.py", "tests/test_checkpoint.py", "tests/cli/test_train.py"
ACTIVATIONS = "tests/test_activations.py"
ASSESSMENT, CONVENTIONS = "tests/test_assessment.py", "tests/data/test_conventions.py"
EVALUATE = "tests/cli/test_evaluate.py"
SWEEP, MESH = "tests/test_sweeps.py", "tests/mesh"
NETWORK_FILE, STATE_FILE = "tests/test_network_file.py", "tests/test_state_file.py"

FAULTS = (
    # The mathematics.
    Fault("activations.py", "_sigmoid(z) * _sigmoid(-z)", "_sigmoid(z) * (1 - _sigmoid(z))", ACTIVATIONS),
    Fault("activations.py", "return 4 * sigmoid_prime(2 * z)", "return 1 - tanh(z) ** 2", ACTIVATIONS),
    Fault("activations.py", "product = jnp.where(largest, 0, a *", "return (a *", ACTIVATIONS),
    Fault("network.py", '"activation": self.activation} | changes', "} | changes", ACTIVATIONS),
    Fault("cost.py", "return (1 - y) * sigmoid(z) - y * sigmoid(-z)", "return sigmoid(z) - y", COST),
    Fault("cost.py", "jnp.where(z > 0, (1 - y) * z, -y * z)", "jnp.where(z > 0, z, -y * z)", COST),
    Fault("cost.py", "jnp.where(largest, others, 1 - a)", "(1 - a)", COST),
    Fault("network.py", "jnp.sqrt(jnp.asarray(n_in, dtype))", "jnp.sqrt(jnp.asarray(n_out, dtype))", NETWORK),
    Fault("network.py", "jax.random.normal(b_key, (n_out,)", "jax.random.normal(w_key, (n_out,)", NETWORK),
    Fault("network.py", "z = jnp.matmul(a, layer.w.T, precision=precision)", "z = jnp.matmul(a, layer.w.T)", NETWORK),
    Fault("cost.py", "0.5 * jnp.mean(jnp.sum(", "0.5 * jnp.mean(jnp.mean(", COST),
    Fault("cost.py", " & ~jnp.any(jnp.isnan(a), axis=-1)", "", COST),
    Fault("cost.py", "return jnp.where(jnp.all(right), jnp.ones_like(fraction), fraction)", "return fraction", COST),
    Fault("cost.py", "labels = jnp.argmax(y, axis=-1)", "labels = jnp.argmin(y, axis=-1)", COST),
    Fault(
        "backpropagation.py",
        "(activations[-1] - y) / len(x))",
        "(activations[-1] - y) / len(x) * 1.0005)",
        BACKPROP,
    ),
    Fault("backpropagation.py", "jnp.sum(delta, axis=0)", "jnp.mean(delta, axis=0)", BACKPROP),
    Fault("backpropagation.py", "form.error(z, y) / len(x)", "(activations[-1] - y) / len(x)", BACKPROP),
    Fault(
        "pytree.py",
        "scale * jnp.sqrt(_sum([(x / scale) ** 2 for x in leaves]))",
        "jnp.sqrt(_sum([x**2 for x in leaves]))",
        PYTREE,
    ),
    Fault("pytree.py", "jnp.asarray(a * x + y, jnp.result_type(y))", "a * x + y", PYTREE),
    Fault("pytree.py", "jnp.promote_types(jnp.result_type(x), np.float32))", "jnp.result_type(x))", PYTREE),
    Fault("pytree.py", "jnp.all(jnp.isfinite(x)) for x", "jnp.all(~jnp.isnan(x)) for x", PYTREE),
    # Outcomes, errors, files, named costs and tracebacks.
    Fault("outcome.py", "(Reason.COMPLETED,", "(Reason.COMPLETED, Reason.STALLED,", "tests/test_outcome.py"),
    Fault(
        "errors.py",
        "0 < float(x) < math.inf",
        "0 <= float(x) < math.inf",
        "tests/test_errors.py",
    ),
    Fault("errors.py", "if value is None or isinstance(x, bool):", "if value is None:", "tests/test_errors.py"),
    Fault(
        "files.py",
        "os.replace(temporary, path)",
        "path.write_bytes(content)",
        "tests/test_checkpoint.py tests/data jaxgd/files.py",
    ),
    Fault("named_costs.py", "2.25, 2.625], v.dtype", "2.25, 2.5], v.dtype", "tests/test_named_costs.py"),
    Fault(
        "tracebacks.py",
        "if not link.tb_frame.f_code.co_filename.startswith((_HOME, _IMPORTING)):",
        "if True:",
        "tests/test_tracebacks.py",
    ),
    # Rules.
    Fault("rules/first_order.py", "jnp.asarray(x - eta * g, jnp.result_type(x))", "x - eta * g", FIRST),
    Fault(
        "rules/first_order.py",
        "jnp.asarray(mu * m - eta * g, g.dtype)",
        "jnp.asarray(mu * m - (1 - mu) * eta * g, g.dtype)",
        FIRST,
    ),
    Fault("rules/rule.py", "(x >= 0) & (x < 1) if h.fraction", "(x >= 0) if h.fraction", EVALUATING),
    Fault("rules/rule.py", "_require_fraction if h.fraction else require_positive", "require_positive", MINIMIZE),
    Fault("rules/first_order.py", "_momentum(eta, mu, ahead=True)", "_momentum(eta, mu)", FIRST),
    Fault("rules/first_order.py", "-epsilon * (g / safe)", "-(epsilon / safe) * g", FIRST),
    Fault("rules/first_order.py", "ScheduleState(state.updates + 1)", "ScheduleState(state.updates)", FIRST),
    Fault("rules/evaluating.py", "jnp.where(change > 0, 1 / change, 4)", "jnp.where(change > 0, 1, 4)", EVALUATING),
    Fault("rules/evaluating.py", "costs = jnp.roll(state.costs, 1)", "costs = jnp.roll(state.costs, 0)", EVALUATING),
    Fault("rules/lbfgs.py", "(new.change <= -_DECREASE * expected)", "(new.change <= expected)", EVALUATING),
    Fault("rules/lbfgs.py", "_DECREASE, _SLOPE = 1e-4, 0.9", "_DECREASE, _SLOPE = 1e-4, 9.0", EVALUATING),
    Fault("rules/lbfgs.py", "s.at[row].set(jnp.where(curved, x, xs[row]))", "s", EVALUATING),
    Fault("rules/evaluating.py", "_ARMIJO = 1e-4", "_ARMIJO = -1.0", EVALUATING),
    Fault("rules/evaluating.py", "most = min(max_products, 2 * size(v))", "most = 2 * size(v)", EVALUATING),
    Fault(
        "rules/evaluating.py",
        "jnp.where(flat, 1, jnp.abs(curvature))",
        "jnp.where(flat, 1, curvature)",
        EVALUATING,
    ),
    Fault(
        "rules/evaluating.py", "k3 = gradient(axpy(-dt / 2, k2, v))", "k3 = gradient(axpy(-dt / 2, g, v))", EVALUATING
    ),
    Fault(
        "rules/evaluating.py",
        "return steps, FlowState(jnp.array(3))",
        "return steps, FlowState(jnp.array(4))",
        EVALUATING,
    ),
    # Curvature and slices.
    Fault("curvature.py", "for _ in range(2):\n            x = x", "for _ in range(1):\n            x = x", CURVATURE),
    Fault("curvature.py", "jnp.all(residuals[:k] <= tolerance) &", "jnp.all(residuals[:k] >= 0) &", CURVATURE),
    Fault("curvature.py", "jnp.where(smallest, x, x[..., ::-1])", "x", CURVATURE),
    Fault("curvature.py", "jnp.where(lost, outside(q, jnp.roll(spare, j)), x)", "x", CURVATURE),
    Fault("curvature.py", "checked = m < n", "checked = k > 1 and m < n", CURVATURE),
    Fault("curvature.py", "first = jnp.where(again, k, kept)", "first = jnp.array(kept)", CURVATURE),
    Fault("curvature.py", "jnp.roll(spare, m + s.copies)", "jnp.roll(spare, m)", CURVATURE),
    Fault("curvature.py", "largest <= rounding / 4, rounding,", "largest <= 0, rounding,", CURVATURE),
    Fault("curvature.py", "limit = jnp.maximum(tolerance, rounding)", "limit = tolerance", CURVATURE),
    Fault("slices.py", "w = axpy(-dot(u, w), u, w)\n    left", "left", CURVATURE),
    Fault(
        "slices.py", "return dot(off, self.u), dot(off, self.w)", "return dot(off, self.w), dot(off, self.u)", CURVATURE
    ),
    # Descent.
    Fault(
        "descent/stop.py",
        "_tolerance(stop.gradient_atol, stop.gradient_rtol, first_norm)",
        "_tolerance(stop.gradient_atol, stop.gradient_rtol, 1)",
        STOP,
    ),
    Fault("descent/stop.py", "v_norm = norm(s.v) if stop.step_rtol is not None else 0", "v_norm = 0", STOP),
    Fault(
        "descent/stop.py",
        "plain = (gradient > known.tiny**0.5 * 1e6) & (first_norm < known.max**0.5 * 1e-6)",
        "pass",
        STOP,
    ),
    Fault(
        "descent/stop.py",
        "return jnp.where(finite | (code == int(Reason.RUNNING)), code, int(Reason.NOT_FINITE))",
        "return code",
        STOP,
    ),
    Fault("descent/stop.py", "bound = stop.diverging * scale", "bound = stop.diverging * scale**2", STOP),
    Fault(
        "descent/batching.py",
        "lambda x, y: jnp.where(alive, x, y), new, old)",
        "lambda x, y: x, new, old)",
        f"{MINIMIZE} {STOP}",
    ),
    Fault(
        "descent/batching.py",
        "any_element(jnp.any(x, axis=0)) if",
        "any_element(jnp.all(x, axis=0)) if",
        f"{MINIMIZE} {STOP}",
    ),
    Fault("descent/batching.py", "count + jnp.where(alive, 1, 0)", "count + 1", f"{MINIMIZE} {STOP}"),
    Fault("descent/record.py", "kept = xs[:-1:2]", "kept = xs[1::2]", RECORD),
    Fault("descent/record.py", "step = jax.device_put(int(begin) + ", "step = jax.device_put(0 + ", MINIMIZE),
    Fault(
        "descent/record.py",
        "rose = (self.sharpness > self.stability)",
        "rose = (self.sharpness < self.stability)",
        RECORD,
    ),
    Fault("descent/implicit.py", "tree_map(jnp.negative, force)", "force", IMPLICIT),
    Fault("descent/implicit.py", ", 1, jnp.nan)", ", 1, 1)", IMPLICIT),
    Fault("descent/confirm.py", "(way.distance <= limits[0]) | (way", "(way.distance <= jnp.inf) | (way", STOP),
    Fault("descent/confirm.py", "bent = ~((quotient", "bent = ((quotient < 0) & (quotient", LOOP),
    Fault("seen.py", "and all(map(_same, self.data, other.data))", "", "tests/test_seen.py"),
    Fault("descent/update.py", "select(same, s, changed)", "s", MINIMIZE),
    Fault("descent/loop.py", "    s = with_scale(carry.state)", "    s = carry.state", STEPWISE),
    Fault(
        "descent/loop.py",
        "code, s = _confirmed(config, stop, c._replace(code=jnp.where(running, code, c.code), state=s), running, args)",
        "pass",
        STOP,
    ),
    Fault(
        "descent/loop.py",
        "where(code == int(Reason.GRADIENT), _UNCHECKED, code)",
        "where(False, _UNCHECKED, code)",
        LOOP,
    ),
    Fault("descent/batching.py", "(filled, ~even)", "(filled, even & False)", STOP),
    Fault("rules/lbfgs.py", "jnp.where(stuck, 0, _TRIALS)", "_TRIALS", EVALUATING),
    Fault("descent/stepwise.py", "s._replace(best_cost=s.cost)", "s", STEPWISE),
    Fault("descent/update.py", "jnp.array(1, int)", "jnp.array(1)", STEPWISE),
    Fault("descent/host.py", "start_of_chunk - (began or 0) >= (watch.seconds or 0)", "False", MINIMIZE),
    Fault("descent/host.py", "                kept = carry.state", "                kept = None", MINIMIZE),
    Fault("progress.py", "bar.update(done - bar.n)", "bar.update(done)", MINIMIZE),
    Fault("descent/record.py", "if len(x.devices()) > 1", "if x.size", MINIMIZE),
    Fault("descent/record.py", "jax.device_put(table[:rows, i])", "jnp.asarray(table[:rows, i])", MINIMIZE),
    Fault("descent/driver.py", "s, _ = control.scan(checkpoint(step), s, None, length=rest)", "pass", IMPLICIT),
    Fault(
        "descent/driver.py", "return reached if over else _with_aux(config, args, reached)", "return reached", MINIMIZE
    ),
    Fault(
        "descent/driver.py",
        "config.cost, solution.v, args, ",
        "config.cost, lax.stop_gradient(solution.v), args, ",
        MINIMIZE,
    ),
    Fault("descent/driver.py", "cost.aux(v, *args_at(args, k))", "cost.aux(v, *args_at(args, 0))", BATCHES),
    Fault("descent/driver.py", "solution = _without_derivatives(inputs, solution)", "pass", BATCHES),
    Fault("descent/loop.py", "k = updates_made(c.first + c.i, s.step)", "k = c.i", BATCHES),
    Fault("descent/loop.py", "args_at(args, state.step)", "args_at(args, 0)", f"-m slow {BATCHES}"),
    Fault("descent/loop.py", "args_at(args, k + 1)", "args_at(args, k)", f"-m slow {BATCHES}"),
    Fault("descent/batching.py", "return own, in_batched[1]", "return count, in_batched[0]", BATCHES),
    Fault("descent/update.py", "args = args_at(args, k + 1)", "args = args_at(args, k)", BATCHES),
    Fault("descent/update.py", "rule, s, args_at(args, k), bounds)", "rule, s, args_at(args, k + 1), bounds)", BATCHES),
    Fault("descent/update.py", "args = args_at(args, s.step)", "args = args_at(args, 0)", BATCHES),
    Fault("descent/problem.py", "bool(searched) or any(", "bool(searched) and any(", BATCHES),
    Fault("descent/problem.py", '["stalled"] * bool(stop.stalled)', "[]", BATCHES),
    Fault("descent/problem.py", "if is_pair(out) != has_aux:", "if False:", MINIMIZE),
    Fault(
        "report/landscape.py",
        "return out[0] if isinstance(out, tuple | list) and len(out) == 2 else out",
        "return out",
        PLOTS,
    ),
    Fault("descent/update.py", "if x.dtype.itemsize < 4:", "if False:", f"{LOOP} {RECORD} {STOP}"),
    Fault("descent/update.py", "better = c < s.best_cost", "better = jnp.array(True)", f"{LOOP} {RECORD} {STOP}"),
    Fault("descent/update.py", "eps * jnp.abs(x)))", "eps))", f"{LOOP} {RECORD} {STOP}"),
    # The gradient checker.
    Fault("gradcheck/constants.py", "SAFETY = 10.0", "SAFETY = 3000.0", CORE),
    Fault("gradcheck/constants.py", "SAFETY = 10.0", "SAFETY = 0.1", CORE),
    Fault("gradcheck/constants.py", "NOISES = 30.0", "NOISES = 3000.0", CORE),
    Fault(
        "gradcheck/constants.py",
        "RESOLUTION = 1e-3",
        "RESOLUTION = 1.0",
        CORE,
    ),
    Fault("gradcheck/constants.py", "SMALL_GAP = 1e-6", "SMALL_GAP = 1e-4", CORE),
    Fault("gradcheck/constants.py", "STEEPEST = 0.95", "STEEPEST = 0.8", CORE),
    Fault("gradcheck/constants.py", "JUMP = 0.02", "JUMP = 0.0", CORE),
    Fault("gradcheck/quotients.py", "noise = powers[-1] < -JUMP and", "noise = False and", CORE),
    Fault("gradcheck/constants.py", "SMOOTH = 0.01", "SMOOTH = 0.0", CORE),
    Fault("gradcheck/constants.py", "STEADY = 0.3", "STEADY = 0.0", CORE),
    Fault(
        "gradcheck/quotients.py",
        "np.cumsum(~finite[:, ::-1], axis=1)[:, ::-1] == 0",
        "finite",
        CORE,
    ),
    Fault("gradcheck/quotients.py", "(lines.size + 4 * usual)", "lines.size", CORE),
    Fault(
        "gradcheck/quotients.py",
        "np.nanmax(np.where(near, off * h, 0), axis=2)",
        "0 * off[:, :, 0]",
        CORE,
    ),
    Fault("gradcheck/quotients.py", " & (smaller.any(axis=1) | (len(h) <= ORDERS))", "", CORE),
    Fault(
        "gradcheck/quotients.py",
        "column, growth = entry, growth * RATIO**2",
        "column, growth = entry, growth * RATIO",
        CORE,
    ),
    Fault("gradcheck/quotients.py", "np.where(coarse, least, 0.0)", "0 * lines.size", CORE),
    Fault("gradcheck/core.py", "if not difference <= tolerance:", "if difference > tolerance:", CORE),
    Fault("gradcheck/core.py", "error <= NEGLIGIBLE * slopes.variation[i]", "True", CORE),
    Fault("gradcheck/core.py", "& (gap >= difference)", "& (gap >= 0)", CORE),
    Fault("gradcheck/core.py", "entries & (errors <= RIVAL * difference)", "False & entries", CORE),
    Fault("gradcheck/quotients.py", "varies = table.noise > MANY * rounding", "varies = rounding < 0", CORE),
    Fault("gradcheck/core.py", "if not unknown or len(right) >= 2:", "if not unknown or right:", CORE),
    Fault("gradcheck/core.py", " or wrong[0].cause is Cause.GRADIENT_NOT_FINITE", "", CORE),
    Fault("gradcheck/core.py", "return bool(np.all(np.abs(claim", "return bool(np.any(np.abs(claim", CORE),
    Fault("gradcheck/quotients.py", "(remainder > CLEAR * level)", "(remainder > 0)", CORE),
    Fault("gradcheck/run.py", "padding = -n % size", "padding = 0", f"{CHECKS}/test_run.py"),
    Fault("gradcheck/run.py", "on_host(c).tobytes())", 'b"")', f"{CHECKS}/test_run.py"),
    Fault(
        "gradcheck/run.py",
        "if any(isinstance(x, Var) and x in tainted for x in eqn.invars):",
        "if True:",
        f"{CHECKS}/test_run.py",
    ),
    Fault(
        "gradcheck/problem.py",
        'stack.enter_context(jax.numpy_dtype_promotion("standard"))',
        "pass",
        f"{CHECKS}/test_problem.py",
    ),
    Fault("gradcheck/problem.py", "_CALLBACKS.addFilter(_nothing)", "pass", f"{CHECKS}/test_problem.py"),
    Fault(
        "gradcheck/problem.py",
        "outputs = tuple(i for i in floats if np.size(leaves[i]))",
        "outputs = tuple(floats)",
        f"{CHECKS}/test_problem.py",
    ),
    Fault("gradcheck/programs.py", "(point.start <= place) & ", "", f"{CHECKS}/test_programs.py"),
    Fault("gradcheck/claims.py", "elif np.shape(value) != leaf.shape:", "elif False:", f"{CHECKS}/test_claims.py"),
    Fault("gradcheck/derive.py", "_FAR = (2.0**20, -(2.0**-20))", "_FAR = (1.0, 1.0)", f"{CHECKS}/test_derive.py"),
    Fault("gradcheck/derive.py", "-(2.0**-20))", "2.0**-20)", f"{CHECKS}/test_derive.py"),
    Fault("gradcheck/draws.py", "np.abs(moved - y)", "0 * np.abs(y)", f"{CHECKS}/test_draws.py"),
    Fault(
        "gradcheck/derive.py",
        "4 * min(own, constants.EPS32), self.nondeterminism)",
        "4 * min(own, constants.EPS32))",
        f"{CHECKS}/test_derive.py",
    ),
    Fault(
        "gradcheck/derive.py",
        "if traits_of.iterates and 0 < off <= _APPROXIMATE * size:",
        "if False:",
        f"{CHECKS}/test_derive.py",
    ),
    Fault(
        "gradcheck/sample.py",
        "cotangent = np.where(direction < last, direction % n, 0)",
        "cotangent = 0 * direction",
        f"{CHECKS}/test_sample.py",
    ),
    Fault(
        "gradcheck/examine.py",
        "if (Verdict.WRONG in verdicts or check.cause is Cause.KINK) and",
        "if False and",
        f"{CHECKS}/test_examine.py",
    ),
    Fault(
        "gradcheck/examine.py",
        "self.d.reverse is self.d.claims[-1] and check is not None and check.verdict is Verdict.WRONG",
        "False",
        f"{CHECKS}/test_examine.py",
    ),
    Fault("gradcheck/examine.py", "np.sum(search.allowed * unit) < difference", "False", f"{CHECKS}/test_examine.py"),
    Fault("gradcheck/run.py", 'if "callback" in eqn.primitive.name:', "if False:", f"{CHECKS}/test_run.py"),
    Fault(
        "gradcheck/examine.py",
        "max(floor, self.d.nondeterminism), self.rtol)",
        "max(floor, self.d.nondeterminism), None)",
        f"{CHECKS}/test_derive.py",
    ),
    Fault(
        "gradcheck/check.py",
        "problem = _meant(prepared, reference, first)",
        "problem = prepared.problem",
        f"{CHECKS}/test_examine.py",
    ),
    Fault("gradcheck/clock.py", "time.perf_counter() > self.end))", "False))", f"{CHECKS}/test_check.py"),
    Fault(
        "gradcheck/consistency.py",
        "agrees = bool(np.all(distance <= limit))",
        "agrees = True",
        f"{CHECKS}/test_consistency.py",
    ),
    Fault("gradcheck/patterns.py", "abs(ratio + 1) < 1e-4", "abs(ratio - 1) < 1e-4", f"{CHECKS}/test_locate.py"),
    Fault(
        "gradcheck/locate.py",
        "    return np.asarray(suspects)\n",
        "    return np.zeros_like(suspects)\n",
        f"{CHECKS}/test_locate.py",
    ),
    Fault("gradcheck/patterns.py", "fits(array.reshape(shape[::-1]).T)", "fits(array)", f"{CHECKS}/test_locate.py"),
    Fault("gradcheck/patterns.py", "if i != j and name == other and", "if i != j and", f"{CHECKS}/test_locate.py"),
    Fault(
        "gradcheck/second_order.py",
        "return bilinear(u, hv), bilinear(v, hu),",
        "return bilinear(u, hv), bilinear(u, hv),",
        f"{CHECKS}/test_second_order.py",
    ),
    Fault(
        "gradcheck/report.py",
        "(strict and self.verdict is not Verdict.RIGHT)",
        "(strict and False)",
        f"{CHECKS}/test_report.py",
    ),
    Fault("gradcheck/text.py", 'check.note and leaf.verdict == "right"', "check.note", f"{CHECKS}/test_report.py"),
    # Data.
    Fault("data/idx.py", "if size > payload:", "if False:", "tests/data/test_idx.py"),
    Fault("data/idx.py", "if not member.eof and len(data) < most:", "if False:", "tests/data/test_idx.py"),
    Fault(
        "data/digits.py",
        "_TRAIN, _VALIDATION = 1197, 300",
        "_TRAIN, _VALIDATION = 1200, 297",
        "tests/data/test_digits.py",
    ),
    Fault("data/folder.py", "last = max(1, n // 6)", "last = max(1, n // 5)", "tests/data/test_load_idx.py"),
    Fault("data/fetch.py", "shutil.rmtree(leftover, ignore_errors=True)", "pass", "tests/data/test_fetch.py"),
    Fault(
        "data/image/paper.py",
        "for row in gray) @ deviation**3 < 0",
        "for row in gray) @ deviation < 0",
        "tests/data/test_image.py",
    ),
    Fault(
        "data/image/frame.py",
        "skipped = (lines == 0) & (before <= SPECK * before[:, -1:])",
        "skipped = (lines == 0) & (before <= 0)",
        "tests/data/test_image.py",
    ),
    Fault(
        "data/image/frame.py",
        "overlap = np.minimum(pixel + 1, middle + half)",
        "overlap = np.minimum(pixel, middle + half)",
        "tests/data/test_image.py",
    ),
    Fault("data/image/paper.py", "if guess.even:", "if True:", PICTURES),
    Fault("data/image/paper.py", 'np.pad(values, half, mode="edge")', 'np.pad(values, half, mode="reflect")', PICTURES),
    Fault("data/image/channels.py", "<= _ONE_BRIGHTNESS", "< 0", PICTURES),
    Fault("data/image/channels.py", "int(values.max()).bit_length()", "16", PICTURES),
    Fault("data/image/digits.py", "if _is_frame(labels, group)]", "if False]", PICTURES),
    Fault("data/image/digits.py", "np.where(mine, ink[part], np.uint8(0))", "ink[part]", PICTURES),
    # Training and kernels.
    Fault("examples.py", "x.astype(dtype) / 255 if", "x.astype(dtype) / 256 if", TRAINING),
    Fault("examples.py", "if least < 0 or most >= sizes[-1]:", "if least < 0 or most > sizes[-1]:", TRAINING),
    Fault("examples.py", 'if name == "inputs" and least >= 0 and most >= _UNSCALED:', "if False:", TRAINING),
    Fault(
        "examples.py",
        "return examples._replace(y=labels), jnp.all(labels == examples.y)",
        "return examples, True",
        TRAINING,
    ),
    Fault("epoch.py", "data_cost = result.cost", "data_cost = state.cost", TRAINING),
    Fault("epoch.py", "result = penalized(result, network, decay)", "pass", TRAINING),
    Fault("kernels/evaluation.py", "return 0.5 * decay", "return decay", TRAINING),
    Fault("rates.py", "each * done + np.arange", "np.arange", TRAINING),
    Fault("kernels/xla.py", "eta[-1] if eta.ndim", "eta[0] if eta.ndim", TRAINING),
    Fault("network_file.py", ", each[i]) for i in layers", ") for i in layers", NETWORK_FILE),
    Fault("epoch.py", '(values["step_norm"] == 0) & wrong', 'values["step_norm"] < 0', TRAINING),
    Fault("epoch.py", "saturated & wrong & (state.epoch > 0)", "saturated & wrong & (before is not None)", TRAIN),
    Fault("cli/train.py", "if result.outcome.ok and unchanged", "if False", TRAIN),
    Fault("run_folder.py", ".exists() and not folder.exists()", ".exists() and False", TRAIN),
    Fault("epoch.py", "~(jnp.abs(data_cost) <= near_0(", "~(jnp.abs(data_cost) < 0 * near_0(", TRAINING),
    Fault(
        "kernels/evaluation.py",
        "lambda: within(a), lambda: jnp.array(False)",
        "lambda: jnp.array(True), lambda: jnp.array(False)",
        TRAINING,
    ),
    Fault("descent/loop.py", "first = (state.step == 0) & (code", "first = (state.step < 0) & (code", MINIMIZE),
    Fault("errors.py", "_NOT_PLAIN = (np.ma.MaskedArray, np.matrix)", "_NOT_PLAIN = ()", "tests/test_errors.py"),
    Fault("kernels/xla.py", "if n % batch_size:", "if False:", TRAINING),
    Fault("network.py", "optimization_barrier((w, ", "((w, ", "tests/test_network.py"),
    Fault("network.py", "key[2] + 1, key[2])", "key[2], key[2])", "tests/test_network.py"),
    Fault("network.py", "min(row, n_out - rows)", "row", "tests/test_network.py"),
    Fault("chunks.py", "if is_wide(network):", "if False:", TRAINING),
    Fault("best.py", "value > best if by", "value >= best if by", BEST),
    Fault("best.py", "xp.isfinite(value) & (better", "(better", BEST),
    Fault("best.py", "waited=number(best.waited + 1)", "waited=number(1)", BEST),
    Fault("best.py", "best.waited >= self.patience", "best.waited > self.patience", BEST),
    Fault("best.py", "best.epoch >= 0, ended", "best.epoch >= -1, ended", BEST),
    Fault("best.py", "if best.by != choice.by:", "if False:", BEST),
    Fault("training_loop.py", "if choice.follows and (k or best is None):", "if choice.follows:", BEST),
    Fault("records.py", 'if self.of == "layer" else', "if True else", RECORDS),
    Fault("records.py", "k % f.every == 0", "k % f.every == 1", RECORDS),
    Fault("report/history.py", "known = np.isfinite(values)", "known = np.full(values.shape, True)", PLOTS),
    Fault("cli/train_folder.py", "choice.network(state)", "state.network", TRAIN),
    Fault("cli/train_folder.py", "if (got := network_digest(network)) !=", "if False and (got := 0) !=", TRAIN),
    Fault("training_loop.py", "if not kept and state.gradient is not None:", "if False:", TRAINING),
    Fault("training_loop.py", "            x.delete()", "            pass", TRAINING),
    Fault("training_loop.py", "finite & evaluated_finite", "finite", TRAINING),
    Fault("epoch.py", "jax.random.fold_in(state.key, state.epoch)", "jax.random.fold_in(state.key, 0)", TRAINING),
    Fault("epoch.py", "dot(state.gradient, step)", "dot(network, step)", TRAINING),
    Fault(
        "epoch.py",
        "-(-len(splits.train.y) // config.batch_size)",
        "len(splits.train.y) // config.batch_size",
        TRAINING,
    ),
    Fault(
        "epoch.py",
        "advanced if config.lean else keep(finite, advanced, state)",
        "advanced",
        TRAINING,
    ),
    Fault(
        "training_loop.py",
        "bool(callback(now, entry))) and not ended",
        "bool(callback(now, entry))) and False",
        TRAINING,
    ),
    Fault("kernels/order.py", "_ROUNDS = 64", "_ROUNDS = 8", KERNELS),
    Fault("kernels/native.py", "if job.cost not in COSTS:", "if False:", f"{KERNELS} {TRAINING}"),
    Fault("kernels/choice.py", "reason = backend.why_slower(job)", "pass", f"{KERNELS} {REGISTRY}"),
    Fault(
        "kernels/choice.py",
        "for on_device, reason in passed_over if on_device]",
        "for on_device, reason in passed_over]",
        REGISTRY,
    ),
    Fault(
        "kernels/choice.py", "reason for _, reason in passed_over[-1:]", "reason for _, reason in passed_over", REGISTRY
    ),
    Fault("kernels/protocol.py", "jax.jvp(same, primals, tangents)", "jax.jvp(f, primals, tangents)", REGISTRY),
    Fault("kernels/native.py", "finite == 1", "finite >= 0", f"{KERNELS} {TRAINING}"),
    Fault("kernels/cuda/descend.cu", "r, t * r * r}", "r, r * (1.0f - r)}", EMULATION),
    Fault(
        "kernels/cuda/descend.cu",
        "-eta / static_cast<float>(count)",
        "-eta / static_cast<float>(batch_size)",
        EMULATION,
    ),
    Fault("kernels/cuda/descend.cu", "s.d2[e * 16 + k] = e < count ?", "s.d2[e * 16 + k] = true ?", EMULATION),
    Fault(
        "kernels/cuda/descend.cu",
        "answer[slot] < static_cast<uint32_t>(kOutputs)",
        "answer[slot] <= static_cast<uint32_t>(kOutputs)",
        EMULATION,
    ),
    Fault("kernels/cuda/descend.cu", "valid &= a.value >= 0.0f;", "", EMULATION),
    Fault("kernels/cuda/descend.cu", "if (r >= 0 && r < n) return r;", "if (r >= 0) return min(r, n - 1);", EMULATION),
    Fault("kernels/cuda/descend.cu", "bits(high(a[i] - high(a[i])))", "bits(0.0f)", EMULATION),
    Fault("kernels/cuda/descend.cu", "step / kStages % 2);", "step % 2);", EMULATION),
    Fault("kernels/cuda/descend.cu", "    fence_before_copies();\n", "", EMULATION),
    Fault("kernels/cuda/descend.cu", "orders + network * n", "orders", EMULATION),
    Fault("kernels/cuda/nvrtc.py", 'return f"sm_{max(known)}"', 'return f"sm_{min(known)}"', COMPILE),
    Fault("kernels/cuda/nvrtc.py", "if most_major is None or candidate.version[0] <= most_major:", "if True:", COMPILE),
    Fault("kernels/cuda/nvrtc.py", "if code != 0:\n                raise", "if False:\n                raise", COMPILE),
    Fault("kernels/cuda/nvrtc.py", "max(map(int, spills.groups()))", "int(spills[1])", COMPILE),
    Fault("kernels/cuda/cubins.py", "if digest != hashlib.sha256(body).digest():", "if False:", COMPILE),
    Fault("kernels/cuda/cubins.py", "except ValueError:", "except KeyError:", COMPILE),
    Fault("kernels/cuda/cubins.py", "if not folder.is_absolute():", "if False:", COMPILE),
    Fault("kernels/cuda/cubins.py", " if held == name.encode() else None", "", COMPILE),
    Fault("kernels/cuda/cubins.py", " and not status.st_mode & 0o022", "", COMPILE),
    Fault(
        "kernels/cuda/cubins.py", "*options_for(shape, architecture, *flags), str(compiler)", "str(compiler)", COMPILE
    ),
    Fault("kernels/cuda/driver.py", "if device.capability < LEAST_CAPABILITY:", "if False:", DRIVER),
    Fault("kernels/cuda/driver.py", "if shape.shared_bytes <= device.shared_bytes:", "if True:", DRIVER),
    Fault("kernels/cuda/driver.py", 'self("cuKernelGetFunction"', 'self("cuKernelGetName"', DRIVER),
    Fault(
        "kernels/cuda/driver.py",
        "        finally:\n            self.pop_context()",
        "        finally:\n            pass",
        DRIVER,
    ),
    Fault("kernels/cuda/driver.py", "with contextlib.suppress(CudaError) if error else", "with", DRIVER),
    Fault(
        "kernels/cuda/direct.py",
        "            self._targets,\n            self._order,",
        "            self._order,\n            self._targets,",
        DRIVER,
    ),
    Fault("kernels/cuda/backend.py", '"tensorfloat32": 1', '"tensorfloat32": 2', CUDA),
    Fault("kernels/cuda/backend.py", "for i in range(len(arrays))", "for i in range(3)", CUDA),
    Fault("kernels/cuda/backend.py", "if shape.row_bytes > shape.inputs:", "if False:", CUDA),
    Fault("kernels/calls.py", "if any(tree_leaves(in_batched[1])):", "if False:", f"{CUDA} {KERNELS}"),
    Fault("kernels/cuda/backend.py", "if mapped[2].ndim == 1:", "if True:", CUDA),
    Fault("kernels/cuda/backend.py", "if len(names) > 1:", "if False:", CUDA),
    Fault("kernels/cuda/backend.py", "if _capability(other) == _capability(ordinal):", "if True:", CUDA),
    Fault("kernels/cuda/backend.py", "            loaded(shape, other)", "            pass", CUDA),
    Fault("kernels/cuda/backend.py", "if cubin.name not in _handles:", "if True:", CUDA),
    Fault("kernels/cuda/backend.py", "if unsuitable is not None:", "if False:", CUDA),
    Fault("training.py", 'portable=traced and kernel == "auto"', "portable=False", CUDA),
    Fault("training.py", 'portable=traced and kernel == "auto"', "portable=traced", CUDA),
    Fault("kernels/src/cuda.cc", "require_same(e, kernel.sizes);", "", LAUNCH),
    Fault("kernels/src/cuda.cc", "if (code != 0) {", "if (false) {", LAUNCH),
    Fault("kernels/src/cuda_epoch.h", "before.untyped_data() == after.untyped_data()", "true", LAUNCH),
    Fault("kernels/src/cuda_epoch.h", "{n, (e.inputs + 15) / 16 * 16}", "{n, x.dimensions()[1]}", LAUNCH),
    Fault(
        "kernels/cuda/direct.py",
        "shape.batch_size if batch_size is None else batch_size",
        "shape.batch_size",
        "tests/kernels/test_cuda_driver.py",
    ),
    Fault("kernels/src/kernels.cc", "eta / static_cast<float>(m)", "eta / static_cast<float>(batch_size)", KERNELS),
    Fault("kernels/src/kernels.cc", "if (sums) flush(*sums, gradients[part]);\n    results", "results", KERNELS),
    Fault("kernels/src/kernels.cc", "rows[ends[examples.labels[row]]++] = row", "rows[row - first] = first", KERNELS),
    Fault("kernels/src/answers.h", "right &= a[k] < a[label]", "right &= a[k] <= a[label]", KERNELS),
    Fault("kernels/src/trainer.h", "k < n && result.saturated", "k < 1 && result.saturated", KERNELS),
    Fault("kernels/src/trainer.h", "if (factor != 1) scale(d, m * p, factor);", "", KERNELS),
    Fault(
        "kernels/src/trainer.h", "if (weights_.scale() != 1) scale(d, m * own.count, weights_.scale());", "", KERNELS
    ),
    Fault("kernels/src/answers.h", "rest * load(a + i) - y * load(complement + i)", "load(a + i) - y", KERNELS),
    Fault("kernels/src/weights.h", "if (scale_ > 1 / kMost && scale_ < kMost) return;", "return;", KERNELS),
    Fault("kernels/src/trainer.h", "load(z_.get() + i) - load(z_.get() + i)", "load(outputs(0) + i)", KERNELS),
    Fault("kernels/src/ffi.cc", "low >= 0 && high < end", "high < end", KERNELS),
    Fault("kernels/src/dispatch.cc", "isa.empty() || isa == candidate.name", "true", KERNELS),
    Fault("kernels/src/arguments.h", "dims.size() == shape.size() && ", "", KERNELS),
    Fault("kernels/src/ffi.cc", "total.saturated &= result.saturated", "total.saturated = result.saturated", KERNELS),
    Fault("chunks.py", "if kept <= budget.kept else None", "if kept < budget.chunk else None", TRAINING),
    Fault("chunks.py", "data_sets *= axis_size if any(in_batched[0]) else 1", "data_sets *= axis_size", TRAINING),
    Fault("epoch.py", "full_batch or config.gradient_norm", "True", TRAINING),
    Fault("errors.py", "if is_algorithm and not", "if False and not", "tests/test_errors.py"),
    Fault("cli/train.py", 'if "budget" in config and not job else None', "if False else None", TRAIN),
    Fault(
        "kernels/src/products.h",
        "for (int64_t k = 0; k < longest; k += kDepth)",
        "for (int64_t k = 0; k < std::min(longest, kDepth); k += kDepth)",
        KERNELS,
    ),
    # Saving, meshes, sweeps, assessments, the command line and figures.
    Fault("checkpoint.py", "hashlib.sha256(values).hexdigest() != saved or", "", CHECKPOINT),
    Fault("checkpoint.py", "about = content if kind == _UNSEALED else unseal(content)", "about = content", CHECKPOINT),
    Fault("network_file.py", "if metadata == checksum(_NETWORK, sha):", "if True:", NETWORK_FILE),
    Fault("state_file.py", "known = metadata == checksum(_STATE, sha)", "known = True", STATE_FILE),
    Fault("state_file.py", "if expected.get(name) != stored.get(name):", "if False:", STATE_FILE),
    Fault("checkpoint.py", "    if not _is_key(like):", "    if True:", STATE_FILE),
    Fault("files.py", "if seal(plain) != content:", "if False:", "tests/test_files.py tests/test_run_folder.py"),
    Fault("files.py", "os.ftruncate(handle, before)", "pass", "tests/test_files.py"),
    Fault("files.py", "if not stat.S_ISREG(about.st_mode):", "if False:", "tests/test_files.py"),
    Fault(
        "run_folder.py",
        "if os.path.samestat(os.stat(self.path), os.fstat(self._handle)) and",
        "if",
        "tests/test_run_folder.py",
    ),
    Fault("checkpoint.py", "not self._config.items() <= config.items() or", "", CHECKPOINT),
    Fault(
        "checkpoint.py", "if digest([leaves[i] for i in digests]) != list(digests.values()):", "if False:", CHECKPOINT
    ),
    Fault("pieces.py", "t = _mix(s + q)", "t = _mix(s)", "tests/test_pieces.py"),
    Fault("pieces.py", "i = i + start[axis] if axis < x.ndim else i", "pass", "tests/test_pieces.py -m slow -k four"),
    Fault(
        "pieces.py", "inner = range((first // size + 1) * size, first + n, size)", "inner = ()", "tests/test_pieces.py"
    ),
    Fault("checkpoint.py", "max_to_keep=self._keep", "max_to_keep=None", CHECKPOINT),
    Fault(
        "sweeps/group.py",
        "        failed = reached[at] == Reason.NOT_FINITE",
        "        failed = reached[at] < 0",
        SWEEP,
    ),
    Fault("epoch.py", "Examples(*(x[:n] for x in examples))", "examples", MESH),
    Fault("mesh/partition.py", "NamedSharding(mesh, P(*spec[:1]))", "NamedSharding(mesh, P())", MESH),
    Fault("mesh/placement.py", "missing = -n % devices", "missing = 0", MESH),
    Fault("mesh/placement.py", "if missing and not pad:", "if False:", MESH),
    Fault("mesh/placement.py", "if axis not in mesh.axis_names:", "if False:", MESH),
    Fault("training.py", 'divided=getattr(getattr(data, "train", data), "devices", 1) > 1', "divided=False", MESH),
    Fault("sweeps/group.py", "or bool(is_fixed(state.network, i, rates, splits.train))", "", SWEEP),
    Fault(
        "sweeps/group.py", "config.batch_size is None or bool(is_fixed(", "config.batch_size is None and bool((", SWEEP
    ),
    Fault(
        "sweeps/group.py",
        "batch, members, state = {name: x[kept]",
        "batch, members, state = {name: x[: len(kept)]",
        SWEEP,
    ),
    Fault("sweeps/group.py", "eta[members], k, devices)", "eta[: len(members)], k, devices)", SWEEP),
    Fault("sweeps/fixed.py", "step = 2 * rate * bound", "step = 0 * rate * bound", SWEEP),
    Fault("sweeps/fixed.py", "least > _DEAD[str(dtype)], 0,", "least > 30, 0,", SWEEP),
    Fault(
        "sweeps/folder.py",
        "            known = metadata == checksum(f",
        "            known = metadata != checksum(f",
        SWEEP,
    ),
    Fault("sweeps/table.py", "return table.replace_schema_metadata() if known else None", "return table", SWEEP),
    Fault("sweeps/table.py", "np.lexsort((cost, -accuracy))", "np.lexsort((cost, accuracy))", SWEEP),
    Fault("sweeps/plan.py", "max(-(-total // n), min(parts, total))", "-(-total // n)", SWEEP),
    Fault("sweeps/driver.py", "        if value != recorded[name]:", "        if False:", SWEEP),
    Fault("sweeps/run.py", "with _locked(store, mine[:1]):", "with _locked(store, []):", SWEEP),
    Fault("run_folder.py", "fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))", "pass", TRAIN),
    Fault("cli/train_folder.py", 'if digest(data) != folder.config["data_sha256"]:', "if False:", TRAIN),
    Fault("cli/train.py", "if not outcome.ok:", "if False:", TRAIN),
    Fault("cli/train.py", "if epochs < done:", "if False:", TRAIN),
    Fault("cli/train.py", "bool(stop.number or decided(job, bool(reporter.broken)))", "bool(stop.number)", TRAIN),
    Fault("cli/signals.py", "not in (signal.SIG_IGN, None)", "is not None", TRAIN),
    Fault("cli/signals.py", "return time.monotonic() - self._time < _TWICE", "return False", TRAIN),
    Fault("assessment.py", "right[read] * k + answers[read]", "answers[read] * k + right[read]", ASSESSMENT),
    Fault(
        "assessment.py", "np.where(np.isnan(outputs).any(-1), -1, outputs.argmax(-1))", "outputs.argmax(-1)", ASSESSMENT
    ),
    Fault(
        "assessment.py", "np.lexsort((-confidence, ~read[wrong]))", "np.lexsort((confidence, ~read[wrong]))", ASSESSMENT
    ),
    Fault("assessment.py", "float(hits.sum() / n)", "float(hits.sum() / read.sum())", ASSESSMENT),
    Fault("data/named.py", "return entry.load(data_dir)", "return entry.load(Path())", "tests/data/test_named.py"),
    Fault("cli/output.py", "name in _FUNCTIONS", "False", "tests/cli/test_others.py"),
    Fault("data/conventions.py", "images.swapaxes(1, 2))\n", "images[:, :, ::-1])\n", CONVENTIONS),
    Fault("data/conventions.py", "labels - np.uint8(labels_from) if", "labels if", CONVENTIONS),
    Fault("data/conventions.py", "and upright <= transposed / 2", "", CONVENTIONS),
    Fault("data/conventions.py", "(transpose is None or starts_later)", "starts_later", CONVENTIONS),
    Fault("data/foreign.py", "np.rint(x * (255 / x.max()))", "np.rint(x * 255)", "tests/data/test_foreign.py"),
    Fault("cli/train_folder.py", '"transpose": bool(conventions.transpose)', '"transpose": False', EVALUATE),
    Fault("cli/evaluate.py", "if own else UNSTATED", "if not own else UNSTATED", EVALUATE),
    Fault("cli/assessment.py", "return _Mistake(i, label, answer", "return _Mistake(label, label, answer", EVALUATE),
    Fault("cli/run_data.py", "if actual == expected:", "if True:", EVALUATE),
    Fault("cli/predict.py", "if is_idx(path):", "if not path.suffix:", "tests/cli/test_others.py"),
    Fault("cli/predict.py", "if single and len(digits) > 1:", "if False:", "tests/cli/test_predict.py"),
    Fault("cli/predict.py", "if activations[best] < _LOW:", "if False:", "tests/cli/test_predict.py"),
    Fault(
        "cli/check.py",
        'return CANNOT_TELL if "cannot tell" in outcomes or (strict and "skipped" in outcomes) else DONE',
        "return DONE",
        "tests/cli/test_check.py",
    ),
    Fault("cli/check.py", '(strict and "skipped" in outcomes)', '"skipped" in outcomes', "tests/cli/test_check.py"),
    Fault("cli/check.py", "min(worst.get(", "max(worst.get(", "tests/cli/test_check.py"),
    Fault("cli/check.py", "if all(result.skipped for result in results):", "if False:", "tests/cli/test_check.py"),
    Fault("cli/cases.py", "if error is not None and _is_skip(error):", "if False:", "tests/cli/test_check.py"),
    Fault(
        "cli/cases.py",
        'type(error).__name__ == "Skipped" and any(',
        'type(error).__name__ == "Skipped" or any(',
        "tests/cli/test_check.py",
    ),
    Fault("cli/cases.py", "if case.skipped:", "if False:", "tests/cli/test_check.py"),
    Fault("cli/cases.py", "if _is_case(name, f) and not _needs(f)", "if _is_case(name, f)", "tests/cli/test_check.py"),
    Fault("cli/run_data.py", "sha.update(array.tobytes())", "pass", TRAIN),
    Fault("pytest_plugin.py", "if min(out) < 0:", "if False:", "tests/test_pytest_plugin.py"),
    Fault("report/plotting.py", "np.append(x[x <= last], last)", "np.append(x[x < last], last)", PLOTS),
    Fault("report/plotting.py", "words if outcome.ok else", "words if True else", PLOTS),
    Fault("report/curves.py", "(y >= 0).all() and ", "", PLOTS),
    Fault("report/landscape.py", "np.concatenate([shadow, corners, nearest])", "shadow", PLOTS),
    Fault("report/landscape.py", "origin + sum(", "sum(", PLOTS),
    Fault("report/landscape.py", "np.asarray(far | (falls & ", "np.asarray(far & (falls & ", PLOTS),
    Fault("report/landscape.py", "basis[:rank], drawn", "drawn", PLOTS),
    Fault("report/scale.py", "levels > np.log10(3)", "levels > 0", PLOTS),
    Fault("report/scale.py", "np.maximum(known - self.lowest, 0) / self.floor", "known / self.floor + 1", PLOTS),
    Fault("report/valley.py", "scale(points[:, 2])\n", "scale(points[:, 2]) + 0.01\n", PLOTS),
    Fault(
        "report/page.py", "float(landscape.scale(point[2])))", "float(landscape.scale(point[2])) + height / 20)", PLOTS
    ),
    Fault("cli/sweep.py", "        return signals.status(stop.number)\n", "        return DONE\n", SWEEPS),
    Fault("cli/sweep.py", '        argv = [*argv, "--folder", str(folder)]\n', "", SWEEPS),
    Fault("cli/sweep.py", 'sorted(given - {"--merge", "--plot"})', "()", SWEEPS),
    Fault("cli/sweep.py", "keep=_best(options.keep)", "keep=0", SWEEPS),
    Fault("cli/sweep.py", "part=options.part", "part=None", SWEEPS),
    Fault("cli/sweep.py", "scheme=options.scheme or scheme", 'scheme="gaussian"', SWEEPS),
    Fault("cli/common.py", "(1024 if match[3] else 1000)", "1000", "jaxgd/cli/common.py"),
    # The page of a run.
    Fault("report/run_page/words.py", "html.escape(str(value))", "str(value)", PAGE),
    Fault("report/run_page/pixels.py", 'astype("<f4")', 'astype(">f4")', PAGE),
    Fault("report/run_page/chart.py", "share * (_BOTTOM - _TOP)", "(1 - share) * (_BOTTOM - _TOP)", PAGE),
    Fault(
        "cli/report.py", "if value is None or (unstated and", "if value is None or unstated or (unstated and", REPORT
    ),
    Fault("report/run_page/network.js", "layer.w[j * n + k]", "layer.w[k * z.length + j]", BROWSER),
    Fault("report/run_page/network.js", "target - center + 0.5", "target - center", BROWSER),
    Fault("report/run_page/network.js", "before <= SPECK * total", "before <= 0", BROWSER),
    Fault("report/sweep.py", "rows = sweep.last()", "rows = sweep.table", SWEEP_PLOTS),
    Fault("report/sweep.py", "(Reason.NOT_FINITE, Reason.START_NOT_FINITE)", "(Reason.SATURATED,)", SWEEP_PLOTS),
    Fault("report/sweep.py", "        some.sort(key=lambda point: point.eta)\n", "", SWEEP_PLOTS),
    Fault("report/sweep.py", "            bottom += 100 * share\n", "", SWEEP_PLOTS),
    Fault("report/sweep.py", "max(placed[k], placed[k - 1] + gap)", "placed[k]", SWEEP_PLOTS),
    Fault("report/sweep.py", "    placed[-1] = min(placed[-1], 1)\n", "", SWEEP_PLOTS),
    Fault("report/curves.py", "if error.max() < 15 * floor", "if error.max() < 1e5 * floor", SWEEP_PLOTS),
    Fault("report/training.py", "1 - ", "0.9 - ", "tests/cli/test_train.py tests/cli/test_others.py"),
)


def room_of(fault):
    """Return the room that a fault is in: a module or a package of jaxgd/."""
    return fault.file.split("/")[0].removesuffix(".py")


def run(words, **options):
    """Run a command in the checkout."""
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def build(fault):
    """Build the library again if the fault is in C++."""
    if fault.file.startswith("kernels/src"):
        done = run([sys.executable, "jaxgd/kernels/src/build.py"])
        assert done.returncode == 0, done.stderr[-500:]


def plant(fault, tests):
    """Plant a fault, run the tests, and undo the fault. Return (first failed test, "") or (None, reason)."""
    path = ROOT / "jaxgd" / fault.file
    source = path.read_text(encoding="utf-8")
    if source.count(fault.right) == 0:
        return None, f"the line is not in the file: {fault.right}"
    try:
        path.write_text(source.replace(fault.right, fault.wrong), encoding="utf-8")
        build(fault)
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
        done = run([*words, *tests.split()], timeout=900)
    finally:
        path.write_text(source, encoding="utf-8")
        build(fault)
    if done.returncode == 0:
        return None, "every test passed"
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return (found[1] if found else f"status {done.returncode}"), ""


def main():
    """Plant the faults of the rooms in the arguments, or all faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", help="rooms such as rules, descent; all by default")
    parser.add_argument(
        "--out", type=Path, help="a file that gets one line of JSON per fault; faults already in it are skipped"
    )
    options = parser.parse_args()
    rows = options.out.read_text().splitlines() if options.out and options.out.exists() else []
    done = {(row["file"], row["right"], row["wrong"]) for row in map(json.loads, rows)}
    if run(["git", "diff", "--quiet", "--", "jaxgd"]).returncode:
        sys.exit("jaxgd/ has uncommitted changes.\nCommit or stash them first.")
    missed = 0
    for fault in FAULTS:
        if (options.rooms and room_of(fault) not in options.rooms) or (fault.file, fault.right, fault.wrong) in done:
            continue
        began = time.monotonic()
        caught, reason = plant(fault, fault.tests)
        missed += caught is None
        row = {
            "room": room_of(fault),
            "file": fault.file,
            "right": fault.right,
            "wrong": fault.wrong,
            "seconds": round(time.monotonic() - began),
            "caught_by": caught,
            "reason": reason,
        }
        short = (fault.wrong.strip() or "deleted").splitlines()[0][:60]
        print(f"{row['room']:12} {row['seconds']:4} s  {short:60}  {caught or 'MISSED: ' + reason}", flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(f"{missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
