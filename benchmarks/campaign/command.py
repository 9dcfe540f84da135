"""`python -m benchmarks campaign`: attack jaxgd, and count the attacks that succeed."""

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.store import FOLDER, replace

RESULTS = FOLDER / "campaign.jsonl"


@dataclasses.dataclass(frozen=True)
class Campaign:
    """Attack jaxgd, and print the results of the attacks. The exit status is 1 if any attack succeeded.

    Families: kills, flips, commands, calls, pictures, limits.
    """

    families: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Families of attacks. By default all."""
    count: int = 1000
    """Attacks per family. The family flips makes this number in each of seven places, and pictures for each format. The
    family kills may make a few more. The family limits makes at most five attacks with each limit."""
    seed: int = 0
    """Seed of all random choices."""
    data_dir: Path | None = None
    """Folder of MNIST, for the family kills. By default, kills uses digits only."""
    jobs: int = 2
    """Number of processes at a time."""
    out: Path | None = RESULTS
    """File of results. New rows replace the rows of the same targets. `--out None` stores nothing."""
    keep: bool = False
    """Keep the work folder."""

    def run(self) -> int:
        """Make the attacks, print and store the counts, and return the exit status."""
        from benchmarks.campaign import FAMILIES
        from benchmarks.campaign.attack import Options, rows, summary
        from benchmarks.campaign.children import prepare

        if unknown := set(self.families) - set(FAMILIES):
            print(
                f"campaign: expected families from {', '.join(FAMILIES)}, got {', '.join(sorted(unknown))}.",
                file=sys.stderr,
            )
            return 2
        for name in ("count", "jobs"):
            if getattr(self, name) < 1:
                print(f"campaign: expected --{name} to be at least 1, got {getattr(self, name)}.", file=sys.stderr)
                return 2
        work = Path(tempfile.mkdtemp(prefix="jaxgd-campaign-"))
        data_dir = self.data_dir and self.data_dir.expanduser().absolute()
        options = Options(self.count, self.seed, work, data_dir, self.jobs)
        prepare(work / "programs")
        found = [row for name in self.families or FAMILIES for row in rows(name, FAMILIES[name](options), options)]
        print(summary(found))
        if self.out is not None:
            from benchmarks.hardware import stamp

            about = stamp()
            replace(self.out, [dataclasses.replace(row, **about) for row in found])
        if not self.keep:
            import shutil

            shutil.rmtree(work, ignore_errors=True)
        else:
            print(f"work folder: {work}")
        return 1 if any(row.value for row in found) else 0
