"""Each script in examples/ runs with small settings, draws its picture, and is on both pages of examples."""

import contextlib
import runpy
import sys

import jax
import matplotlib.pyplot as plt
import pages
import pytest

FOLDER = pages.ROOT / "examples"
# For each script: options for a run of a few seconds, and a part of the output.
SMALL = {
    # scipy.optimize.nnls finds the same cost and the same amplitude.
    "bounds": ("", "amplitudes of 0 or more: GRADIENT, C = 0.0101, largest 1.84"),
    "custom_vjp": ("", "without 1/n: wrong. the whole leaf is 8 times too large"),
    "distributed": ("--epochs 3", "2 processes: C ="),
    "edge_of_stability": ("--data digits --images 40 --steps 4 --every 2", "tanh, η = 0.1: λ_max / (2/η) is"),
    "eta_sweep": ("--data digits --hidden 5 --eta 1 --seeds 2 --epochs 1", "64-5-10, η = 1: median"),
    "hyper_gradients": ("--points 3 --steps 2", "after 2 updates: validation cost"),
    "initialization": ("--data digits --hidden 5 --epochs 1", "5 hidden neurons, scaled"),
    "landscape": ("--images 40 --epochs 1 --resolution 3", "eigenvectors: curvature along u"),
    # A loop in NumPy gives the same outputs after 50 epochs.
    "learning_slowdown": ("--epochs 50", "cross_entropy   w = 2, b = 2: output 0.9820, at the end 0.0985"),
    "mnist": ("--epochs 1", "of 300 test images after 1 epochs"),
    "regularization": ("--data digits --images 60 --epochs 2", "λ = 0.1: test cost lowest at epoch"),
    "straight_through": ("--steps 3", "with the identity: right"),
    "valley": ("--steps 60", "L-BFGS          :     36 updates,     46 evaluations"),
}


@pytest.mark.parametrize("page", ["examples/README.md", "docs/gallery.md"])
def test_every_script_has_a_small_setting_and_a_picture_on_the_page(page):
    scripts = {path.stem for path in FOLDER.glob("*.py")}
    assert scripts == set(SMALL)
    links = {link.rpartition("/")[2] for link in pages.links((pages.ROOT / page).read_text(encoding="utf-8"))}
    assert {f"{name}.py" for name in scripts} | {f"{name.replace('_', '-')}.png" for name in scripts} <= links


@pytest.fixture
def settings_of_jax():
    """Restore jax_enable_x64, which some scripts change."""
    x64 = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", x64)


@pytest.mark.slow
@pytest.mark.usefixtures("settings_of_jax")
@pytest.mark.parametrize("name", SMALL)
def test_a_script_runs_and_draws(name, tmp_path, monkeypatch, capfd):
    options, word = SMALL[name]
    script = str(FOLDER / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [script, *options.split(), "--picture", str(tmp_path / "picture.png")])
    with contextlib.suppress(SystemExit):  # A script that starts processes raises SystemExit.
        runpy.run_path(script, run_name="__main__")
    assert word in capfd.readouterr().out
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    plt.close("all")
