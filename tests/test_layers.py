"""Layers: hooks, containers, dropout's mask, gradients that accumulate. The math of each is its op's test."""

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    no_grad,
)
from alexnet_np.sequential import Sequential

rng = np.random.default_rng(0)


def filled(layer):
    """`layer` with random parameters."""
    for parameter in layer.parameters():
        parameter.data = rng.standard_normal(parameter.shape).astype("float32")
    return layer


def random(*shape):
    return rng.standard_normal(shape).astype("float32")


@pytest.fixture
def net():
    return filled(Sequential([Linear(4, 5), ReLU(), Linear(5, 3)]))


# What a layer promises about shapes


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9, 7)),
        (Conv2d(4, 6, (5, 3), padding="same", bias=False), (2, 4, 9, 7)),
        (Conv2d(4, 6, 3, padding=((0, 3), (1, 2)), dilation=2), (4, 9, 7)),
        (MaxPool2d(3, 2), (2, 4, 9, 7)),
        (MaxPool2d(3, 2, padding=1, ceil_mode=True), (4, 8, 7)),
        (AdaptiveAvgPool2d((6, None)), (2, 4, 9, 7)),
        (AvgPool2d(3, 2, padding=1, ceil_mode=True), (2, 4, 10, 7)),
        (LocalResponseNorm(5), (2, 4, 9, 7)),
        (ReLU(), (2, 4)),
        (Dropout(), (2, 4)),
        (Flatten(), (2, 4, 9, 7)),
        (Linear(4, 3), (2, 4)),
        (Sequential([Conv2d(4, 6, 3), MaxPool2d(2), Flatten(), Linear(54, 3)]), (2, 4, 9, 8)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, tuple) else "x".join(map(str, value)),
)
def test_output_shape_foretells_what_forward_gives(layer, shape):
    assert filled(layer)(random(*shape)).shape == layer.output_shape(shape)


def test_macs_count_one_for_each_weight_and_output():
    assert Conv2d(4, 6, 3, groups=2).macs((2, 4, 9, 7)) == 2 * 7 * 5 * 6 * (2 * 9)  # outputs x one filter
    assert Linear(4, 3).macs((2, 4)) == 2 * 4 * 3
    assert ReLU().macs((2, 4)) == 0
    assert Sequential([Linear(4, 3), Linear(3, 2)]).macs((1, 4)) == 12 + 6


def test_wrong_arguments_are_named():
    with pytest.raises(anp.ArgumentError, match=r"channels 3, 4 must be multiples of groups=2"):
        Conv2d(3, 4, 3, groups=2)
    with pytest.raises(anp.ShapeError, match=r"input has 5 features, the layer takes 4"):
        Linear(4, 3).output_shape((2, 5))


# Forward hooks


def test_what_a_hook_keeps_never_changes(net):
    kept, copies = [], []

    def keep(layer, first, second):
        kept.extend([first, second])
        copies.extend([first.copy(), second.copy()])

    for layer in [*net, net]:
        layer.register_forward_hook(keep)
        layer.register_full_backward_hook(keep)
    for _ in range(2):
        net(random(6, 4))
        net.backward(random(6, 3))
    assert len(kept) == 2 * 4 * 4
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_hook_can_replace_the_output(net):
    x = random(2, 4)
    with net[1].register_forward_hook(lambda layer, x, y: np.ones_like(y)):
        replaced = net(x)
    np.testing.assert_array_equal(replaced, net[2](np.ones((2, 5), "float32")))
    assert not np.array_equal(replaced, net(x))  # leaving the `with` took it off


def test_hooks_run_in_the_order_they_came_and_each_sees_the_one_before(net):
    net.register_forward_hook(lambda layer, x, y: y + 1)
    net.register_forward_hook(lambda layer, x, y: y * 2)
    x = random(2, 4)
    np.testing.assert_array_equal(net(x), (net[2](net[1](net[0](x))) + 1) * 2)


def test_removing_a_hook_twice_leaves_the_others():
    layer, calls = ReLU(), []
    first = layer.register_forward_hook(lambda *_: calls.append("first"))
    first.remove()
    layer.register_forward_hook(lambda *_: calls.append("second"))
    first.remove()
    layer(random(2))
    assert calls == ["second"]


# Backward hooks


def test_a_backward_hook_sees_dx_and_dy_and_can_replace_dx(net):
    seen = {}
    net(random(2, 4))
    dy = random(2, 3)
    net[2].register_full_backward_hook(lambda layer, dx, dy: seen.update(dx=dx, dy=dy))
    dx = net.backward(dy, retain_graph=True)
    np.testing.assert_array_equal(seen["dy"], dy)
    np.testing.assert_allclose(seen["dx"], dy @ net[2].weight.data, rtol=1e-5)

    handle = net[1].register_full_backward_hook(lambda layer, dx, dy: np.zeros_like(dx))
    assert not net.backward(dy, retain_graph=True).any()
    handle.remove()
    np.testing.assert_array_equal(net.backward(dy), dx)


