"""Every command on terminals of 60, 80 and 120 columns: no number is cut, no verdict is lost, nothing is glued."""

import io
import re
import shlex
import shutil
import sys
from importlib.resources import as_file, files

import numpy as np
import pytest
from pseudo_terminal import drawn, screen, typed
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np.cli import show
from alexnet_np.cli.app import app

WIDTHS = 60, 80, 120
NUMBER = re.compile(r"(?<![\w.,/-])-?\d[\d,.]*(?:e-?\d+)?(?:[%×]\d*)*")
TINY = shlex.split("--dataset synthetic --limit 16 --image-size 67 --width 0.03125 --backend numpy")
SMALL = "--width", 0.05, "--size", 67


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a narrow network's file, a finished run, a picture, and some in two classes."""
    folder = tmp_path_factory.mktemp("place")
    with as_file(files("alexnet_np") / "assets" / "cat.jpg") as cat:
        for name in ("cat.jpg", *(f"pics/{tree}/{i}.jpg" for tree in ("ash", "elm") for i in range(3))):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(cat, folder / name)
    np.savez(folder / "narrow.npz", **anp.alexnet("torchvision", width=1 / 16, seed=0).state_dict())
    tiny = [*TINY, "-b", "8", "--epochs", "1"]
    done = CliRunner().invoke(app, ["train", "--out", str(folder / "run"), *tiny])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(autouse=True)
