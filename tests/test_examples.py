"""The scripts in examples/ run in a small setting, draw their pictures, and have a place on their page."""

import runpy
import sys

import pages
import pytest

FOLDER = pages.ROOT / "examples"
# The options of a run that takes seconds, and a word of its output.
SMALL = {
    "edge_of_stability": ("--data digits --images 40 --steps 4 --every 2", "tanh, η = 0.1: λ_max / (2/η) is"),
    "initialization": ("--data digits --hidden 5 --epochs 1", "5 hidden neurons, scaled"),
    # The output of the neuron after 50 epochs, from a loop in NumPy.
    "learning_slowdown": ("--epochs 50", "cross_entropy   w = 2, b = 2: output 0.9820, at the end 0.0985"),
    "regularization": ("--data digits --images 60 --epochs 2", "λ = 0.1: test cost lowest at epoch"),
}


def test_every_script_has_a_small_setting_and_a_picture_on_the_page():
    scripts = {path.stem for path in FOLDER.glob("*.py")}
    assert scripts == set(SMALL)
    links = pages.links((FOLDER / "README.md").read_text(encoding="utf-8"))
    assert {f"{name}.py" for name in scripts} | {f"{name.replace('_', '-')}.png" for name in scripts} == set(links)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_script_runs_and_draws(name, tmp_path, monkeypatch, capsys):
    options, word = SMALL[name]
    monkeypatch.setattr(sys, "argv", [name, *options.split(), "--picture", str(tmp_path / "picture.png")])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert word in capsys.readouterr().out
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
