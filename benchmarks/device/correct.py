"""The resources of the kernel, its error against float64, and a comparison of the bits of two runs."""

import numpy as np

from benchmarks.device import data, reference
from benchmarks.device.context import Context, TaskError
from benchmarks.device.launcher import PARTS, compiler, launcher, shape
from jaxgd.kernels.cuda import nvrtc

# The largest allowed errors, relative to the distance that the weights moved. For factors with two TF32 parts, the
# limit is a multiple of the error of NumPy's float32. For factors with one part, it is a fixed number.
MOST_OF_FLOAT32, MOST_TF32 = 1.5, 3e-3
# The limits of the compiled kernel. With more registers per thread, the largest block would not fit. Spills cost time.
MOST_REGISTERS, MOST_SPILL_BYTES = 128, 128


def compile_log(context: Context) -> None:
    """Store the registers, spills and shared memory of the kernel."""
    capability = (9, 0)
    if not context.rehearse:
        from jaxgd.kernels.cuda import driver

        device = driver.device()
        if isinstance(device, str):
            raise TaskError(device)
        capability = device.capability
    elif isinstance(compiler_ := nvrtc.compiler(), str):
        context.note(f"compile: rehearsed without the compiler: {compiler_}")
        return
    for parts, precision in PARTS.items():
        this = shape(parts)
        name = compiler().architecture(capability)
        compiled = compiler().compile(this, name)
        used = nvrtc.resources(compiled.log)
        shared = this.shared_bytes + used.static_bytes
        details = {"architecture": name, "compiler": str(compiler()), "cubin_bytes": len(compiled.cubin)}
        for part, unit, value in (
            ("registers", "registers per thread", used.registers),
            ("spills", "bytes per thread", used.spill_bytes),
            ("shared", "bytes per block", shared),
        ):
            context.count(part, "jaxgd-cuda", "resources", unit, value, precision=precision, details=details)
        (context.logs / f"compile-{parts}.txt").write_text(compiled.log, encoding="utf-8")
        if used.registers > MOST_REGISTERS or used.spill_bytes > MOST_SPILL_BYTES:
            limits = f"{MOST_REGISTERS} registers and {MOST_SPILL_BYTES} bytes of spills"
            raise TaskError(f"{precision}: expected at most {limits}, got {used}")


def run(context: Context) -> None:
    """Compare steps of the kernel with float64, and two runs with each other."""
    faults = []
    images = data.training(data.BATCH * max(context.sizes.steps))
    start = data.weights(1)
    one = [v[0] for v in start]
    with launcher(context) as launches:
        for steps in context.sizes.steps:
            n = data.BATCH * steps
            x, y, order = images.x[:n], images.y[:n], data.orders(1, n)
            exact = reference.descend(one, x, y, order[0], data.ETA, data.BATCH)
            own = reference.error(reference.descend(one, x, y, order[0], data.ETA, data.BATCH, np.float32), exact, one)
            context.count(f"{steps}-steps", "numpy", "error", "of the distance", own)
            for parts, precision in PARTS.items():
                training = launches.training(shape(parts), start, x, y, order, np.full(1, data.ETA, np.float32))
                networks = []
                for _ in range(2):
                    training.reset()
                    training.launch()
                    network, finite = training.result()
                    networks.append([np.array(v[0]) for v in network])
                    if not (finite == 1).all():
                        faults.append(f"{steps} steps, {precision}: expected `finite` to be 1, got {finite.tolist()}")
                error = reference.error(networks[0], exact, one)
                limit = MOST_OF_FLOAT32 * own if parts == 2 else MOST_TF32
                details = {"limit": limit, "of_numpy_float32": error / own, **images.details}
                context.count(
                    f"{steps}-steps", "jaxgd-cuda", "error", "of the distance", error, precision=precision,
                    details=details,
                )  # fmt: skip
                differing = sum(int(np.sum(a != b)) for a, b in zip(*networks, strict=True))
                context.count(
                    f"{steps}-steps-twice", "jaxgd-cuda", "faults", "weights that differ", differing,
                    precision=precision,
                )  # fmt: skip
                if not error <= limit:
                    faults.append(
                        f"{steps} steps, {precision}: expected an error of at most {limit:.2g}, got {error:.2g}"
                    )
                if differing:
                    faults.append(f"{steps} steps, {precision}: {differing} weights differ between two runs")
    if faults:
        raise TaskError("; ".join(faults))
