"""Failpoints: a hook on Python's audit events ends the process at or after a chosen event.

jaxgd contains no code for this. Python raises an audit event before the operation. A failpoint has one of four moments:

- `before` ends the process at the event.
- `after` ends it at the next event of any kind.
- `during` limits the size of files. Linux ends the process when a write crosses the limit, so the file holds a part of
  the content. The limit also applies to the threads of C++ libraries.
- `later` ends the process after a delay.
"""

import os
import random
import resource
import signal
import sys
import threading
from typing import NamedTuple

# Events that change a file or a folder, with the number of leading arguments that are paths. The event "open"
# counts only if it opens the file for writing.
_PATHS = {"open": 1, "os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.chmod": 1, "os.rename": 2}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Failpoint(NamedTuple):
    """A moment of one run at which its process ends.

    Attributes:
        moment: "before", "during", "after" or "later".
        event: Prefix of the name of an audit event.
        path: Text that a path of the event contains, such as the name of the file.
        occurrence: The failpoint acts at the matching event with this number, counted from 1 in each process.
        size: Bytes that `during` allows beyond the present size of the file.
        delay: Seconds that `later` waits.
    """

    moment: str
    event: str
    path: str
    occurrence: int = 1
    size: int = 0
    delay: float = 0.0

    def __str__(self) -> str:
        words = f"{self.moment} {self.event or 'change'} {self.occurrence} of {self.path}"
        return words + {"during": f", {self.size} bytes", "later": f", {self.delay:.3f} s"}.get(self.moment, "")

    def install(self) -> None:
        """Arm the failpoint in this process, which must be a child process."""
        # Python ignores SIGXFSZ, so that a write beyond the limit raises OSError. The default action ends the process.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        seen = 0
        armed = False

        def hook(event: str, args: tuple[object, ...]) -> None:
            nonlocal seen, armed
            if armed:
                if self.moment == "after" and event != "os.kill":
                    die()
                return
            if not event.startswith(self.event) or not self._concerns(event, args):
                return
            seen += 1
            if seen < self.occurrence:
                return
            armed = True
            if self.moment == "before":
                die()
            if self.moment == "during":
                present = _size(args[0])
                resource.setrlimit(resource.RLIMIT_FSIZE, (present + self.size, resource.RLIM_INFINITY))
            if self.moment == "later":
                threading.Thread(target=_wait_and_die, args=(self.delay,), daemon=True).start()

        sys.addaudithook(hook)

    def _concerns(self, event: str, args: tuple[object, ...]) -> bool:
        count = _PATHS.get(event, 0)
        if event == "open" and not (isinstance(args[2], int) and args[2] & _WRITING):
            return False
        return any(self.path in os.fsdecode(x) for x in args[:count] if isinstance(x, str | bytes))


# Each kind of file: a part of its path, the approximate bytes of one write, and the number of writes to choose from.
_FILES = {
    "configuration": ("config.json", 900, 1),
    "metrics": ("metrics.jsonl", 200, 3),
    "network": ("network.safetensors", 9000, 2),
}
# Pairs of a phase and a moment. A phase is the writing of one kind of file. In the phase "anywhere", the parent
# process sends SIGKILL at a random time. The moment "renaming" is just before or just after a temporary file gets its
# final name.
PHASES = (
    *((phase, moment) for phase in _FILES for moment in ("before", "during", "after", "renaming")),
    *(("checkpoint", moment) for moment in ("before", "during", "after", "later")),
    *(("events", moment) for moment in ("before", "during", "later")),
    ("anywhere", "later"),
)


def draw(phase: str, moment: str, rng: random.Random) -> Failpoint:
    """Return a random failpoint of a phase and moment."""
    if phase == "checkpoint":
        # Python raises about 20 such events per checkpoint, and none for the writes of C++ threads.
        most = 20 if moment in ("before", "after") else 5
        size, delay = int(2 ** rng.uniform(4, 15)), rng.uniform(0, 0.15)
        return Failpoint(moment, "", "checkpoints", rng.randint(1, most), size, delay)
    if phase == "events":
        # The run opens the file once, and writes to it until its end.
        return Failpoint(moment, "open", "tfevents", size=rng.randrange(2000), delay=rng.uniform(0, 0.6))
    path, size, most = _FILES[phase]
    if moment == "renaming":
        return Failpoint(rng.choice(("before", "after")), "os.rename", path, rng.randint(1, most))
    return Failpoint(moment, "open", path, rng.randint(1, most), rng.randrange(size))


def _size(path: object) -> int:
    try:
        return os.stat(path).st_size if isinstance(path, str | bytes | int) else 0
    except OSError:
        return 0


def _wait_and_die(delay: float) -> None:
    threading.Event().wait(delay)
    die()


def die() -> None:
    """End this process at once, as SIGKILL from outside does."""
    os.kill(os.getpid(), signal.SIGKILL)
