"""The inference plan against the array operations in float64: every preset, batch and size; refresh; its threads."""

import copy
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from unittest import mock

import numpy as np
import pytest
from at_once import at_once

import alexnet_np as anp
from alexnet_np.data.preprocess import normalise
from alexnet_np.kernels import choices
from alexnet_np.plan import compile
from alexnet_np.plan import images as images_of_plans
from alexnet_np.presets import PRESETS

LOGITS = 1e-4  # relative to the largest logit: the bound the plan promises; EXACT for exact=True
EXACT = 1e-5


def images(N, C, size, seed=0):
    return np.random.default_rng(seed).standard_normal((N, C, *size), dtype=np.float32)


def truth(model, x):
    double = anp.alexnet(
        model.preset, dtype="float64", weights=model.state_dict(), num_classes=model.num_classes, **widths(model)
    ).eval()
    with anp.no_grad():
        return double(x.astype(np.float64))


def widths(model):
    return {"in_channels": model.in_channels, "width": model.tested_width}


def build(preset, width, **options):
    model = anp.alexnet(preset, width=width, num_classes=10, seed=3, **options).eval()
    model.tested_width = width
    return model


def assert_close(logits, expected, bound):
    assert logits.shape == expected.shape
    assert np.abs(logits - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("preset", ["torchvision", "paper", "d2l"])
@pytest.mark.parametrize("width", [0.05, 0.25, 0.4])
def test_plan_agrees_with_float64(preset, width, exact):
    model = build(preset, width)
    plan = compile(model, max_batch=3, exact=exact)
    for N in (1, 3):
        x = images(N, model.in_channels, (224, 224), N)
        kept = x.copy()
        assert_close(plan(x), truth(model, x), EXACT if exact else LOGITS)
        assert np.array_equal(x, kept)


@pytest.mark.parametrize("size", [(63, 63), (100, 131), (230, 64)])
def test_plan_takes_another_size_of_image(size):
    model = build("torchvision", 0.25)
    plan = compile(model, max_batch=2)
    for shape in ((224, 224), size, (224, 224)):
        x = images(2, 3, shape)
        assert_close(plan(x), truth(model, x), LOGITS)


def test_every_size_of_batch_gives_each_image_the_same_logits():
    """Batches leave different halves of the buffers behind; nothing of them may leak into the next."""
    model = build("torchvision", 0.25)
    plan = compile(model, max_batch=37)
    x = images(37, 3, (224, 224))
    whole = plan(x)
    for N in (1, 2, 5, 36, 37):
        np.testing.assert_allclose(plan(x[:N]), whole[:N], rtol=0, atol=1e-6 * np.abs(whole).max())


def test_stages_work_through_a_batch_in_passes():
    model = build("torchvision", 0.25)
    with choices.overriding(choices.Row(op="stages", stage_bytes=1 << 20)):
        plan = compile(model, max_batch=7)
    assert min(plan._program.passes) < 7
    x = images(7, 3, (224, 224))
    assert_close(plan(x), truth(model, x), LOGITS)


def test_full_width_logits_are_within_the_promise():
    model = build("torchvision", 1.0)
    x = images(2, 3, (224, 224))
    expected = truth(model, x)
    for exact, bound in ((False, LOGITS), (True, EXACT)):
        logits = compile(model, max_batch=2, exact=exact)(x)
        assert_close(logits, expected, bound)
        assert np.array_equal(np.argsort(-logits)[:, :5], np.argsort(-expected)[:, :5])


def test_refresh_reads_the_weights_again():
    model = build("torchvision", 0.1)
    plan = compile(model, max_batch=1)
    x = images(1, 3, (224, 224))
    before = plan(x)
    for parameter in model.parameters():
        parameter.data *= np.float32(0.5)
    assert np.array_equal(plan(x), before)
    plan.refresh()
    assert_close(plan(x), truth(model, x), LOGITS)


def test_an_overridden_choice_is_taken():
    model = build("torchvision", 0.25)
    with choices.overriding(choices.Row("direct", kernel=5)):
        text = str(compile(model, max_batch=1))
    assert "direct + bias + relu" in text and "F(4,5)" not in text and "F(5,3)" in text


def test_inputs_of_any_layout_are_taken_and_empty_batches_too():
    model = build("torchvision", 0.1)
    plan = compile(model, max_batch=2)
    x = images(2, 3, (224, 224))
    expected = plan(x)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    frozen = x.copy()
    frozen.flags.writeable = False
    assert np.array_equal(plan(last), expected) and np.array_equal(plan(frozen), expected)
    assert plan(x[:0]).shape == (0, 10)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((3, 3, 224, 224), np.float32), anp.ArgumentError, "max_batch=2"),
        (np.zeros((1, 3, 224, 224)), anp.DtypeError, "float32"),
        (np.zeros((1, 1, 224, 224), np.float32), anp.ShapeError, r"\(N,3,H,W\)"),
        (np.zeros((1, 3, 20, 20), np.float32), anp.ShapeError, "63x63"),
        (np.zeros((1, 3, 224, 224), np.uint8), anp.ShapeError, r"bytes must be \(N,H,W,3\)"),
        (np.zeros((1, 20, 20, 3), np.uint8), anp.ShapeError, "63x63"),
    ],
)
def test_wrong_inputs_are_named(x, error, message):
    plan = compile(build("torchvision", 0.1), max_batch=2)
    with pytest.raises(error, match=message):
        plan(x)


