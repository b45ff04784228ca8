"""Layers that run together give what they give one by one, and leave behind what they leave one by one."""

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np import backend
from alexnet_np.errors import AlexNetError, ShapeError
from alexnet_np.kernels import choices
from alexnet_np.layers import Conv2d, MaxPool2d, ReLU, no_grad
from alexnet_np.sequential import Sequential

# (channels, height, width), the convolution's arguments, the pooling's or None
CASES = {
    "alexnet's first": ((3, 63, 71), (3, 24, 11, 4, 2), (3, 2)),
    "alexnet's second": ((16, 27, 27), (16, 32, 5, 1, 2), (3, 2)),
    "without pooling": ((32, 13, 13), (32, 48, 3, 1, 1), None),
    "two groups": ((32, 9, 11), (32, 64, 5, 1, 2, 1, 2), (3, 2)),
    "padded pooling": ((16, 13, 13), (16, 16, 3, 1, 1), (3, 2, 1)),
    "dilated pooling": ((16, 13, 13), (16, 16, 3, 1, 1), (2, 2, 0, 2)),
    "12 filters": ((1, 64, 64), (1, 12, 11, 4, 1), (3, 2)),
    "4 filters": ((2, 12, 12), (2, 4, 3, 1, 1), (3, 2)),
    "1x1": ((16, 6, 6), (16, 16, 1), (2, 2)),
}


def build(conv, pool, rng, dtype=np.float32):
    layers = [Conv2d(*conv), ReLU()] + ([] if pool is None else [MaxPool2d(*pool)])
    for parameter in layers[0].parameters():
        parameter.data = rng.standard_normal(parameter.shape).astype(dtype)
    sequence = Sequential(layers)
    for layer in layers:
        layer.backend = "numba"
    return sequence


def results(sequence, x, dy=None):
    """y, dx, dweight, dbias"""
    for parameter in sequence.parameters():
        parameter.grad = None
    y = sequence(x)
    dx = sequence.backward(np.ones_like(y) if dy is None else dy)
    return y, dx, *(parameter.grad for parameter in sequence.parameters())


def one_by_one(monkeypatch, sequence, x):
    with monkeypatch.context() as patch:
        patch.setitem(backend.FUSED, "conv2d_relu_max_pool2d", {})
        return results(sequence, x)


@pytest.fixture
def calls(monkeypatch):
    """How often layers were computed together: forward, backward."""
    from alexnet_np.kernels import conv2d_relu_max_pool2d_numba as together

    counted = {"compute": 0, "gradients": 0}

    def count(name, function):
        def counting(*arguments):
            counted[name] += 1
            return function(*arguments)

        return counting

    for name in counted:
        monkeypatch.setattr(together, name, count(name, getattr(together, name)))
    return counted


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        assert np.array_equal(a, b)


def assert_close(got, want):
    """Within Winograd's rounding: other slices of the batch are other sums."""
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("images_at_a_time", [None, 2])
def test_together_is_one_by_one(rng, monkeypatch, calls, case, images_at_a_time):
    (C, H, W), conv, pool = CASES[case]
    sequence = build(conv, pool, rng)
    x = rng.standard_normal((5, C, H, W), dtype=np.float32)
    want = one_by_one(monkeypatch, sequence, x)
    if images_at_a_time is None:
        assert_same(results(sequence, x), want)
    else:
        stage_bytes = images_at_a_time * want[1].nbytes // len(x)
        with choices.overriding(choices.Row(op="stages", stage_bytes=stage_bytes)):
            assert_close(results(sequence, x), want)
    assert calls == {"compute": 1, "gradients": 1}


def test_nan_passes_as_it_does_one_by_one(rng, monkeypatch):
    (C, H, W), conv, pool = CASES["alexnet's second"]
    sequence = build(conv, pool, rng)
    x = rng.standard_normal((2, C, H, W), dtype=np.float32)
    x[1, 3, 4, 5] = np.nan
    got = results(sequence, x)
    assert np.isnan(got[0]).any()
    for a, b in zip(got, one_by_one(monkeypatch, sequence, x), strict=True):
        assert np.array_equal(a, b, equal_nan=True)


