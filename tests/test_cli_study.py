"""alexnet --help of every command; summary and verify."""

import numpy as np
import pytest
import typer
from command_line import fails, run, run_json

import alexnet_np as anp
from alexnet_np.cli.app import app


def commands(group, *path):
    for name, command in group.commands.items():
        yield (*path, name)
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)


@pytest.mark.parametrize("path", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_every_command_has_help(path):
    said = run(*path, "--help").stdout
    assert f"Usage: alexnet {' '.join(path)}" in said
    assert "Example" in said
    if path not in (("weights",), ("bench",)):  # which only hold commands
        assert "--json" in said


@pytest.mark.parametrize("width", [60, 80])
def test_help_wraps_well(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for path in commands(typer.main.get_command(app)):
        said = run(*path, "--help").stdout
        assert max(map(len, said.splitlines())) <= width
        assert said.count("<bool>") <= 1  # of --help itself
        after = said.split("Examples:")[1].splitlines()[1]
        assert after.startswith((" $ alexnet ", " $ curl "))


def test_version_and_help():
    assert run("--version").stdout == f"alexnet-np {anp.__version__}\n"
    assert "demo" in run("-h").stdout
    assert "no such command 'nonsense'" in run("nonsense", code=2).stderr
    assert "no such option: --nonsense" in run("summary", "--nonsense", code=2).stderr


def test_summary():
    found = run_json("summary", "--preset", "d2l", "--width", 0.125)
    assert found["parameters"] == 737_506
    assert found["layers"][0]["output_shape"] == [1, 12, 54, 54]
    said = run("summary", "--preset", "d2l", "--width", 0.125, "--batch-size", 2).stdout
    assert "737,506" in said
    assert "2×12×54×54" in said
    assert "the smallest input is 63x63" in fails("summary", "--width", 0.1, "--size", 20)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_verify_agrees(dtype):
    options = "--width", 0.1, "--size", 80, "--dtype", dtype, "--preset", "paper"
    found = run_json("verify", *options)
    assert found["ok"] is True
    assert found["first_divergence"] is None
    assert found["dtype"] == dtype
    assert [layer["name"] for layer in found["layers"]][:3] == ["features.0", "features.1", "features.2"]
    assert len(found["net"]) == 2 + 16
    said = run("verify", *options).stdout
    assert "Agrees with torch" in said
    assert "features.2" in said
    assert max(map(len, said.splitlines())) <= 120


def test_verify_names_the_first_layer_that_diverges(monkeypatch):
    norm = anp.ops.local_response_norm
    right = norm.gradients
    monkeypatch.setattr(norm, "gradients", lambda *arguments: right(*arguments) * np.float32(1.01))
    options = "verify", "--width", 0.1, "--size", 80, "--preset", "paper"
    result = run(*options, code=1)
    assert "✗" in result.stdout
    assert "Agrees" not in result.stdout
    assert result.stderr.count("\n") == 1
    assert "first at features.2 (LocalResponseNorm): dx is off by 1.0e-2" in result.stderr
    found = run_json(*options, code=1)
    assert (found["ok"], found["first_divergence"]) == (False, "features.2")


def test_verify_names_a_divergence_end_to_end(monkeypatch):
    right = anp.models.AlexNet.__call__
    monkeypatch.setattr(anp.models.AlexNet, "__call__", lambda self, x: right(self, x) * np.float32(2))
    result = run("verify", "--width", 0.1, "--size", 80, code=1)
    assert "by itself, but not end to end: logits is off by 1.0e0" in result.stderr