def test_wrong_models_and_batches_are_named():
    model = build("torchvision", 0.1)
    with pytest.raises(anp.ArgumentError, match="max_batch"):
        compile(model, max_batch=0)
    with pytest.raises(anp.DtypeError, match="float32"):
        compile(model.astype("float64"))


def test_a_count_may_be_an_array_of_no_axis():
    model = anp.alexnet("lenet5", seed=0).eval()
    x = np.random.default_rng(0).standard_normal((3, 1, 28, 28), dtype=np.float32)
    counts = {"max_batch": np.array(3), "at_once": np.array(1)}
    np.testing.assert_allclose(compile(model, **counts)(x), model(x), atol=1e-6)
    step = anp.compile_training(model.train(), anp.SGD(model.named_parameters(), lr=0.01), batch_size=np.array(3))
    assert np.isfinite(step(x, np.array([0, 1, 2])))


def test_a_plan_prints_its_steps():
    text = repr(compile(build("torchvision", 1.0), max_batch=4))
    assert "1.420 GFLOP an image" in text and "depth winograd F(5,3)" in text and "packed gemm" in text


def test_two_plans_and_one_plan_in_two_threads():
    models = [build("torchvision", width) for width in (0.1, 0.2)]
    plans = [compile(model, max_batch=2) for model in models]
    xs = [images(2, 3, (224, 224), seed) for seed in range(2)]
    expected = [[plan(x) for x in xs] for plan in plans]
    wrong = []

    def work(which):
        for turn in range(6):
            p, i = (which + turn) % 2, turn % 2
            if not np.array_equal(plans[p](xs[i]), expected[p][i]):
                wrong.append((p, i))

    at_once(work, range(3))
    assert not wrong


@pytest.mark.parametrize("preset", ["torchvision", "paper", "d2l"])
@pytest.mark.parametrize("exact", [False, True])
def test_bytes_are_normalised_as_preprocess_does(preset, exact):
    """To the last bit, in whatever layout they come, and for another size of image."""
    model = build(preset, 0.1)
    plan = compile(model, max_batch=3, exact=exact)
    for N, size in [(3, (224, 224)), (1, (224, 224)), (2, (227, 230))]:
        pixels = np.random.default_rng(N).integers(0, 256, (N, *size, model.in_channels), np.uint8)
        x = normalise(pixels, PRESETS[preset].preprocessing, np.empty((N, model.in_channels, *size), np.float32))
        frozen = pixels.copy()
        frozen.flags.writeable = False
        expected = plan(x)
        for given in (pixels, frozen, np.repeat(pixels, 2, axis=1)[:, ::2]):
            assert np.array_equal(plan(given), expected)


def test_bytes_of_a_preset_in_bgr():
    """Caffe's networks take blue first."""
    model = build("torchvision", 0.1)
    plan = compile(model, max_batch=1)
    changes = {"mode": "BGR", "scale": 1, "mean": (104.0, 117.0, 123.0), "std": (1, 1, 1)}
    recipe = PRESETS["torchvision"].preprocessing._replace(**changes)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    expected = plan(normalise(pixels, recipe, np.empty((1, 3, 224, 224), np.float32)))
    with mock.patch.object(images_of_plans, "recipe", lambda model: recipe):
        assert np.array_equal(plan(pixels), expected)