def test_every_layer_can_still_go_back_alone(rng):
    (C, H, W), conv, pool = CASES["alexnet's second"]
    sequence = build(conv, pool, rng)
    x = rng.standard_normal((3, C, H, W), dtype=np.float32)
    want = results(sequence, x)
    for parameter in sequence.parameters():
        parameter.grad = None
    y = sequence(x)
    gradient = np.ones_like(y)
    for layer in reversed(sequence.layers):
        gradient = layer.backward(gradient)
    assert_same([y, gradient, *(p.grad for p in sequence.parameters())], want)


def test_a_hook_sees_what_lies_between(rng, calls):
    (C, H, W), conv, pool = CASES["alexnet's second"]
    sequence = build(conv, pool, rng)
    x = rng.standard_normal((3, C, H, W), dtype=np.float32)
    want, seen = results(sequence, x), []
    for key in calls:
        calls[key] = 0
    with (
        sequence[0].register_forward_hook(lambda layer, x, y: seen.append(y)),
        sequence[1].register_full_backward_hook(lambda layer, dx, dy: seen.append(dx)),
    ):
        assert_same(results(sequence, x), want)
    before_relu, gradient = seen
    assert calls == {"compute": 0, "gradients": 0}
    assert (before_relu < 0).any()
    assert not gradient[before_relu <= 0].any()


def test_a_hook_on_pooling_leaves_the_other_two_together(rng, calls):
    (C, H, W), conv, pool = CASES["alexnet's second"]
    sequence = build(conv, pool, rng)
    x = rng.standard_normal((3, C, H, W), dtype=np.float32)
    with sequence[2].register_forward_hook(lambda layer, x, y: 2 * y):
        doubled = sequence(x)
    assert calls["compute"] == 1
    assert np.array_equal(doubled, 2 * sequence(x))


@pytest.mark.parametrize("wanted", ["nothing of the input", "bias only", "weight only"])
def test_only_what_is_asked_for(rng, wanted):
    (C, H, W), conv, pool = CASES["alexnet's first"]
    sequence = build(conv, pool, rng)
    x = rng.standard_normal((3, C, H, W), dtype=np.float32)
    _, _, dweight, dbias = results(sequence, x)
    conv = sequence[0]
    conv.weight.grad = conv.bias.grad = None
    conv.weight.requires_grad = wanted != "bias only"
    conv.bias.requires_grad = wanted != "weight only"
    y = sequence(x)
    assert sequence.backward(np.ones_like(y), input_grad=False) is None
    for parameter, full in ((conv.weight, dweight), (conv.bias, dbias)):
        assert (parameter.grad is not None) == parameter.requires_grad
        if parameter.requires_grad:
            assert np.array_equal(parameter.grad, full)


def test_nothing_is_kept_without_gradients_or_after_the_last_backward(rng):
    (C, H, W), conv, pool = CASES["without pooling"]
    sequence = build(conv, pool, rng)
    x = rng.standard_normal((2, C, H, W), dtype=np.float32)
    with no_grad():
        y = sequence(x)
    with pytest.raises(AlexNetError, match="needs a forward first"):
        sequence.backward(y)
    y = sequence(x)
    sequence.backward(y)
    with pytest.raises(AlexNetError, match="a second backward, .* retain_graph=True"):
        sequence.backward(y)


def test_a_gradient_of_another_shape_is_refused(rng):
    (C, H, W), conv, pool = CASES["without pooling"]
    sequence = build(conv, pool, rng)
    y = sequence(rng.standard_normal((2, C, H, W), dtype=np.float32))
    with pytest.raises(ShapeError, match="relu"):
        sequence.backward(y[:, :3])


def test_float64_one_image_and_other_backends_run_one_by_one(rng, calls):
    (C, H, W), conv, pool = CASES["without pooling"]
    x = rng.standard_normal((2, C, H, W))
    results(build(conv, pool, rng, np.float64), x)
    results(build(conv, pool, rng), x[0].astype(np.float32))
    plain = build(conv, pool, rng)
    for layer in plain:
        layer.backend = "numpy"
    results(plain, x.astype(np.float32))
    mixed = build(conv, pool, rng)
    mixed[1].backend = "numpy"
    results(mixed, x.astype(np.float32))
    assert calls == {"compute": 0, "gradients": 0}


def test_the_networks_run_their_convolutions_together(rng, calls):
    model = anp.alexnet("torchvision", width=0.25, seed=0, backend="numba").eval()
    logits = model(rng.standard_normal((1, 3, 224, 224), dtype=np.float32))
    model.backward(np.ones_like(logits))
    assert calls == {"compute": 5, "gradients": 5}
