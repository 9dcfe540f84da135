"""Epochs by PyTorch: CUDA graphs, eager steps, many networks by vmap, and compiled steps."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.device import data, timing, torch_work
from benchmarks.device.context import Context, TaskError
from benchmarks.device.torch_work import Tensor

# Steps per CUDA graph. Each run of a graph needs one launch.
LENGTHS = (1, 50)

Slopes = Callable[[Sequence[Tensor], Tensor, Tensor], Sequence[Tensor]]


class Trainer:
    """Networks on the device, updated in place, and their position in the order of the examples.

    Attributes:
        network: w¹, b¹, w², b², with a leading axis if many networks are trained.
        whole: Number of examples in whole mini-batches. PyTorch's programs leave out a short last mini-batch.
    """

    def __init__(self, context: Context, images: data.Images, networks: int = 1) -> None:
        import torch

        device, n = torch_work.device(context), len(images.y)
        self.whole = n - n % data.BATCH
        one = networks == 1
        self._start: list[Tensor] = [torch.tensor(v[0] if one else v, device=device) for v in data.weights(networks)]
        self.network = [v.clone() for v in self._start]
        orders: Tensor = torch.from_numpy(data.orders(networks, n)[:, : self.whole].astype(np.int64)).to(device)
        self._order = orders[0] if one else orders
        self._x: Tensor = torch.from_numpy(images.x).to(device)
        self._y = torch_work.targets(torch.from_numpy(images.y.astype(np.int64)).to(device))
        self._position: Tensor = torch.zeros((), dtype=torch.int64, device=device)
        self._range: Tensor = torch.arange(data.BATCH, device=device)

    def reset(self) -> None:
        """Go back to the initial weights and the first mini-batch."""
        for v, start in zip(self.network, self._start, strict=True):
            v.copy_(start)
        self._position.zero_()

    def step(self, slopes: Slopes) -> None:
        """Make one update in place. `slopes` returns ∇C for a network, inputs and targets."""
        import torch

        rows: Tensor = torch.index_select(self._order, -1, self._position + self._range)
        gradient = slopes(self.network, torch_work.inputs(self._x[rows]), self._y[rows])
        torch._foreach_add_(self.network, gradient, alpha=-data.ETA)
        self._position.add_(data.BATCH).remainder_(self.whole)


def by_autograd(network: Sequence[Tensor], x: Tensor, y: Tensor) -> Sequence[Tensor]:
    """Return ∇C of one network by autograd."""
    leaves = [v.detach().requires_grad_() for v in network]
    return torch_work.gradient(torch_work.cost(leaves, x, y), leaves)


def by_function(network: Sequence[Tensor], x: Tensor, y: Tensor) -> Sequence[Tensor]:
    """Return ∇C of one network by torch.func, which vmap and compile can transform."""
    from torch.func import grad

    slopes: Sequence[Tensor] = grad(torch_work.cost)(tuple(network), x, y)
    return slopes


def many_by_function(network: Sequence[Tensor], x: Tensor, y: Tensor) -> Sequence[Tensor]:
    """Return ∇C of many networks by vmap."""
    from torch.func import vmap

    slopes: Sequence[Tensor] = vmap(by_function)(tuple(network), x, y)
    return slopes


def captured(trainer: Trainer, step: Callable[[], None], length: int) -> Callable[[], object]:
    """Return a function that makes `length` steps: by one CUDA graph, or on a CPU step by step."""
    import torch

    if not trainer.network[0].is_cuda:

        def steps() -> None:
            for _ in range(length):
                step()

        return steps
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(length):
            step()
    trainer.reset()
    replay: Callable[[], object] = graph.replay
    return replay


def graph(context: Context) -> None:
    """Time epochs of one network by CUDA graphs."""
    import torch

    images = data.training(context.sizes.examples)
    for precision, word in torch_work.PRECISIONS.items():
        torch.set_float32_matmul_precision(word)
        for length in LENGTHS:
            trainer = Trainer(context, images)
            step = lambda trainer=trainer: trainer.step(by_autograd)  # noqa: E731
            _time_epochs(context, f"torch-graph-{length}", precision, trainer, step, length, images, 1)


def eager(context: Context) -> None:
    """Time steps of one network without a graph."""
    import torch

    images, calls = data.training(context.sizes.examples), context.sizes.calls
    for precision, word in torch_work.PRECISIONS.items():
        torch.set_float32_matmul_precision(word)
        _time_steps(context, "torch-eager", precision, Trainer(context, images), by_autograd, calls, images, 1)


def many(context: Context) -> None:
    """Time many networks: steps without a graph, then epochs by a CUDA graph."""
    import torch

    images, networks = data.training(context.sizes.examples), context.sizes.many
    for precision, word in torch_work.PRECISIONS.items():
        torch.set_float32_matmul_precision(word)
        trainer = Trainer(context, images, networks)
        calls = max(context.sizes.calls // 3, 1)
        _time_steps(context, "torch-vmap-eager", precision, trainer, many_by_function, calls, images, networks)
        trainer.reset()
        step = lambda trainer=trainer: trainer.step(many_by_function)  # noqa: E731
        _time_epochs(context, "torch-vmap-graph", precision, trainer, step, LENGTHS[-1], images, networks)


def autotune(context: Context) -> None:
    """Time epochs of one network by CUDA graphs of steps that torch.compile has tuned."""
    import torch

    images, precision = data.training(context.sizes.examples), timing.TF32
    torch.set_float32_matmul_precision(torch_work.PRECISIONS[precision])
    # A rehearsal generates no code, because that takes minutes on a CPU.
    options = {"backend": "eager"} if context.rehearse else {"mode": "max-autotune-no-cudagraphs"}
    slopes: Slopes = torch.compile(by_function, **options)
    trainer = Trainer(context, images)
    step = lambda: trainer.step(slopes)  # noqa: E731
    _time_epochs(context, "torch-max-autotune-graph", precision, trainer, step, LENGTHS[-1], images, 1)


def _time_steps(
    context: Context, variant: str, precision: str, trainer: Trainer, slopes: Slopes, calls: int,
    images: data.Images, networks: int,
) -> None:  # fmt: skip
    def run(_: int) -> None:
        for _ in range(calls):
            trainer.step(slopes)

    first, samples = timing.times(run, torch_work.wait, context.sizes.repeats)
    details = {"networks": networks, **images.details}
    timing.store(context, "", variant, "s/step", first, samples, precision, details, calls)


def _time_epochs(
    context: Context, variant: str, precision: str, trainer: Trainer, step: Callable[[], None], length: int,
    images: data.Images, networks: int,
) -> None:  # fmt: skip
    steps = trainer.whole // data.BATCH
    length = min(length, steps)
    if steps % length:
        raise TaskError(f"{variant}: expected a multiple of {length} steps, got {steps}")
    replay = captured(trainer, step, length)
    after: list[NDArray[np.float32]] = []

    def run(k: int) -> None:
        for _ in range(steps // length):
            replay()
        if k == 0:
            after.extend(v.clone().cpu().numpy() for v in trainer.network)

    repeats = context.sizes.repeats if networks == 1 else timing.SLOW_REPEATS
    _, samples = timing.times(run, torch_work.wait, repeats)
    details = timing.outcome(images, after if networks == 1 else [v[0] for v in after])
    if networks > 1:
        details |= {"networks": networks, "network_epochs_per_s": networks / float(np.median(samples))}
    context.row("", variant, "time", "s/epoch", samples, precision=precision, details=details)