def test_results_are_written_where_they_are_wanted():
    model = build("torchvision", 0.1)
    x = images(2, 3, (224, 224))
    plan = compile(model, max_batch=2)
    out = np.full((2, 20), 7, np.float32)[:, ::2]
    assert plan(x, out=out) is out
    assert np.array_equal(out, plan(x))
    several = compile(model, max_batch=2, outputs=("features.0", "logits"))
    room = {"features.0": np.empty((2, 6, 55, 55), np.float32), "logits": np.empty((2, 10), np.float32)}
    found = several(x, out=room)
    assert found["logits"] is room["logits"] and found["features.0"] is room["features.0"]
    for name, array in several(x).items():
        assert np.array_equal(room[name], array)
    for wrong, error, message in [
        (room["logits"], anp.ArgumentError, "out must be a dict of arrays for features.0, logits"),
        ({**room, "logits": room["logits"][:1]}, anp.ShapeError, r"out\['logits'\] must be \(2, 10\), got \(1, 10\)"),
        ({**room, "logits": np.empty((2, 10))}, anp.DtypeError, r"out\['logits'\] must be float32, got float64"),
        ({**room, "logits": [1.0]}, anp.BackendError, r"out\['logits'\] is a list, not where the plan is"),
    ]:
        with pytest.raises(error, match=message):
            several(x, out=wrong)


def test_the_loop_allocates_nothing():
    """No array: what Python itself needs for a call is a few kilobytes."""
    model = build("torchvision", 0.25)
    plan = compile(model, max_batch=8)
    x, out = images(8, 3, (224, 224)), np.empty((8, 10), np.float32)
    pixels = np.zeros((8, 224, 224, 3), np.uint8)
    for given in (x, pixels):
        plan(given, out=out)
        tracemalloc.start()
        plan(given, out=out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 64 << 10, f"{peak} bytes"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_a_plan_is_copied_and_pickled_by_compiling_it_anew(copied):
    model = build("torchvision", 0.1)
    plan = compile(model, max_batch=2, outputs=("classifier.5",), exact=True, size=100)
    x = images(2, 3, (100, 100))
    again = copied(plan)
    assert repr(again) == repr(plan) and again is not plan
    assert np.array_equal(again(x)["classifier.5"], plan(x)["classifier.5"])


def test_hooks_are_warned_about():
    model = build("torchvision", 0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile(model, max_batch=1)
    with model.features[3].register_forward_hook(lambda *_: None), model.register_forward_hook(lambda *_: None):
        with pytest.warns(UserWarning, match="compile: hooks do not fire in a plan: the model, features.3") as caught:
            compile(model, max_batch=1)
        assert caught[0].filename == __file__


def test_a_model_that_is_another_now_cannot_be_refreshed():
    model = build("torchvision", 0.1)
    plan = compile(model, max_batch=1)
    before = plan(images(1, 3, (224, 224)))
    model.features[0].padding = 3
    for act in (plan.refresh, lambda: plan(images(1, 3, (100, 100)))):
        with pytest.raises(anp.ShapeError, match="features.0 is Conv2d.*padding=3.* now and was .*; compile the model"):
            act()
    assert np.array_equal(plan(images(1, 3, (224, 224))), before)
    model.features[0].padding = 2
    model.classifier[0].p = 0.1
    plan.refresh()
    model.replace_head(7)
    with pytest.raises(anp.ShapeError, match=r"classifier.6.weight is float32 \(7, 410\) now and was .*; compile"):
        plan.refresh()


def test_weights_are_copies_for_every_size_of_image():
    """Another size transforms the convolutions' filters anew: from the copies, not from what the model has by then."""
    model = build("torchvision", 0.1)
    plan = compile(model, max_batch=1)
    sizes = [(224, 224), (100, 131)]
    before = [plan(images(1, 3, size)) for size in sizes]
    for parameter in model.parameters():
        parameter.data *= np.float32(0.5)
    for size, logits in zip(sizes, before, strict=True):
        assert np.array_equal(plan(images(1, 3, size)), logits)
    plan.refresh()
    for size in sizes:
        x = images(1, 3, size)
        assert_close(plan(x), truth(model, x), LOGITS)


SCRIPT = """
import numpy as np
{before}
import alexnet_np as anp
from alexnet_np.plan import compile
model = anp.alexnet(width=0.1, seed=0).eval()
plan = compile(model, max_batch=2)
x = np.zeros((2, 3, 224, 224), np.float32)
first = plan(x)
{after}
import threading
def both():
    for _ in range(3):
        torch.nn.functional.conv2d(torch.ones(8, 16, 32, 32), torch.ones(16, 16, 3, 3))
        assert np.array_equal(plan(x), first)
threads = [threading.Thread(target=both) for _ in range(2)]
[t.start() for t in threads]; [t.join() for t in threads]
print("ok")
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_torch_in_the_same_process(order):
    """Neither a crash, nor a deadlock (the timeout), nor another result, whichever's threads came first."""
    pytest.importorskip("torch")
    script = SCRIPT.format(**{"before": "", "after": "", order: "import torch"})
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and run.stdout == "ok\n", run.stderr[-2000:]
