"""The side-by-side with torch: it agrees where we are right, and finds the layer and the array where we are not."""

import sys

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, Layer, LocalResponseNorm, MaxPool2d
from alexnet_np.presets import PRESETS
from alexnet_np.study.verify import (
    FLOAT32_WINOGRAD,
    TorchNet,
    held,
    import_torch,
    import_torchvision,
    relative_error,
    torch_module,
    verify,
)

torch = pytest.importorskip("torch")


def narrow(preset="torchvision", **options):
    return anp.alexnet(preset, **{"width": 1 / 16, "seed": 0, **options})


def random_input(model, N=2, size=67):
    x = np.random.default_rng(0).standard_normal((N, model.in_channels, size, size))
    return x.astype(model.dtype)


def run(model, **options):
    return verify(model, random_input(model, **options))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_agrees_with_torch(preset, dtype):
    model = narrow(preset, dtype=dtype)
    report = run(model, size=100)
    assert report.ok, report
    assert report.first_divergence is None
    assert [layer.name for layer in report.layers] == [name for name, _ in model.leaves()]
    assert [c.quantity for c in report.layers[0].comparisons] == ["forward", "dx", "dweight", "dbias"]
    assert [c.quantity for c in report.net] == ["logits", "dx", *(name for name, _ in model.named_parameters())]
    for comparison in [*report.net, *(c for layer in report.layers for c in layer.comparisons)]:
        assert (comparison.torch is None) == (dtype == "float64")


def test_the_torchvision_preset_is_compared_with_torchvisions_own_network_full_size():
    import_torchvision_or_skip()
    model = anp.alexnet("torchvision", seed=0)
    report = run(model, N=1)
    assert report.peer.startswith("torchvision ")
    assert report.ok, report
    model.replace_head(5)
    assert TorchNet(model, "float32").peer.startswith("torchvision ")


def test_a_narrow_copy_is_compared_with_a_network_of_torch_modules():
    assert run(narrow()).peer == f"torch {torch.__version__}"


@pytest.mark.skipif(anp.available_backends()["numba"] is not True, reason="numba is not installed")
def test_winograd_is_allowed_its_own_error_and_no_more():
    model = anp.alexnet("torchvision", width=1 / 4, seed=0, backend="numba")
    report = run(model, N=4)
    assert report.ok, report
    limits = {c.quantity: c.limit for layer in report.layers for c in layer.comparisons if layer.name == "features.3"}
    assert limits["forward"] == FLOAT32_WINOGRAD
    assert report.layers[-1].comparisons[0].limit < 1e-6  # only convolutions are

    model.features[3].register_forward_hook(lambda layer, x, y: y * np.float32(1 + 1e-4))
    assert run(model).first_divergence.name == "features.3"
    assert not verify(narrow(), random_input(narrow())).winograd


# It finds what is wrong


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("index", [0, 2, 3, 12])
def test_a_wrong_output_is_found_at_its_layer(index, dtype):
    model = narrow(dtype=dtype)
    model.features[index].register_forward_hook(lambda layer, x, y: y * y.dtype.type(1 + 1e-5))
    report = run(model)
    assert report.first_divergence.name == f"features.{index}"
    assert [c.quantity for c in report.first_divergence.comparisons if not c.ok] == ["forward"]
    assert sum(not layer.ok for layer in report.layers) == 1  # no layer is blamed for another
    assert not report.ok


def test_a_wrong_input_gradient_is_found_at_its_layer():
    model = narrow()
    model.classifier[4].register_full_backward_hook(lambda layer, dx, dy: dx * np.float32(1.001))
    report = run(model)
    assert report.first_divergence.name == "classifier.4"
    assert [c.quantity for c in report.first_divergence.comparisons if not c.ok] == ["dx"]


