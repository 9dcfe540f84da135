"""A new backend needs only one module and one entry in the registry."""

import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import assert_leaves_close

from jaxgd import Layer, RangeError, quadratic_cost, train
from jaxgd.examples import Examples
from jaxgd.kernels import BackendChoice, Job, backend, native, protocol, registry, select_backend, xla
from jaxgd.kernels.protocol import Backend, with_derivatives
from jaxgd.rules import gradient_descent
from jaxgd.run_folder import _CONFIG

NETWORK = (Layer(jnp.full((2, 3), 0.25), jnp.array([0.5, -0.5])),)
EXAMPLES = Examples(jnp.arange(12, dtype=jnp.uint8).reshape(4, 3), jnp.array([0, 1, 1, 0]))
JOB = Job(NETWORK, EXAMPLES, quadratic_cost, None, 2)
OBJECTIVE = xla.Objective(quadratic_cost, "highest")


class Fake(Backend):
    """A backend that calls XLA and takes its derivatives from XLA."""

    name = "fake"

    def __init__(self, platform="cpu", unsupported=None, slower=None):
        self.platform, self.unsupported, self.slower, self.seen = platform, unsupported, slower, []

    def about(self):
        return self.unsupported or "ready"

    def why_unsupported(self, job):
        self.seen.append(job)
        return self.unsupported

    def why_slower(self, job):
        return self.slower

    def epoch(self, by_xla, optimizer_state, batch_size, objective):
        self.seen.append((batch_size, objective.precision))
        return with_derivatives(lambda *given: jax.lax.stop_gradient(by_xla(*given)), by_xla)


@pytest.fixture
def register(monkeypatch):
    """Return a function that registers a fake, the native and the XLA backend, in this order, and returns the fake."""

    def put(**options):
        module, fake = types.ModuleType("a_fake_backend"), Fake(**options)
        module.BACKEND = fake
        monkeypatch.setitem(sys.modules, "a_fake_backend", module)
        entry = registry.Entry("fake", "a_fake_backend", "is a test")
        others = [other for other in registry.BACKENDS if other.name in ("native", "xla")]
        monkeypatch.setattr(registry, "BACKENDS", (entry, *others))
        return fake

    return put


def test_each_entry_has_its_backends_name_and_the_last_backend_runs_everywhere():
    assert [entry.load().name for entry in registry.BACKENDS] == [entry.name for entry in registry.BACKENDS]
    last = registry.BACKENDS[-1].load()
    assert last.platform is None
    strange = JOB._replace(network=(), cost=max, optimizer=optax.adam(0.1), batch_size=None)
    assert last.why_unsupported(strange) is None


def test_auto_takes_the_first_backend_that_is_not_slower(register):
    fake = register()
    assert registry.kernel_names()[-1] == "fake"
    result = train(NETWORK, EXAMPLES, epochs=0, batch_size=2, eta=1.0, key=jax.random.key(0), precision="highest")
    assert result.kernel == BackendChoice("fake", "quicker for these shapes (ready)")
    (job,) = fake.seen
    assert (job.cost, job.optimizer, job.batch_size, job.precision) == (quadratic_cost, None, 2, "highest")
    assert (job.network[0].w.shape, job.examples.x.dtype) == ((2, 3), jnp.uint8)


