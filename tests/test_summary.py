"""The study of shapes: the summary, the walk of one input, and the time of each layer."""

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np.layers import Dropout
from alexnet_np.study.timing import LayerTime, time_layers
from alexnet_np.study.walk import walk


@pytest.fixture
def model():
    return anp.alexnet("torchvision", width=1 / 16, seed=0).eval()


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((2, 3, 67, 67)).astype("float32")


# summary


def test_the_summary_has_a_row_for_every_layer(model):
    summary = anp.summary(model, (2, 3, 67, 67))
    assert [row.name for row in summary.layers] == [name for name, _ in model.leaves()]
    assert [row.type for row in summary.layers[:3]] == ["Conv2d", "ReLU", "MaxPool2d"]
    assert summary.parameters == sum(p.data.size for p in model.parameters())
    assert summary.macs == sum(row.macs for row in summary.layers) == model.macs((2, 3, 67, 67))


def test_its_shapes_are_those_of_a_run(model, x):
    shapes = []
    for _, layer in model.leaves():
        layer.register_forward_hook(lambda layer, x, y: shapes.append(y.shape))
    model(x)
    assert [row.output_shape for row in anp.summary(model, x.shape).layers] == shapes


def test_its_macs_are_those_of_the_convolutions_and_dense_layers_by_hand(model):
    first, *_, last = anp.summary(model, (2, 3, 67, 67)).layers
    assert first.macs == 2 * 4 * 16 * 16 * (3 * 11 * 11)  # N F OH OW of one filter's C KH KW
    assert first.parameters == 4 * (3 * 11 * 11 + 1)
    assert last.macs == 2 * 256 * 1000
    weighted = ("Conv2d", "Linear")
    assert all((row.macs > 0) == (row.type in weighted) for row in anp.summary(model, (1, 3, 67, 67)).layers)


def test_the_default_input_is_one_image_of_224():
    model = anp.alexnet("d2l", width=1 / 16, seed=0)
    assert anp.summary(model).input_shape == (1, 1, 224, 224)


def test_it_prints_as_an_aligned_table(model):
    lines = str(anp.summary(model)).splitlines()
    assert lines[0].split() == ["layer", "type", "output", "shape", "parameters", "MACs", "sees", "stride", "start"]
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].split() == ["total", f"{anp.summary(model).parameters:,}", f"{anp.summary(model).macs:,}"]
    assert repr(anp.summary(model)) == str(anp.summary(model))


def test_an_input_too_small_is_refused(model):
    with pytest.raises(anp.ShapeError):
        anp.summary(model, (1, 3, 20, 20))


# walk


def test_the_walk_describes_every_output(model, x):
    outputs = []
    for _, layer in model.leaves():
        layer.register_forward_hook(lambda layer, x, y: outputs.append(y))
    logits = model(x)
    kept = list(outputs)
    walked = walk(model, x)
    assert walked.input.shape == x.shape
    assert walked.input.mean == pytest.approx(x.mean())
    np.testing.assert_array_equal(walked.logits, logits)
    assert [step.name for step in walked.steps] == [name for name, _ in model.leaves()]
    for step, y in zip(walked.steps, kept, strict=True):
        assert step.shape == y.shape
        assert step.mean == pytest.approx(y.mean(), rel=1e-5)
        assert step.std == pytest.approx(y.std(), rel=1e-5)
        assert step.zeros == pytest.approx(np.mean(y == 0))
    relus = [step for step in walked.steps if step.type == "ReLU"]
    assert all(0.2 < step.zeros < 0.9 for step in relus)


def test_the_walk_takes_its_hooks_off_even_after_an_error(model, x):
    walk(model, x)
    with pytest.raises(anp.ShapeError):
        walk(model, x[:, :, :20, :20])
    assert not any(layer._forward_hooks for _, layer in model.leaves())


def test_the_walk_keeps_nothing_for_a_backward(model, x):
    walk(model, x)
    with pytest.raises(anp.AlexNetError, match="backward needs a forward first"):
        model.backward(np.ones((2, 1000), "float32"))


def test_the_walk_of_an_empty_batch(model, x):
    assert all(step.shape[0] == 0 and step.mean == 0 for step in walk(model, x[:0]).steps)


# timing


def test_every_layer_is_timed_in_every_run(model, x):
    runs = {name: 0 for name, _ in model.leaves()}
    for name, layer in model.leaves():
        layer.register_forward_hook(lambda layer, x, y, name=name: runs.update({name: runs[name] + 1}))
    times = time_layers(model, x, runs=3)
    assert set(runs.values()) == {3 + 1}  # and one to warm up
    assert [time.name for time in times] == list(runs)
    assert all(time.seconds > 0 for time in times)
    assert [time.macs for time in times] == [row.macs for row in anp.summary(model, x.shape).layers]


def test_the_median_and_the_rate(model, x, monkeypatch):
    clock = iter(np.cumsum([0.0] + [1.0, 0.0, 1.0, 0.0, 9.0, 0.0] * 100))  # runs of 1 s, and now and then one of 9 s
    monkeypatch.setattr("alexnet_np.study.timing.perf_counter", lambda: next(clock))
    times = time_layers(model, x, runs=3)
    assert {time.seconds for time in times} == {1.0}
    assert times[0].gflops == pytest.approx(2e-9 * times[0].macs)
    assert LayerTime("relu", "ReLU", 0, 0.0).gflops == 0


def test_timing_says_what_is_wrong(model, x):
    with pytest.raises(anp.ArgumentError, match="runs must be at least 1, got 0"):
        time_layers(model, x, runs=0)
    with pytest.raises(anp.ShapeError, match="smallest input"):
        time_layers(model, x[:, :, :20, :20])


def test_timing_leaves_dropout_and_gradients_alone(model, x):
    model(x)
    before = [layer.calls for _, layer in model.leaves() if isinstance(layer, Dropout)]
    time_layers(model, x, runs=1)
    assert [layer.calls for _, layer in model.leaves() if isinstance(layer, Dropout)] == before