def inside(place, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("ALEXNET_NP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))


STEADY = {  # whose numbers are the same each time
    "summary": ["summary", "--preset", "paper", "--width", 0.25, "--batch-size", 4000],
    "walk": ["walk", "--width", 0.1],
    "verify": ["verify", *SMALL, "--preset", "paper"],
    "verify float64": ["verify", *SMALL, "--dtype", "float64"],
    "explain": ["explain", "--garment", 0, "--layer", "features.3", "--at", "3,5,5"],
    "explain pool": ["explain", "--garment", 0, "--layer", "features.2", "--at", "3,5,5"],
    "attribute": ["attribute", "--garment", 0, "-m", "saliency", "-m", "grad_cam", "-o", "boot.png"],
    "classify": ["classify", "cat.jpg", "-w", "narrow.npz", "--backend", "numpy"],
    "classify one label": ["classify", "pics", "-k", 1, "-w", "narrow.npz", "--backend", "numpy"],
    "embed": ["embed", "pics", "--out", "v.npz", "-w", "narrow.npz", "--backend", "numpy"],
    "similar": ["similar", "cat.jpg", "pics", "-w", "narrow.npz", "--backend", "numpy", "--index", "i.safetensors"],
    "lpips": ["lpips", "cat.jpg", "pics/elm/1.jpg", "-w", "random"],
    "filters": ["filters", "-w", "narrow.npz", "-l", "features.3"],
    "patches": [
        "patches",
        "pics",
        "-l",
        "features.0",
        "-u",
        "0-3",
        "-w",
        "narrow.npz",
        "--backend",
        "numpy",
        "-o",
        "p.png",
    ],
    "compare": ["compare", "narrow.npz", "narrow.npz"],
    "plan-cluster": ["plan-cluster"],
    "recipes": ["train", "--recipe", "help", "--out", "unused"],
    "explore": ["explore", "--garment", 0, "--out", "page.html"],
    "bench versions": ["bench", "versions"],
    "weights convert": ["weights", "convert", "narrow.npz", "same.safetensors"],
    "weights list": ["weights", "list"],
    "weights inspect": ["weights", "inspect", "narrow.npz"],
    "evaluate": ["evaluate", "run"],
}


@pytest.mark.parametrize("arguments", STEADY.values(), ids=STEADY)
def test_no_number_is_cut_and_no_verdict_lost(arguments, monkeypatch):
    whole, _ = screen(monkeypatch, 240, *arguments)
    numbers = set(NUMBER.findall("\n".join(whole)))
    verdicts = sum(line.count("✓") for line in whole)
    assert numbers
    for width in WIDTHS:
        lines, code = screen(monkeypatch, width, *arguments)
        text = "\n".join(lines)
        assert code == 0, text
        assert max(map(len, lines)) <= width
        assert "…" not in text
        assert set(NUMBER.findall(text)) <= numbers, set(NUMBER.findall(text)) - numbers
        assert sum(line.count("✓") for line in lines) == verdicts
        for line in whole[-1:]:  # what it comes to
            assert set(NUMBER.findall(line)) <= set(NUMBER.findall(text))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["torchvision", "paper", "d2l"])
def test_no_number_of_a_full_network_is_cut(preset, monkeypatch):
    test_no_number_is_cut_and_no_verdict_lost(["summary", "--preset", preset, "--batch-size", 128], monkeypatch)


@pytest.mark.parametrize("width", WIDTHS)
def test_demo_shows_every_layer_time_and_verdict(width, monkeypatch):
    lines, code = screen(monkeypatch, width, "demo", "--weights", "narrow.npz")
    text = "\n".join(lines)
    assert code == 0, text
    assert max(map(len, lines)) <= width and "…" not in text
    rows = [line.split() for line in lines if line.startswith(("features.", "classifier."))]
    assert len(rows) == 20
    assert all(any(re.fullmatch(r"\d+\.\d\d", cell) for cell in row) for row in rows)  # its time
    assert text.count("✓") + text.count("✗") == 20
    assert len(re.findall(r"\d+\.\d%", text)) >= 25  # top 5, and how sure it is of twenty garments
    assert re.search(r"one image in \d+\.\d\d ms: \d+\.\d images/s", text)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_lines_of_training_stand_by_themselves(width, monkeypatch, tmp_path):
    tiny = [*TINY, "-b", "4", "--epochs", "2"]
    lines, code = screen(monkeypatch, width, "train", "--out", tmp_path / "run", *tiny, "--validation-limit", 2)
    assert code == 0, lines
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert [line[:9] for line in lines if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert "━" not in text and "\x1b" not in text  # nothing is left of the bar
    joined = " ".join(text.split())
    assert len(re.findall(r"validation: loss \d\.\d{4}, accuracy \d+\.\d\d%", joined)) == 2
    assert len(re.findall(r"\d+ images/s, \d+\.\d% of the time waiting for data", joined)) == 2


@pytest.mark.parametrize("width", WIDTHS)
def test_finetune_curves_and_ablate_break_no_number_and_no_name(width, monkeypatch):
    tiny = ["--epochs", 1, "--backend", "numpy", "-b", 3]
    out = f"a-folder-of-a-long-name-for-{width}"
    lines, code = screen(monkeypatch, width, "finetune", "pics", "-o", out, "--weights", "narrow.npz", *tiny)
    assert code == 0, lines
    text = "\n".join(lines)
    assert re.search(r"^epoch 1/1  training: loss \d\.\d{4}, accuracy \d+\.\d\d%", text)
    assert re.search(r"^ *\d+ images/s, \d+\.\d% of the time waiting for data$|  \d+ images/s", text, re.M)
    said = [words for line in lines for words in line.split()]
    assert f"{out}/weights.safetensors" in said and f"{out}/curves.png" in said
    assert screen(monkeypatch, width, "curves", out, "--out", "c.png") == (["c.png", ""], 0)
    given = ["--preset", "paper", "-o", "ablated", *TINY, "--epochs", 1]
    lines, code = screen(monkeypatch, width, "ablate", "lrn", *given)
    assert code == 0, lines
    figures = r"epoch 1/1  (with|without) LRN: loss \d\.\d{4}, accuracy \d+\.\d\d%"
    assert [bool(re.fullmatch(figures, line)) for line in lines[:2]] == [True, True]
    assert lines[2:4] == ["ablated/lrn.png", "ablated/lrn.jsonl"]


def test_what_is_said_breaks_between_words(monkeypatch):
    """And is one line where it does not go to a terminal."""
    wrong = ["classify", "cat.jpg", "--weights", "nowhere.pth"]
    lines, code = screen(monkeypatch, 60, *wrong)
    assert code == 1 and len([line for line in lines if line]) > 1 and max(map(len, lines)) <= 60
    piped = CliRunner().invoke(app, wrong)
    assert " ".join(line for line in lines if line) == piped.stderr.strip()
    assert piped.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_bench_shows_every_time_and_ratio(width, monkeypatch):
    lines, code = screen(monkeypatch, width, "bench", "kernels", "--op", "relu", "--rounds", 3)
    assert code == 0, lines
    assert max(map(len, lines)) <= width and "…" not in "\n".join(lines)
    rows = [line.split() for line in lines if line.startswith(("  numpy", "  numba", "  torch"))]
    assert len(rows) == 8
    assert all(len([cell for cell in row if re.fullmatch(r"[\d,]+\.\d+", cell)]) >= 3 for row in rows)


def test_no_colour_where_none_is_wanted(monkeypatch):
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9][0-9;]*m")
    coloured, code = typed(monkeypatch, 80, "verify", *SMALL)
    assert code == 0 and colour.search(coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    plain, code = typed(monkeypatch, 80, "verify", *SMALL)
    assert code == 0 and not colour.search(plain) and "✓" in plain


def test_a_code_page_without_bars_and_ticks(monkeypatch):
    piped = io.TextIOWrapper(io.BytesIO(), "cp1252", errors="alexnet.plainly")
    monkeypatch.setattr(sys, "stdout", piped)
    print(show.bar(0.5, 8), "✓✗ 1×2·3 − \u2603 ▌")
    show.console().print(show.verdict(True))
    piped.flush()
    assert piped.buffer.getvalue().decode("cp1252").split("\n")[:2] == ["####     +X 1×2·3 - \\u2603 #", "+"]


def test_a_table_gives_up_its_columns_in_turn(monkeypatch):
    table = show.table("name", "type", ">first", ">second", spare=["type", "second"], folds=["name"])
    table.add_row("a name of many words", "kind of thing", "1,234,567", "7,654,321")
    for width, heads in (
        (80, "name type first second"),
        (45, "name first second"),
        (35, "name first"),
        (24, "name first"),
    ):
        console = show.Console(width=width, file=io.StringIO())
        console.print(table)
        said = console.file.getvalue()
        assert said.splitlines()[0].split() == heads.split()
        assert "1,234,567" in said and max(map(len, said.splitlines())) <= width


def test_pieces_are_left_out_or_moved_whole():
    pieces = ["epoch 1/2", "loss 2.3000", "accuracy 10.00%"]
    assert show.fitting(pieces, 25) == "epoch 1/2  loss 2.3000"
    assert show.fitting(pieces, 3) == "epoch 1/2"
    assert show.in_lines(pieces, 25) == "epoch 1/2  loss 2.3000\n  accuracy 10.00%"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "run"], "stopped: 0 of 3 images were seen; nothing is kept"),
        (["verify", *SMALL], "stopped: every layer would have been compared; nothing is kept"),
        (["walk", "--width", 0.1], "stopped; nothing was written"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_ctrl_c_says_what_is_kept(arguments, said, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    for name in ("evaluate.from_logits", "study.compare", "study.walk_through"):
        monkeypatch.setattr(f"alexnet_np.cli.{name}", interrupted)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", f"alexnet: {said}\n")


def test_the_terminal_of_these_tests():
    assert drawn("abc\rx\n12345678", 4) == ["xbc", "1234", "5678"]
    assert drawn("bar\x1b[2K\rdone\nbar\r\x1b[2K\x1b[1A\x1b[2Kend", 80)[0] == "end"


def test_a_notebook_shows_every_number():
    model = anp.alexnet("torchvision", width=1 / 16, seed=0).eval()
    made = anp.summary(model)
    shown = made._repr_html_()
    assert shown.count("<tr>") == len(made.layers) + 3
    assert f"{made.parameters:,}" in shown and f"{made.macs:,}" in shown and "nowrap" in shown
    report = anp.study.verify.verify(model, np.zeros((1, 3, 67, 67), "float32"))
    assert report._repr_html_().count("✓") == sum(len(layer.comparisons) for layer in report.layers) + len(report.net)
    assert "agrees with torch" in report._repr_html_()


def test_a_notebook_shows_a_plan_line_by_line():
    from alexnet_np.plan.base import InferencePlan

    class Two(InferencePlan):
        def __init__(self):
            pass

        def __repr__(self):
            return "a <plan>\n  step"

    assert Two()._repr_html_() == '<pre style="white-space:pre;overflow-x:auto">a &lt;plan&gt;\n  step</pre>'


def test_the_shell_completes_commands(monkeypatch):
    monkeypatch.setenv("_ALEXNET_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "alexnet wei")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert CliRunner().invoke(app, [], prog_name="alexnet").output.split() == ["weights"]
