"""The result of one attack, and the rows that count the results."""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.rows import Row

# A row lists at most this many failures, and each failure has at most this many characters.
_EXAMPLES, _LONGEST = 10, 400


class Attack(NamedTuple):
    """One attack and its result.

    Attributes:
        target: The place of the attack, such as "network.safetensors" or "few files". Each target has its own row.
        kind: The kind of the result, such as "refused". A row counts the attacks of each kind.
        succeeded: True if jaxgd failed, for instance by a wrong value, a lost run, a raw exception, a hang or a death.
        about: The attack in words, with the details to repeat it.
        group: A heading under which a row counts the accepted command lines or calls. Empty for any other attack.
    """

    target: str
    kind: str
    succeeded: bool
    about: str
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Options:
    """The settings of a campaign.

    Attributes:
        count: Number of attacks per family. The family flips makes this number in each of seven places, and the
            family pictures for each format. The family kills may make a few more. The family limits makes at most five
            attacks with each limit.
        seed: Seed of all random choices.
        work: An empty folder for runs, damaged files and compiled programs.
        data_dir: Folder of MNIST, for the family kills. None to use digits only.
        jobs: Number of processes at a time.
    """

    count: int
    seed: int
    work: Path
    data_dir: Path | None = None
    jobs: int = 2


Family = Callable[[Options], Iterable[Attack]]


def rows(family: str, attacks: Iterable[Attack], options: Options) -> Iterator[Row]:
    """Yield one row per target, without the fields about the host. The value is the number of successful attacks."""
    began = time.monotonic()
    targets: dict[str, list[Attack]] = collections.defaultdict(list)
    for attack in attacks:
        targets[attack.target].append(attack)
    seconds = round(time.monotonic() - began, 1)
    for target, mine in sorted(targets.items()):
        failures = [f"{x.kind}: {x.about}"[:_LONGEST] for x in mine if x.succeeded]
        groups = collections.Counter(attack.group for attack in mine if attack.group)
        details: dict[str, object] = {
            "kinds": dict(collections.Counter(attack.kind for attack in mine).most_common()),
            "seed": options.seed,
            "data": "digits" if options.data_dir is None else "digits and MNIST",
            "seconds of the family": seconds,
        }
        details |= {"accepted": dict(groups.most_common())} if groups else {}
        details |= {"failures": failures[:_EXAMPLES]} if failures else {}
        yield Row(
            case=f"{family}/{target}", variant="jaxgd", quantity="succeeded", value=len(failures), unit="attacks",
            n=len(mine), precision="float32", details=details,
        )  # fmt: skip


def summary(found: Iterable[Row]) -> str:
    """Return the table of a campaign: one line per target, and the failures below it."""
    lines = [("attacked", "attacks", "succeeded", "results")]
    below = []
    for row in found:
        kinds = ", ".join(f"{count} {kind}" for kind, count in row.details["kinds"].items())
        lines.append((row.case, str(row.n), str(row.value), kinds))
        below += [f"{row.case}: {failure}" for failure in row.details.get("failures", ())]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    table = [f"{a:{widths[0]}}  {n:>{widths[1]}}  {s:>{widths[2]}}  {kinds}" for a, n, s, kinds in lines]
    return "\n".join([*table, *([""] if below else []), *below])
