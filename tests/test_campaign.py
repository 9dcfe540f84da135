"""The campaign counts a planted fault as a successful attack, and its tables cover all options and public functions.

A process that has made an array must not fork, so each campaign runs in a process of its own.
"""

import inspect
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import jaxgd
from benchmarks.campaign import FAMILIES, attack, calls, commands, failpoints, options, pictures, values

ROOT = Path(__file__).parents[1]


def python(code, folder):
    """Run the code in a new process, and return its last line of output, parsed as JSON."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
    }
    command = [sys.executable, "-c", inspect.cleandoc(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


# Failpoints, isolated attacks and rows.


def test_a_failpoint_ends_the_process_before_during_and_after_a_write(tmp_path):
    """Only `during` leaves a part of the content.

    The file is opened once, so a failpoint at the second open has no effect.
    """
    code = """
        import json, os, time
        from pathlib import Path
        from benchmarks.campaign.children import Job, finish
        from benchmarks.campaign.failpoints import Failpoint

        def write():
            with open("target.bin", "ab") as file:
                file.write(bytes(20_000))
            os.rename("target.bin", "final.bin")
            os.listdir()  # the event at which "after os.rename" ends the process
            time.sleep(1 if slow else 0)
            return 0

        ends = []
        for number, (moment, event, occurrence) in enumerate((
            ("before", "open", 1), ("during", "open", 1), ("after", "open", 1), ("before", "os.rename", 1),
            ("after", "os.rename", 1), ("later", "open", 1), ("before", "open", 2),
        )):
            slow = moment == "later"
            point = Failpoint(moment, event, "target", occurrence, size=7_000, delay=0.1)
            folder = Path.cwd() / str(number)
            ending = finish(Job(lambda: (point.install(), write())[1], folder))
            ends.append([ending.status, {path.name: path.stat().st_size for path in folder.iterdir()}])
        print(json.dumps(ends))
    """
    kill, too_large = -9, -25
    assert python(code, tmp_path) == [
        [kill, {}],
        [too_large, {"target.bin": 7_000}],
        [kill, {"target.bin": 20_000}],
        [kill, {"target.bin": 20_000}],
        [kill, {"final.bin": 20_000}],
        [kill, {"final.bin": 20_000}],
        [0, {"final.bin": 20_000}],
    ]


def test_an_attack_that_hangs_or_dies_is_counted_and_the_others_go_on(tmp_path):
    code = """
        import json, os, time
        from pathlib import Path
        from benchmarks.campaign.attack import Attack, Options
        from benchmarks.campaign.play import Try, isolated

        def wait():
            while True:
                pass

        def fail():
            raise KeyError("lost")

        good = lambda: Attack("x", "refused", False, "")
        makes = [good, wait, good, os.abort, fail, good]
        tries = [Try("x", str(number), make) for number, make in enumerate(makes)]
        work = Path.cwd() / "work"
        print(json.dumps([end[1:3] for end in isolated(tries, work, Options(1, 0, work), limit=0.2)]))
    """
    good = ["refused", False]
    expected = [good, ["hang", True], good, ["died by SIGABRT", True], ["traceback", True], good]
    assert python(code, tmp_path) == expected


def test_rows_count_the_results_and_show_the_failures():
    made = [attack.Attack("a", "refused", False, ""), attack.Attack("a", "hang", True, "x"),
            attack.Attack("b", "accepted", False, "", "why")]  # fmt: skip
    a, b = attack.rows("calls", made, attack.Options(3, 7, Path()))
    assert (a.case, a.value, a.n, a.details["kinds"], a.details["failures"]) == (
        "calls/a", 1, 2, {"refused": 1, "hang": 1}, ["hang: x"],
    )  # fmt: skip
    assert (b.value, b.details["accepted"], b.details["seed"]) == (0, {"why": 1}, 7)
    assert "calls/a" in attack.summary([a, b])
    assert "calls/a: hang: x" in attack.summary([a, b])
    assert attack.summary([b]).count("\n") == 1


# The tables of options and arguments.


def test_every_option_of_every_command_is_attacked():
    assert {name: set(known) for name, known in options.OPTIONS.items()} == commands.fields()


def test_every_public_function_is_attacked():
    assert set(calls.arguments()) == set(values.good())
    assert {"train", "minimize", "check_gradients", "load_network"} <= set(values.good())
    for name, make in values.good().items():
        inspect.signature(inspect.unwrap(getattr(jaxgd, name))).bind(
            **make() if name != "check_gradients" else {"f": 0}
        )


@pytest.mark.parametrize(
    ("command", "given", "allowed"),
    [
        ("train", {"eta": "3"}, True), ("train", {"eta": "0"}, False), ("train", {"eta": "nan"}, False),
        ("train", {"eta": "1e39"}, False), ("train", {"eta": "half"}, False), ("train", {"epochs": "None"}, False),
        ("train", {"scheme": "None"}, True),
        ("train", {"epochs": "-1"}, False), ("train", {"seed": "4294967295"}, True),
        ("train", {"seed": "4294967296"}, False), ("train", {"batch_size": "full"}, True),
        ("train", {"batch_size": "1198"}, False), ("train", {"sizes": "64 20 10"}, True),
        ("train", {"sizes": "64 0 10"}, False), ("train", {"run_dir": "missing"}, False),
        ("train", {"kernel": "gpu"}, False), ("minimize", {"start": "1 2"}, True), ("minimize", {"start": "1"}, False),
        ("minimize", {"rtol": "inf"}, False), ("minimize", {"mu": "0"}, True), ("minimize", {"mu": "1"}, False),
        ("sweep", {"eta": "0.1 3"}, True), ("sweep", {"eta": "0.1 0"}, False), ("sweep", {"keep": "best 2"}, True),
        ("sweep", {"memory": "1.5GiB"}, True), ("sweep", {"memory": "1 GB"}, False), ("sweep", {"part": "2/1"}, False),
        ("evaluate", {"run_dir": "@run", "data_dir": "x"}, True), ("train", {"labels_from": "1"}, False),
        ("evaluate", {"split": "all"}, False), ("predict", {"images": "/etc/passwd"}, False),
    ],
)  # fmt: skip
def test_the_table_of_options_states_which_values_are_allowed(command, given, allowed):
    assert commands.Line(command, tuple(given.items()), "", "").allowed(Path("/files")) is allowed


def test_help_is_the_only_stray_word_that_is_allowed():
    assert commands.Line("info", (), "--help", "").allowed(Path())
    assert not commands.Line("info", (), "--foo", "").allowed(Path())


def test_equal_seeds_give_equal_attacks():
    def drawn(seed):
        rng = random.Random(seed)
        lines = [commands.generated(rng) for _ in range(20)]
        points = [failpoints.draw(*x, rng) for x in failpoints.PHASES if x[0] != "anywhere"]
        return lines, points, pictures.damaged(bytes(range(200)), rng.getrandbits(32))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


# The families, with and without a planted fault.


def campaign(folder, family, count, fault="", kind=None):
    """Return the kind and description of each successful attack, by target, and the number of attacks.

    The campaign ends after the first successful attack whose kind or description contains `kind`.
    """
    programs = folder.parent / "programs"
    plant = "\n".join(" " * 8 + line for line in inspect.cleandoc(fault).splitlines()).lstrip()
    code = f"""
        import collections, json
        from pathlib import Path
        from benchmarks.campaign import FAMILIES
        from benchmarks.campaign.attack import Options
        from benchmarks.campaign.children import prepare

        prepare(Path({str(programs)!r}))
        {plant}
        work = Path.cwd() / "work"
        work.mkdir()
        found, attacks = collections.defaultdict(list), 0
        for attacks, end in enumerate(FAMILIES[{family!r}](Options({count}, 0, work)), 1):
            if end.succeeded:
                found[end.target].append(end.kind + ": " + end.about)
                if {kind!r} and {kind!r} in found[end.target][-1]:
                    break
        print(json.dumps([found, attacks]))
    """
    return python(code, folder)


def test_an_attack_on_the_run_folder_acts_before_the_metrics_of_its_epoch(tmp_path):
    code = """
        import json
        from pathlib import Path
        from benchmarks.campaign.limits import _at_epoch
        from jaxgd.files import append
        path, seen = Path("metrics.jsonl"), []
        path.touch()
        _at_epoch(2, lambda: seen.append(path.read_text()))
        for epoch in range(4):
            append(path, str(epoch).encode())
        print(json.dumps(seen))
    """
    assert python(code, tmp_path) == ["01"]


SMALL = {"kills": 5, "flips": 3, "commands": 12, "calls": 25, "pictures": 2, "limits": 31}
PLANTED = {
    "a continued run that starts from other weights": (
        "kills", 5, "other bits", """
        import jax, jaxgd.cli.train as module
        restore = module.restore_checkpoint
        def moved(*args):
            state, entries = restore(*args)
            if state is not None:
                state = state._replace(network=jax.tree.map(lambda x: x + 1e-3, state.network))
            return state, entries
        module.restore_checkpoint = moved
        """),
    "a write that leaves a temporary file": (
        "kills", 20, "litter", """
        import os, jaxgd.run_folder as module
        save = module.save_network
        def leaving(path, network):
            left = Path(path).parent / f"left-{os.getpid()}"
            left.touch()
            save(path, network)
            left.unlink()
        module.save_network = leaving
        """),
    "a network read without a checksum": (
        "flips", 20, "accepted, other values", """
        import jaxgd, safetensors.numpy
        def load(path):
            tensors = safetensors.numpy.load(Path(path).read_bytes())
            return ((tensors["0.w"], tensors["0.b"]), (tensors["1.w"], tensors["1.b"]))
        jaxgd.load_network = load
        """),
    "a run that starts again without a message": (
        "flips", 3, "epochs lost", """
        import jaxgd.cli.train as module
        module.restore_checkpoint = lambda *args: (None, [])
        """),
    "a command that raises": (
        "commands", 80, "KeyError", """
        from jaxgd.cli import info
        def run(self, argv):
            raise KeyError("lost")
        info.Info.run = run
        """),
    "a command that accepts anything": (
        "commands", 40, "accepted, although OPTIONS does not allow it", """
        from jaxgd.cli import train
        train.Train.run = lambda self, argv: 0
        """),
    "a function that raises": (
        "calls", 100, "raw exception", """
        import inspect, jaxgd
        signature = inspect.signature(jaxgd.minimize)
        def minimize(*args, **kwargs):
            raise KeyError("lost")
        minimize.__signature__ = signature
        jaxgd.minimize = minimize
        """),
    "a picture whose reader returns 2 GiB": (
        "pictures", 1, "too much memory", """
        import numpy, jaxgd.data.image as module
        module.read_picture = lambda path: numpy.ones(2**31, numpy.uint8)
        """),
    "a picture whose reader raises": (
        "pictures", 1, "raw exception", """
        import jaxgd.data.image as module
        module.read_picture = lambda path: {}[path]
        """),
    "a failure with status 0": (
        "limits", 4, "status 0 without the result", """
        from jaxgd.cli import train
        run = train.Train.run
        def always(self, argv):
            try:
                return run(self, argv)
            except Exception:
                return 0
        train.Train.run = always
        """),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_jaxgd_withstands_a_small_campaign(family, tmp_path):
    found, attacks = campaign(tmp_path, family, SMALL[family])
    assert found == {}
    # Without the right to mount a file system, the family "limits" skips its two attacks with a read-only folder.
    assert attacks >= SMALL[family] - 2


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_counted(name, tmp_path):
    family, count, kind, fault = PLANTED[name]
    found, _ = campaign(tmp_path, family, count, fault, kind)
    assert any(kind in failure for failures in found.values() for failure in failures), found


@pytest.mark.slow
def test_the_exit_status_reports_a_successful_attack(tmp_path):
    code = """
        import sys
        from benchmarks.campaign.command import Campaign
        from benchmarks.campaign.children import prepare
        prepare(__import__("pathlib").Path.cwd() / "programs")
        import jaxgd.data.image as module
        whole = Campaign(("pictures",), count=1, out=None).run()
        module.read_picture = lambda path: {}[path]
        print([whole, Campaign(("pictures",), count=1, out=None).run(), Campaign(("pictureS",)).run()])
    """
    assert python(code, tmp_path) == [0, 1, 2]
