"""The plan of the run: the tasks in their order, with the planned seconds of each."""

import dataclasses
from collections.abc import Iterable, Mapping

# The limit on the sum of all planned seconds. It is low, because a GPU is often available for minutes only.
MOST_SECONDS = 360
REHEARSAL_LIMIT = 120


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of the plan. It runs in a process of its own.

    Attributes:
        step: Number of the step. A step is a group of related tasks.
        name: Name on the command line, and in the names of the cases that the task measures.
        title: The description of the task, in one line.
        seconds: Planned time on an H100, in seconds. It was estimated, and not measured.
        function: The function to call, as "module:name", with the module in benchmarks.device.
        arguments: Keyword arguments of the function.
        xla_flags: Flags of XLA, which are added after the user's flags.
        needs: Python packages and programs that the task needs. A rehearsal does not need the tools in TOOLS_OF_A_GPU.
        most: Seconds after which the process is killed; 0 for the default, which `limit` computes from `seconds`.
    """

    step: int
    name: str
    title: str
    seconds: float
    function: str
    arguments: Mapping[str, object] = dataclasses.field(default_factory=dict)
    xla_flags: str = ""
    needs: tuple[str, ...] = ()
    most: float = 0.0

    def limit(self, rehearse: bool) -> float:
        """Return the seconds after which the process is killed: `most`, or by default max(2 · seconds, seconds + 15).

        The limit in a rehearsal is at least REHEARSAL_LIMIT, because a CPU with few cores compiles slowly.
        """
        limit = self.most or max(2 * self.seconds, self.seconds + 15)
        return max(limit, REHEARSAL_LIMIT) if rehearse else limit


_WHILE = "--xla_gpu_enable_command_buffer=+WHILE"

TASKS = (
    Task(0, "versions", "versions, driver, clocks, path of NVRTC, XLA flags", 5, "versions:run"),
    Task(0, "build", "compile the native library, unless it is up to date", 13, "versions:build", most=60),
    Task(1, "compile", "registers, spills and shared memory of the kernel", 6, "correct:compile_log"),
    Task(1, "correct", "error after 1, 20 and 60 steps against float64, and equal bits in two runs", 6, "correct:run"),
    Task(1, "adder", "rounding and width of the tensor core's adder", 3, "adder:run"),
    *(
        Task(2, tool, f"3 steps under compute-sanitizer's {tool}", seconds, "sanitize:run", {"tool": tool},
             needs=("compute-sanitizer",))
        for tool, seconds in (("memcheck", 12), ("racecheck", 12), ("synccheck", 11))
    ),
    Task(3, "kernel-times", "one epoch of 1 to 264 networks by the kernel", 7, "kernel:times"),
    Task(3, "kernel-training", "30 epochs of 132 networks by the kernel, and their accuracies", 5, "kernel:training"),
    Task(3, "kernel-warps", "the kernel with 12 warps per block instead of 14", 3, "kernel:warps"),
    Task(4, "profile", "200 steps under the profiler ncu", 20, "profile:run", needs=("ncu",)),
    Task(5, "ceilings-loops", "a copy, a loop of products and a loop of barriers", 4, "ceilings:loops"),
    Task(5, "ceilings-libraries", "a copy by JAX, and an 8192³ product by JAX and PyTorch", 8, "ceilings:libraries"),
    Task(6, "jax-kernel", "the kernel inside jit, scan and `train`", 9, "jax_kernel:one"),
    Task(6, "jax-scan", "an epoch by lax.scan", 9, "jax_epochs:scan"),
    Task(6, "jax-scan-while", "an epoch by lax.scan with WHILE command buffers", 9, "jax_epochs:scan",
         {"suffix": "-while"}, _WHILE),
    Task(6, "jax-unroll", "an epoch by lax.scan, unrolled", 10, "jax_epochs:scan", {"unroll": 10}),
    Task(6, "jax-kernel-while", "the kernel inside jit and scan with WHILE command buffers", 9, "jax_kernel:one",
         {"suffix": "-while"}, _WHILE),
    Task(6, "jax-steps", "300 calls of a jitted step", 7, "jax_epochs:steps"),
    Task(6, "jax-vmap-kernel", "an epoch of 132 networks by vmap of the kernel", 9, "jax_kernel:many"),
    Task(6, "jax-vmap", "an epoch of 132 networks by vmap of lax.scan", 13, "jax_epochs:many"),
    Task(7, "full-xla", "the full-batch gradient by XLA in three precisions", 12, "full_batch:by_xla"),
    Task(7, "full-torch", "the full-batch gradient by PyTorch in two precisions", 8, "full_batch:by_torch",
         needs=("torch",)),
    Task(8, "wide-xla", "the gradient of a wide network in bfloat16 by XLA", 10, "wide:by_xla"),
    Task(8, "wide-torch", "the gradient of a wide network in bfloat16 by PyTorch", 10, "wide:by_torch",
         needs=("torch",)),
    Task(9, "tests", "the tests that need a GPU", 50, "tests:run", needs=("pytest",)),
    Task(10, "torch-graph", "an epoch by PyTorch's CUDA graphs of 1 and 50 steps", 15, "torch_epochs:graph",
         needs=("torch",)),
    Task(10, "torch-eager", "300 steps of PyTorch without a graph", 10, "torch_epochs:eager", needs=("torch",)),
    Task(10, "torch-vmap", "132 networks by torch.func.vmap", 15, "torch_epochs:many", needs=("torch",)),
    Task(10, "torch-autotune", "steps compiled with max-autotune", 40, "torch_epochs:autotune", needs=("torch",)),
)  # fmt: skip

_BY_MEMCHECK = "memcheck rehearses the program, and the tests run the kernel's CPU emulation under GCC's sanitizers"
# Every rehearsal skips these tasks. The values are the reasons.
NOT_REHEARSED = {
    "racecheck": _BY_MEMCHECK,
    "synccheck": _BY_MEMCHECK,
    "ceilings-loops": "the loops are GPU code",
}
# A rehearsal runs the examined programs without these tools. The values are the reasons.
TOOLS_OF_A_GPU = {
    "compute-sanitizer": "it examines only GPU code",
    "ncu": "it reads the counters of a GPU; the rehearsal parses a sample of its output",
}
# A rehearsal skips the tasks that need one of these packages, if it is missing. The values are the reasons.
MAY_LACK = {"torch": "PyTorch for the CPU does not exist for every version of Python"}


class UnknownTaskError(Exception):
    """A name that is neither a task nor the number of a step."""


def chosen(names: Iterable[str]) -> list[Task]:
    """Return the tasks of these names or step numbers in the order of the plan, or all tasks if no name is given."""
    wanted = set(names)
    known = {task.name for task in TASKS} | {str(task.step) for task in TASKS}
    if unknown := sorted(wanted - known):
        raise UnknownTaskError(
            f"device: expected --only with a step from 0 to {TASKS[-1].step} or the name of a task, "
            f"got {', '.join(unknown)}.\nTasks: {', '.join(task.name for task in TASKS)}."
        )
    return [task for task in TASKS if not wanted or task.name in wanted or str(task.step) in wanted]