def test_a_backward_hook_on_a_container_has_the_containers_gradients(net):
    seen = []
    net.register_full_backward_hook(lambda layer, dx, dy: seen.append((dx, dy)))
    net(random(2, 4))
    dy = random(2, 3)
    dx = net.backward(dy)
    assert seen[0][0] is dx
    assert seen[0][1] is dy


# Gradients


def test_gradients_accumulate_as_torch_has_it(net):
    x, dy = random(2, 4), random(2, 3)
    net(x)
    net.backward(dy, retain_graph=True)
    once = [p.grad.copy() for p in net.parameters()]
    net.backward(dy)
    for parameter, gradient in zip(net.parameters(), once, strict=True):
        np.testing.assert_array_equal(parameter.grad, 2 * gradient)


def test_backward_stops_where_nothing_earlier_needs_a_gradient(net):
    reached = []
    for layer in net:
        layer.register_full_backward_hook(lambda layer, dx, dy: reached.append(layer))
    for parameter in net[0].parameters():
        parameter.requires_grad = False
    net(random(2, 4))
    assert net.backward(random(2, 3), input_grad=False, retain_graph=True) is None
    assert reached == [net[2]]
    assert [p.grad is None for p in net.parameters()] == [True, True, False, False]
    assert net.backward(random(2, 3)) is not None  # dx was asked for: through the frozen layer, which gets no gradient
    assert net[0].weight.grad is None


def test_one_parameter_of_a_layer_can_be_frozen(net):
    net[0].weight.requires_grad = False
    net(random(2, 4))
    net.backward(random(2, 3), input_grad=False)
    assert net[0].weight.grad is None
    assert net[0].bias.grad is not None


def test_backward_without_a_forward_says_so(net):
    with pytest.raises(anp.AlexNetError, match=r"^Linear\(.*backward needs a forward first"):
        net.backward(random(2, 3))
    net(random(2, 4))
    with no_grad():
        net(random(2, 4))
    with pytest.raises(anp.AlexNetError, match="outside no_grad"):
        net.backward(random(2, 3))


def test_no_grad_keeps_nothing_and_ends_with_an_exception(net):
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    net(random(2, 4))
    net.backward(random(2, 3))
    with no_grad():
        net(random(2, 4))
    assert all(layer._cache is None for layer in net)


def test_a_layer_without_bias_has_no_gradient_for_one():
    layer = filled(Linear(4, 3, bias=False))
    layer(random(2, 4))
    layer.backward(random(2, 3))
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert layer.weight.grad.shape == (3, 4)


# Containers


def test_index_slice_length_and_iteration(net):
    assert len(net) == 3
    assert net[-1] is list(net)[2]
    part = net[1:]
    assert isinstance(part, Sequential)
    assert list(part) == list(net)[1:]
    x = random(2, 5)
    np.testing.assert_array_equal(part(x), net[2](net[1](x)))
    with pytest.raises(IndexError):
        net[3]


def test_names_are_indices_joined_by_dots():
    net = Sequential([Sequential([Linear(2, 2), ReLU()]), Linear(2, 2, bias=False)])
    assert [name for name, _ in net.leaves()] == ["0.0", "0.1", "1"]
    assert [name for name, _ in net.named_parameters("net")] == ["net.0.0.weight", "net.0.0.bias", "net.1.weight"]


def test_a_container_prints_its_layers(net):
    assert repr(net).splitlines() == [
        "Sequential(",
        "  (0): Linear(in_features=4, out_features=5)",
        "  (1): ReLU()",
        "  (2): Linear(in_features=5, out_features=3)",
        ")",
    ]


# Dropout


def test_dropout_draws_a_new_mask_each_call_and_repeats_from_its_state():
    layer, x = Dropout(0.5, seed=7), np.ones((4, 50), "float32")
    first, second = layer(x), layer(x)
    assert not np.array_equal(first, second)
    layer.calls = 0
    np.testing.assert_array_equal(layer(x), first)
    np.testing.assert_array_equal(layer(x), second)
    assert not np.array_equal(Dropout(0.5, seed=8)(x), first)
    assert set(np.unique(first)) == {0, 2}


def test_dropout_in_evaluation_is_the_identity_and_spends_no_mask():
    layer, x = Dropout(0.5, seed=7), random(4, 50)
    layer.training = False
    np.testing.assert_array_equal(layer(x), x)
    dy = random(4, 50)
    np.testing.assert_array_equal(layer.backward(dy), dy)
    assert layer.calls == 0


def test_dropouts_backward_uses_the_forwards_mask():
    layer, ones = Dropout(0.5, seed=7), np.ones((4, 50), "float32")
    np.testing.assert_array_equal(layer(ones), layer.backward(ones))
