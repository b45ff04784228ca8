"""`alexnet train`, `finetune`, `evaluate`, `ablate` and `curves`, as they are typed."""

import json
import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np import ops
from alexnet_np.cli.app import app
from alexnet_np.identity import preprocess
from alexnet_np.training import checkpoint
from alexnet_np.training.checkpoint import Checkpoints
from alexnet_np.training.config import CHOICES, SYNTHETIC
from alexnet_np.training.evaluation import evaluate, log_probabilities, logits_of
from alexnet_np.training.metrics import read_events
from alexnet_np.training.pictures import POINTS, draw_confusion, running_means

TINY = shlex.split("--dataset synthetic --limit 20 --image-size 67 --width 0.03125 -b 8 --epochs 2 --backend numpy")
PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(*arguments):
    """The one line of a command that must fail."""
    result = run(*arguments)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1, result.output
    return result.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    result = run("train", "--out", out, *TINY)
    assert result.exit_code == 0, result.output
    return out, result.stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """train/ and val/ of two classes, dark and bright, as JPEGs."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for k, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 60, (260, 270 + i, 3)) + 180 * k
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{i}.jpg")
    return root


def test_train_leaves_everything_behind(trained):
    out, printed = trained
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoints",
        "curves.png",
        "metrics.jsonl",
        "weights.safetensors",
    ]
    assert (out / "curves.png").read_bytes().startswith(PNG)
    lines = printed.splitlines()
    assert lines[0].startswith("epoch 1/2") and lines[1].startswith("epoch 2/2") and "images/s" in lines[1]
    last = [e for e in read_events(out / "metrics.jsonl") if e["kind"] == "epoch"][-1]
    assert f"{last['accuracy']:.2%} of the validation images are right" in printed


def test_train_twice_into_one_folder(trained):
    assert "holds a run already; --resume it, or choose another --out" in fails("train", "--out", trained[0], *TINY)


def test_resume_with_what_it_was_begun_with(trained):
    assert run("train", "--out", trained[0], "--resume", *TINY).exit_code == 0
    assert "epochs was 2, not 1" in fails("train", "--out", trained[0], "--resume", "--epochs", 1)
    assert "no checkpoint here; start without --resume" in fails("train", "--out", "nowhere", "--resume")


@pytest.mark.parametrize(
    ("ending", "starts"), [("jpg", b"\xff\xd8"), ("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", PNG)]
)
def test_curves_in_the_format_of_the_ending_and_in_json(trained, tmp_path, ending, starts):
    found = json.loads(run("curves", trained[0], "--out", tmp_path / f"c.{ending}", "--json").stdout)
    assert (tmp_path / f"c.{ending}").read_bytes().startswith(starts)
    assert [event["epoch"] for event in found["runs"][str(trained[0])]] == [1, 2]


def test_validation_on_fewer_images(tmp_path):
    assert run("train", "--out", tmp_path / "a", *TINY, "--validation-limit", 2).exit_code == 0
    start = read_events(tmp_path / "a" / "metrics.jsonl")[0]
    assert (start["images"], start["validation_images"]) == (20, 2)


def test_json_for_machines(tmp_path):
    result = run("train", "--out", tmp_path / "a", *TINY, "--json")
    kinds = [json.loads(line)["kind"] for line in result.stdout.splitlines()]
    assert kinds == ["start", *["batch"] * 3, "epoch", *["batch"] * 3, "epoch", "end"]


def test_every_choice_is_explained_and_checked():
    text = run("train", "--help").stdout
    for name, choices in CHOICES.items():
        assert f"--{name.replace('_', '-')}" in text
        assert all(choice in text for choice in choices), name
    assert "augmentation must be one of none, mirror, crop, paper, krizhevsky145, got 'x'" in fails(
        "train", "--out", "x", "--augmentation", "x"
    )


def test_evaluate_a_run(trained, tmp_path):
    out, _ = trained
    last = [e for e in read_events(out / "metrics.jsonl") if e["kind"] == "epoch"][-1]
    newest = Checkpoints(out / "checkpoints").paths()[-1]
    for what in (out, out / "weights.safetensors", newest):
        result = run("evaluate", what, "--json")
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert found["top1"] == last["accuracy"] and found["top5"] == last["top5"] and found["images"] == 4
        assert np.sum(found["confusion"]) == 4 and len(found["classes"]) == 10
    assert json.loads(run("evaluate", out, "--limit", 3, "--json").stdout)["images"] == 3
    result = run("evaluate", out, "--confusion", tmp_path / "confusion.png")
    assert "top-1" in result.stdout and (tmp_path / "confusion.png").read_bytes().startswith(PNG)
    assert "ten crops are for folders" in fails("evaluate", out, "--ten-crop")


def test_evaluation_names_the_file_that_it_lacks(tmp_path):
    for folder, said in (("nodir", "no such folder; name the one that holds"), ("", "is not in this folder; fetch it")):
        error = fails("evaluate", "FASHION_MNIST_V1", "--data", tmp_path / folder)
        assert said in error and "t10k-images-idx3-ubyte.gz" in error and "train-images" not in error


def test_the_synthetic_set_has_a_recipe_of_its_own(tmp_path):
    options = shlex.split("--dataset synthetic --limit 8 --image-size 67 --lr 0.5 --epochs 1 --backend numpy --json")
    start = json.loads(run("train", "--out", tmp_path / "run", *options).stdout.splitlines()[0])["config"]
    given = {"image_size": 67, "lr": 0.5, "preset": "d2l"}
    assert {name: start[name] for name in SYNTHETIC | given} == SYNTHETIC | given
    again = run("train", "--out", tmp_path / "run", "--resume", "--epochs", 2, "--json")
    assert json.loads(again.stdout.splitlines()[0])["config"] == start | {"epochs": 2}


@pytest.mark.slow
def test_the_synthetic_set_learns_with_its_defaults(tmp_path):
    result = run("train", "--out", tmp_path / "run", "--dataset", "synthetic")
    assert result.exit_code == 0 and "learned nothing" not in result.stderr
    accuracies = [e["accuracy"] for e in read_events(tmp_path / "run" / "metrics.jsonl") if e["kind"] == "epoch"]
    assert accuracies[-1] > 0.5 and max(accuracies) - accuracies[-1] < 0.1  # to the end, where chance gives 10%


def test_evaluate_an_unfinished_run(trained, tmp_path):
    out, _ = trained
    (tmp_path / "checkpoints").mkdir()
    tensors, state = checkpoint.read(Checkpoints(out / "checkpoints").paths()[0])
    checkpoint.write(tmp_path / "checkpoints" / "step-00000001.safetensors", tensors, state)
    assert run("evaluate", tmp_path).exit_code == 0
    (tmp_path / "checkpoints" / "step-00000002.safetensors").write_bytes(b"")
    assert "step-00000002.safetensors: is empty" in fails("evaluate", tmp_path)
    assert "no run of `alexnet train`" in fails("evaluate", tmp_path / "checkpoints")


def test_finetune_and_evaluate_pictures(pictures, tmp_path):
    start = anp.alexnet("torchvision", width=1 / 32, seed=0)
    checkpoint.write(tmp_path / "start.safetensors", start.state_dict(), {})
    common = ["--weights", tmp_path / "start.safetensors", "--width", 1 / 32, "--backend", "numpy", "--epochs", 3]
    result = run(
        "finetune",
        pictures,
        "--out",
        tmp_path / "out",
        *common,
        "--freeze",
        "features.0",
        "--freeze",
        "features.3",
        "--lr",
        0.01,
        "--batch-size",
        6,
        "--cache",
        tmp_path / "cache",
    )
    assert result.exit_code == 0, result.output
    weights, about = checkpoint.read(tmp_path / "out" / "weights.safetensors")
    assert about["data"]["classes"] == ["dark", "light"] and weights["classifier.6.weight"].shape[0] == 2
    for name, array in start.state_dict().items():
        kept = name.startswith(("features.0.", "features.3."))
        assert name.startswith("classifier.6") or np.array_equal(weights[name], array) == kept, name
    found = [json.loads(run("evaluate", tmp_path / "out", *more, "--json").stdout) for more in ([], ["--ten-crop"])]
    assert [f["crops"] for f in found] == [1, 10] and found[0]["images"] == found[1]["images"] == 6
    assert found[0]["loss"] != found[1]["loss"]
    by_folder = json.loads(run("evaluate", tmp_path / "out", "--data", pictures / "val", "--json").stdout)
    assert by_folder["loss"] == found[0]["loss"] and by_folder["confusion"] == found[0]["confusion"]


def test_evaluate_foreign_weights(pictures, tmp_path):
    """On one crop the loss is that of the images preprocessed one by one."""
    model = anp.alexnet("torchvision", width=1 / 32, num_classes=2, seed=0).eval()
    np.savez(tmp_path / "foreign.npz", **model.state_dict())
    found = json.loads(run("evaluate", tmp_path / "foreign.npz", "--data", pictures / "val", "--json").stdout)
    files = sorted((pictures / "val").glob("*/*.jpg"))
    logits = model(np.stack([preprocess(file) for file in files]))
    loss, _ = ops.cross_entropy.forward(logits, np.array([0, 0, 0, 1, 1, 1]))
    assert found["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert "name a folder of images with --data" in fails("evaluate", tmp_path / "foreign.npz")
    assert "neither a run's folder nor a file nor one of" in fails("evaluate", tmp_path / "nowhere")
    (pictures / "val" / "third").mkdir()
    Image.new("RGB", (300, 300)).save(pictures / "val" / "third" / "0.jpg")
    assert "3 classes, where the network has 2" in fails(
        "evaluate", tmp_path / "foreign.npz", "--data", pictures / "val"
    )
    (pictures / "val" / "third" / "0.jpg").unlink()
    (pictures / "val" / "third").rmdir()


@pytest.mark.parametrize(("what", "variants"), [("activation", 3), ("pooling", 2), ("lrn", 2), ("dropout", 2)])
def test_ablate(tmp_path, what, variants):
    tiny = shlex.split("--dataset synthetic --limit 8 --image-size 71 --width 0.03125 -e 2 --backend numpy -b 4")
    result = run("ablate", what, "--out", tmp_path, *tiny, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["variants"]
    lines = [json.loads(line) for line in (tmp_path / f"{what}.jsonl").read_text().splitlines()]
    first = {line["variant"]: line["loss"] for line in lines if line.get("step") == 1}
    assert len(found) == variants and list(first) == list(found)
    assert len(set(first.values())) == variants, "variants are different networks"
    assert len(lines) == variants * 2 * 3
    assert (tmp_path / f"{what}.png").read_bytes().startswith(PNG)


def test_ablate_wrongly(tmp_path):
    assert "WHAT is one of activation, pooling, lrn, dropout" in fails("ablate", "relu", "--out", tmp_path)


def test_curves_of_several_runs(trained, tmp_path):
    out, _ = trained
    assert run("curves", out, out, "--out", tmp_path / "c.png").exit_code == 0
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)
    assert "metrics.jsonl: no such file" in fails("curves", tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"kind": "start"}\n{"kind": "ba')
    assert "nothing to draw yet" in fails("curves", tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"kind": "start"}\nnonsense\n{}\n')
    assert "line 2 is not a metric" in fails("curves", tmp_path)


@pytest.mark.parametrize(("batches", "window"), [(1, 1), (90, 3), (6000, 200)])
def test_a_training_curve_is_a_running_mean(batches, window):
    events = [
        {"epoch": 1 + i // 30, "batch": 1 + i % 30, "batches": 30, "loss": i, "accuracy": i / batches}
        for i in range(batches)
    ]
    at, losses, errors = running_means(events)
    assert losses[0] == pytest.approx((window - 1) / 2) and at[0] == pytest.approx((window + 1) / 2 / 30)
    np.testing.assert_allclose(losses, 30 * at - 1)
    np.testing.assert_allclose(errors, 100 * (1 - losses / batches))
    assert 1 <= len(at) <= 2 * POINTS


def test_tensorboard(trained, tmp_path):
    pytest.importorskip("tensorboardX")
    assert run("train", "--out", tmp_path, *TINY, "--tensorboard").exit_code == 0
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert b"epoch/accuracy" in file.read_bytes() and b"batch/loss" in file.read_bytes()


def test_missing_packages(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("train", "--out", tmp_path / "a", *TINY)
    assert result.exit_code == 0 and "no curves: pictures need matplotlib: pip install" in result.stderr
    assert "pictures need matplotlib" in fails("curves", trained[0])
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "need tensorboardX: pip install" in fails("train", "--out", tmp_path / "b", *TINY, "--tensorboard")


def test_ctrl_c_in_the_terminal(tmp_path):
    """A line that says how to go on, exit code 130; and it does go on."""
    program = "from alexnet_np.cli import main; main()"
    command = [sys.executable, "-c", program, "train", "--out", str(tmp_path / "a"), *TINY, "--epochs", "200", "--json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while json.loads(child.stdout.readline()).get("step") != 4:
        pass
    os.kill(child.pid, signal.SIGINT)
    _, error = child.communicate()
    assert child.returncode == 130, error
    assert error.count("\n") == 1 and f"to go on: alexnet train --resume --out {tmp_path / 'a'}" in error
    step = Checkpoints(tmp_path / "a" / "checkpoints").load()[1]["position"]["step"]
    assert 4 <= step < 600


# What evaluate computes


def test_top1_top5_and_confusion_by_hand():
    """A network whose logits are the input: ties go to the lower index, as argmax has it."""
    model = anp.alexnet("torchvision", width=1 / 32, num_classes=7, seed=0)
    logits = np.zeros((4, 7), np.float32)
    logits[0, [2, 3]] = 5, 4  # class 3 comes second
    logits[1, :6] = 1  # class 6 comes last
    logits[2] = 0  # all the same: 0 comes first, 5 sixth
    logits[3, 5] = 9
    model.register_forward_hook(lambda layer, x, y: logits[np.asarray(x[:, 0, 0, 0], int)])
    x = np.zeros((4, 3, 224, 224), np.float32)
    x[:, 0, 0, 0] = np.arange(4)
    target = np.array([3, 6, 5, 5])
    result = evaluate(model, [(x[:3], target[:3]), (x[3:], target[3:])], 7)
    assert (result.images, result.top1, result.top5) == (4, 0.25, 0.5)
    expected = np.zeros((7, 7))
    expected[3, 2] = expected[6, 0] = expected[5, 0] = expected[5, 5] = 1
    assert np.array_equal(result.confusion, expected)
    loss, _ = ops.cross_entropy.forward(logits.astype(np.float64), target)
    assert result.loss == pytest.approx(float(loss), rel=1e-6)
    assert model.training
    with pytest.raises(anp.ArgumentError, match="no images"):
        evaluate(model, [], 7)


def test_ten_crops_average_the_softmax():
    model = anp.alexnet("torchvision", width=1 / 32, num_classes=7, seed=0, dtype="float64").eval()
    for parameter in model.parameters():
        parameter.data *= 3  # far from uniform, so that an average of logits would be something else
    x = np.random.default_rng(0).standard_normal((2, 10, 3, 224, 224))
    softmax = np.stack([ops.softmax.forward(model(crops))[0].mean(0) for crops in x])
    np.testing.assert_allclose(np.exp(log_probabilities(logits_of(model, x))), softmax, rtol=1e-12)


def test_a_confusion_of_too_many_classes(tmp_path):
    with pytest.raises(anp.ArgumentError, match="of 51 classes cannot be read; at most 50"):
        draw_confusion(np.eye(51, dtype=int), [str(i) for i in range(51)], tmp_path / "c.png")
