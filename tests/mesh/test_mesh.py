"""Results on several devices and in several processes equal those of one device up to rounding."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import jaxgd

HERE = Path(__file__).parent
# The child processes import the same jaxgd as this test.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(jaxgd.__file__).parents[1])}
# The largest allowed `difference` of costs, and of other values. In float32, costs differ by a few roundings of 6e-8.
ROUNDING = {"cost": 1e-6, "": 1e-5}

ERRORS = {
    "error axis": r"RangeError: place: axis must be an axis of the mesh \('d'\), got 'e'",
    "error pad": r"ShapeError: place: 41 examples cannot be divided evenly among 4 devices",
    "error mesh": r"DtypeError: place: mesh must be a jax.sharding.Mesh, got int",
    "error nan": r"DataError: train: the train inputs have NaN or infinite values",
    "error lengths": r"ShapeError: place: expected one label or target for each input",
    "error pmean": r"RangeError: minimize: inside jax.shard_map, the cost must be equal on all devices .*pmean",
}


def on_four_devices(group):
    words = [sys.executable, HERE / "devices.py", group]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(results):
    """Check the results by their names and values, and return them."""
    wrong = {}
    for name, value in results.items():
        if name in ERRORS:
            right = re.search(ERRORS[name], value, re.DOTALL)
        elif name.endswith("collectives"):
            right = value == "0"
        elif value in ("True", "False"):
            right = value == "True"
        elif name.endswith("check"):
            right = value == "right"
        elif name.endswith(("backend", "divided")):
            right = value in ("xla", "P(None, 'd')")
        else:
            right = float(value) <= ROUNDING["cost" * name.endswith("cost")]
        if not right:
            wrong[name] = value
    assert not wrong
    return results


def test_four_devices_give_the_results_of_one_device():
    assert len(check(on_four_devices("quick"))) == 11


@pytest.mark.slow
@pytest.mark.parametrize(("group", "least"), [("placed", 15), ("batch", 13), ("descents", 17)])
def test_every_kind_of_mesh_gives_the_results_of_one_device(group, least):
    assert len(check(on_four_devices(group))) >= least


def in_processes(script, count, *words, **environment):
    """Run a script in the processes of one job. Return the exit code, stdout and stderr of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"JAXGD_COORDINATOR": f"127.0.0.1:{port}", "JAXGD_PROCESSES": str(count), "JAXGD_HEARTBEAT": "10"}
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, script), *map(str, words)],
            env={**ENVIRONMENT, **job, **environment, "JAXGD_PROCESS": str(i)},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
        )
        for i in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_give_the_results_of_one_device(count, tmp_path):
    """All processes get the same results. A time limit stops them at the same update, by the clock of process 0."""
    ends = in_processes([HERE / "processes.py"], count, tmp_path)
    assert [code for code, *_ in ends] == [0] * count, ends[0][2][-3000:]
    results = [json.loads(out.splitlines()[-1]) for _, out, _ in ends]
    assert all(result == results[0] for result in results)
    assert len(check(results[0])) >= 9