@pytest.mark.parametrize("quantity", ["weight", "bias"])
def test_a_wrong_parameter_gradient_is_found_at_its_layer(quantity, monkeypatch):
    model = narrow()
    layer = model.features[6]
    right = layer.gradients

    def wrong(dy, input_grad):
        dx = right(dy, input_grad)
        parameter = getattr(layer, quantity)
        parameter.grad = parameter.grad * np.float32(0.999)
        return dx

    monkeypatch.setattr(layer, "gradients", wrong)
    report = run(model)
    assert report.first_divergence.name == "features.6"
    assert [c.quantity for c in report.first_divergence.comparisons if not c.ok] == [f"d{quantity}"]


def test_a_nan_is_a_divergence():
    model = narrow()
    model.features[1].register_forward_hook(lambda layer, x, y: np.full_like(y, np.nan))
    report = run(model)
    assert report.first_divergence.name == "features.1"
    assert report.first_divergence.comparisons[0].ours == float("inf")


def test_a_network_wired_wrongly_of_right_layers_is_found_end_to_end():
    model = narrow()
    model.register_forward_hook(lambda model, x, y: y * np.float32(2))
    report = run(model)
    assert report.first_divergence is None
    assert [c.quantity for c in report.net if not c.ok] == ["logits"]
    assert not report.ok


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_gradient_that_is_a_little_wrong_is_found_end_to_end_because_kinks_are_held(backend):
    model = narrow(backend=backend)
    assert all(c.ok for c in run(model, N=8, size=100).net)
    model.classifier[1].register_full_backward_hook(lambda layer, dx, dy: dx * np.float32(1.001))
    wrong = [c.quantity for c in run(model, N=8, size=100).net if not c.ok]
    assert wrong == ["dx", *(name for name, _ in model.named_parameters() if name.startswith("features"))]


def test_torch_decides_as_the_model_did_while_held():
    model = narrow(dtype="float64").eval()
    x = random_input(model)
    net = TorchNet(model, "float64")
    plain = net(x)
    model(x)
    with held(net, model):
        assert relative_error(net(x), plain) < 1e-12
    model.features[1].keep(np.ones_like(model.features[1].kept()))  # as if every ReLU had let pass
    pooled = model.features[2].kept()
    model.features[2].keep(pooled._replace(switches=np.full_like(pooled.switches, 5)))  # row 1, column 2 of each window
    first = torch.nn.Sequential(*[net.modules[f"features.{i}"] for i in range(3)])
    with torch.no_grad(), held(net, model):
        found = first(torch.from_numpy(x)).numpy()
    height, width = pooled.geometry.output
    with torch.no_grad():
        taken = first[0](torch.from_numpy(x))[:, :, 1::2, 2::2][:, :, :height, :width].numpy()
    assert relative_error(found, taken) == 0
    assert relative_error(net(x), plain) == 0  # and decides for itself again


# It leaves the model alone


def test_mode_and_gradients_are_left_as_they_were():
    model = narrow()
    x = random_input(model)
    model(x)
    model.backward(np.ones((2, 1000), "float32"))
    before = {name: p.grad for name, p in model.named_parameters()}
    verify(model, x)
    assert model.training
    assert all(layer.training for _, layer in model.leaves())
    for name, parameter in model.named_parameters():
        assert parameter.grad is before[name]

    with pytest.raises(anp.ShapeError):
        verify(model, x[:, :, :10, :10])
    assert model.training
    assert next(model.parameters()).grad is before["features.0.weight"]


def test_frozen_parameters_have_no_gradient_to_compare():
    model = narrow().freeze("features")
    report = run(model)
    assert report.ok
    assert [c.quantity for c in report.layers[0].comparisons] == ["forward", "dx"]
    assert len(report.net) == 2 + 6


def test_a_wrong_input_is_refused_before_anything_is_compared():
    with pytest.raises(anp.ShapeError, match="smallest input is 63x63"):
        run(narrow(), size=62)
    with pytest.raises(anp.DtypeError):
        verify(narrow(), random_input(narrow(dtype="float64")))