# Each value is (platform, unsupported, slower, absent, device, want). The first three describe the fake. `absent` says
# why the native backend cannot run.
GONE, SLOW = "the fake cannot", "quicker than the fake"
CHOICES = {
    "the fake cannot run": ("cpu", GONE, None, "no compiler", "cpu", f"xla: {GONE}"),
    "the fake is slower": ("cpu", None, SLOW, "no compiler", "cpu", f"xla: {SLOW}"),
    "the fake cannot run and is slower": ("cpu", GONE, SLOW, "no compiler", "cpu", f"xla: {GONE}"),
    "the fake is for another device": ("gpu", GONE, None, "no compiler", "cpu", "xla: no compiler"),
    "the fake is for this device": ("gpu", GONE, None, "no compiler", "gpu", f"xla: {GONE}"),
    "one TPU without a backend": (
        "gpu",
        GONE,
        None,
        "no compiler",
        "tpu",
        "xla: the native kernels need arrays on one CPU device",
    ),
    "two GPUs share an array": ("gpu", GONE, None, "no compiler", "gpu gpu", f"xla: {GONE}"),
    "two TPUs without a backend": (
        "gpu",
        GONE,
        None,
        "",
        "tpu tpu",
        "xla: the native kernels need arrays on one CPU device, got a",
    ),
    "the native backend can run": ("cpu", GONE, SLOW, None, "cpu", "native: quicker for these shapes, on the CPU"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_auto_gives_the_reason_of_the_backend_for_this_device(register, monkeypatch, name):
    platform, unsupported, slower, absent, device, want = CHOICES[name]
    register(platform=platform, unsupported=unsupported, slower=slower)
    monkeypatch.setattr(native, "library", lambda: absent)
    monkeypatch.setattr(native, "about", lambda: absent)
    monkeypatch.setattr(protocol, "_platforms", lambda x: device.split())
    assert str(select_backend("auto", JOB)).startswith(want)


def test_a_requested_backend_runs_even_if_slower_but_raises_if_it_cannot_run(register):
    fake = register(slower=SLOW)
    assert select_backend("fake", JOB) == BackendChoice("fake", "as asked")
    fake.unsupported = GONE
    with pytest.raises(RangeError, match=rf'^train: kernel="fake" cannot run here: {GONE}\.\nUse kernel="auto"'):
        train(NETWORK, EXAMPLES, epochs=1, batch_size=2, eta=1.0, key=jax.random.key(0), kernel="fake")


def test_a_backend_can_use_the_derivative_and_the_evaluation_of_xla(register):
    fake = register()
    order = jnp.array([3, 0, 2, 1])

    def after(eta, name):
        choice = BackendChoice(name, "")
        network, state, finite = backend.epoch(
            choice, NETWORK, rule(eta).init(NETWORK), EXAMPLES, order, eta, rule, OBJECTIVE, batch_size=2
        )
        result = backend.evaluate(choice, network, EXAMPLES, OBJECTIVE, gradient=True)
        return result.cost, (network, state, finite, result)

    def rule(eta):
        return optax.with_extra_args_support(gradient_descent(eta))

    run = jax.jit(jax.value_and_grad(after, has_aux=True), static_argnames="name")
    actual, want = (jax.tree.map(np.asarray, run(1.0, name)) for name in ("fake", "xla"))
    assert_leaves_close(actual, want, rtol=0)
    assert want[1] != 0
    assert fake.seen == [(2, "highest")]


COMMAND = """
import sys
from jaxgd.kernels import registry
others = [other for other in registry.BACKENDS if other.name in ("native", "xla")]
registry.BACKENDS = (registry.Entry("fake", "nowhere", "is a test"), *others)
from jaxgd.cli import main
main(["train", "--help"])
main(["train", "--kernel", "gpu"])
assert not {"jax", "numpy", "nowhere"} & set(sys.modules)
"""


def test_the_command_offers_every_registered_backend():
    done = subprocess.run([sys.executable, "-c", COMMAND], capture_output=True, text=True, check=True)
    out = " ".join(done.stdout.replace("│", " ").split())
    assert "--kernel {auto,xla,native,fake} Backend that runs an epoch: xla runs everywhere;" in out
    assert "native is C++ on the CPU; fake is a test; auto is" in out
    assert done.stderr.startswith("jaxgd train: --kernel must be auto, xla, native or fake, got 'gpu'.")


def test_a_run_folder_accepts_every_backend():
    assert _CONFIG["kernel"].words == " or ".join(registry.kernel_names())