# The pieces


def test_relative_error():
    truth = np.array([3.0, 4.0])
    assert relative_error(np.array([3.0, 4.5]), truth) == pytest.approx(0.1)
    assert relative_error(truth, truth) == 0
    assert relative_error(np.array([0.0, 1e-3]), np.zeros(2)) == 1e-3
    assert relative_error(np.zeros(3), truth) == float("inf")
    assert relative_error(np.array([np.nan, 4.0]), truth) == float("inf")
    assert relative_error(np.array([np.inf, 4.0]), truth) == float("inf")
    assert relative_error(np.float32([3, 4]), truth) == 0


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(4, 6, 3, stride=(2, 1), padding=((0, 3), (1, 2)), groups=2),
        Conv2d(4, 6, (5, 3), padding="same", dilation=(1, 2), bias=False),
        MaxPool2d(3, 2, padding=1, ceil_mode=True),
        AdaptiveAvgPool2d((6, None)),
        AvgPool2d((3, 2), 2, padding=1, ceil_mode=True),
        AvgPool2d(4, padding=2, count_include_pad=False, ceil_mode=True),
        AvgPool2d(3, divisor_override=-2),
        LocalResponseNorm(5, alpha=0.9, k=2.0, convention="paper"),
        LocalResponseNorm(4, alpha=0.9, beta=0.5, convention="torch"),
        LocalResponseNorm(3, alpha=0.9, convention="caffe"),
    ],
    ids=repr,
)
def test_torch_modules_compute_what_the_layers_do(layer):
    module = torch_module(layer).double()
    for parameter, theirs in zip(layer.parameters(), module.parameters(), strict=True):
        parameter.data = theirs.detach().numpy()
    x = np.random.default_rng(0).standard_normal((2, 4, 11, 9))
    assert relative_error(layer(x), module(torch.from_numpy(x)).detach().numpy()) < 1e-14


def test_what_torch_cannot_compute_is_refused():
    class Shift(Layer):
        """No layer of torch's."""

    with pytest.raises(anp.AlexNetError, match=r"torch has no module that computes Shift\(\)"):
        torch_module(Shift())


@pytest.mark.parametrize("convention", ["onnx", "paper", "matconvnet"])
def test_windows_that_torch_does_not_have_are_summed_by_its_operations(convention):
    layer, x = (
        LocalResponseNorm(4, alpha=1.0, convention=convention),
        np.random.default_rng(0).normal(size=(2, 9, 3, 3)),
    )
    np.testing.assert_allclose(torch_module(layer)(torch.from_numpy(x)).numpy(), layer(x), rtol=1e-12)


def test_the_logits_of_torchs_network():
    model = narrow().eval()
    x = random_input(model)
    assert relative_error(model(x), TorchNet(model, "float32")(x)) < 1e-5
    assert TorchNet(model, "float32")(x).dtype == "float32"


def test_torchs_network_lends_the_models_memory_and_never_writes_to_it():
    model = narrow()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    theirs = next(TorchNet(model, "float32").modules["classifier.6"].parameters())
    assert np.shares_memory(theirs.detach().numpy(), model.classifier[6].weight.data)
    run(model)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# torch and torchvision themselves


def import_torchvision_or_skip():
    try:
        return import_torchvision()
    except anp.MissingPackageError as error:
        pytest.skip(str(error))


def test_torchvision_is_imported_once():
    torchvision = import_torchvision_or_skip()
    assert import_torchvision() is torchvision
    assert torchvision.models.alexnet


@pytest.mark.parametrize("function", [import_torch, import_torchvision])
def test_a_missing_torch_is_one_line(function, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(anp.MissingPackageError, match=r"^torch cannot be imported \(.*\): pip install torch"):
        function()


def test_a_missing_torchvision_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(anp.MissingPackageError, match=r"^torchvision cannot be imported \(.*\): pip install"):
        import_torchvision()
