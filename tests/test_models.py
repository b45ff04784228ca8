"""The presets: published figures, torch's and torchvision's numbers, and everything that a model offers.

Narrow copies keep this quick; what needs the published widths takes `full_size`.
"""

import threading
from functools import cache

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np.layers import Linear
from alexnet_np.presets import PRESETS
from alexnet_np.sequential import Sequential
from alexnet_np.study.verify import import_torchvision


@cache
def full_size(preset):
    return anp.alexnet(preset, seed=0).eval()


def narrow(preset="torchvision", **options):
    return anp.alexnet(preset, **{"width": 1 / 16, "seed": 0, **options})


def random_input(model, N=2, H=67, W=None, seed=0):
    """x (N,C,H,W) of the model's channels and dtype; 67x67 is the smallest that every preset takes."""
    x = np.random.default_rng(seed).standard_normal((N, model.in_channels, H, W or H))
    return x.astype(model.dtype)


def relative(a, truth):
    return np.linalg.norm(a - truth) / np.linalg.norm(truth)


def gradients(model, x, dlogits):
    """(logits, dx, every parameter's gradient) of a fresh backward."""
    model.zero_grad()
    logits = model(x)
    return logits, model.backward(dlogits), {name: p.grad for name, p in model.named_parameters()}


# Published figures


@pytest.mark.parametrize(
    ("preset", "shapes"),
    [
        ("torchvision", "64x55x55 64x27x27 192x27x27 192x13x13 384x13x13 256x13x13 256x13x13 256x6x6"),
        ("paper", "96x55x55 96x27x27 256x27x27 256x13x13 384x13x13 384x13x13 256x13x13 256x6x6"),
        ("d2l", "96x54x54 96x26x26 256x26x26 256x12x12 384x12x12 384x12x12 256x12x12 256x5x5"),
    ],
)
def test_shapes_block_by_block_full_size(preset, shapes):
    rows = [row for row in anp.summary(full_size(preset)).layers if row.type in ("Conv2d", "MaxPool2d")]
    assert ["x".join(map(str, row.output_shape[1:])) for row in rows] == shapes.split()


@pytest.mark.parametrize(
    ("preset", "parameters", "macs"),
    [
        ("torchvision", 61_100_840, 714_188_480),
        ("paper", 60_965_224, 724_406_816),
        ("d2l", 46_764_746, 938_146_176),
    ],
)
def test_parameters_and_macs_full_size(preset, parameters, macs):
    model = full_size(preset)
    assert sum(p.data.size for p in model.parameters()) == parameters
    assert model.macs((1, model.in_channels, 224, 224)) == macs


def test_d2ls_net_an_eighth_as_wide_has_737506_parameters():
    assert anp.summary(anp.alexnet("d2l", width=1 / 8)).parameters == 737_506


# Beside torchvision's own network


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def torchvision(torch):
    try:
        return import_torchvision()
    except anp.MissingPackageError as error:
        pytest.skip(str(error))


def test_names_order_and_shapes_are_torchvisions_full_size(torch, torchvision):
    with torch.device("meta"):
        theirs = torchvision.models.alexnet()
    ours = full_size("torchvision")
    ours_shapes, their_shapes = ({k: v.shape for k, v in net.state_dict().items()} for net in (ours, theirs))
    assert list(ours_shapes.items()) == list(their_shapes.items())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_logits_are_torchvisions_full_size(torch, torchvision, seed):
    torch.manual_seed(seed)
    theirs = torchvision.models.alexnet().eval()
    model = anp.alexnet("torchvision", weights=theirs.state_dict()).eval()
    x = random_input(model, 4, 224, seed=seed)
    ours = model(x)
    with torch.no_grad():
        float32, truth = theirs(torch.from_numpy(x)).numpy(), theirs.double()(torch.from_numpy(x).double()).numpy()
    assert np.abs(ours - float32).max() < 1e-5 * np.abs(float32).max()
    assert relative(ours, truth) < 1.5 * relative(float32, truth)
    assert (np.argsort(ours)[:, -5:] == np.argsort(truth)[:, -5:]).all()


def test_all_16_gradients_in_float64_are_torchvisions_full_size(torch, torchvision):
    model = anp.alexnet("torchvision", dtype="float64", seed=3).eval()
    theirs = torchvision.models.alexnet().double().eval()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in model.state_dict().items()})
    assert_float64_gradients_equal(torch, model, theirs, random_input(model, 1, 224))


# Beside networks written with torch.nn from the paper and from the book: not from our layer lists


def paper_in_torch(nn, w):
    def norm():
        return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2)  # torch divides alpha by the size

    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, w(96), 11, 4), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(w(96), w(256), 5, padding=2, groups=2), nn.ReLU(), norm(), nn.MaxPool2d(3, 2),
        nn.Conv2d(w(256), w(384), 3, padding=1), nn.ReLU(),
        nn.Conv2d(w(384), w(384), 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(w(384), w(256), 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(w(256) * 36, w(4096)), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(w(4096), w(4096)), nn.ReLU(), nn.Dropout(0.5), nn.Linear(w(4096), 1000),
    )  # fmt: skip


def d2l_in_torch(nn, w):
    return nn.Sequential(
        nn.Conv2d(1, w(96), 11, stride=4), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(w(96), w(256), 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(w(256), w(384), 3, padding=1), nn.ReLU(),
        nn.Conv2d(w(384), w(384), 3, padding=1), nn.ReLU(),
        nn.Conv2d(w(384), w(256), 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(w(256) * 25, w(4096)), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(w(4096), w(4096)), nn.ReLU(), nn.Dropout(0.5), nn.Linear(w(4096), 10),
    )  # fmt: skip


def in_torch(torch, model):
    build = {"paper": paper_in_torch, "d2l": d2l_in_torch}[model.preset]
    net = build(torch.nn, lambda full: full // 16).to(getattr(torch, str(model.dtype))).eval()
    arrays = model.state_dict().values()  # the same order; the names count other layers
    net.load_state_dict({name: torch.from_numpy(a) for name, a in zip(net.state_dict(), arrays, strict=True)})
    return net


@pytest.mark.parametrize("preset", ["paper", "d2l"])
def test_all_gradients_in_float64_are_torchs(torch, preset):
    model = narrow(preset, dtype="float64").eval()
    for parameter in model.parameters():  # large enough that local response normalisation matters
        parameter.data *= 3
    assert_float64_gradients_equal(torch, model, in_torch(torch, model), 10 * random_input(model, 2, 224))


@pytest.mark.parametrize("preset", ["paper", "d2l"])
def test_logits_in_float32_are_as_exact_as_torchs(torch, preset):
    model = narrow(preset).eval()
    net, x = in_torch(torch, model), random_input(model, 4, 224)
    with torch.no_grad():
        float32, truth = net(torch.from_numpy(x)).numpy(), net.double()(torch.from_numpy(x).double()).numpy()
    assert relative(model(x), truth) < 1.5 * relative(float32, truth)


def assert_float64_gradients_equal(torch, model, net, x):
    dlogits = np.random.default_rng(1).standard_normal((len(x), model.num_classes))
    logits, dx, ours = gradients(model, x, dlogits)
    entered = torch.from_numpy(x).requires_grad_()
    y = net(entered)
    y.backward(torch.from_numpy(dlogits))
    assert relative(logits, y.detach().numpy()) < 1e-10
    assert relative(dx, entered.grad.numpy()) < 1e-10
    assert len(ours) == 16
    for (name, gradient), parameter in zip(ours.items(), net.parameters(), strict=True):
        assert relative(gradient, parameter.grad.numpy()) < 1e-10, name


# Input sizes, channels, classes, widths


@pytest.mark.parametrize(("H", "W"), [(63, 63), (63, 200), (96, 80), (224, 224), (300, 200)])
def test_any_size_from_63_up_goes_through_the_adaptive_pool(torch, torchvision, H, W):
    model = narrow(dtype="float64").eval()
    x = random_input(model, 2, H, W)
    net = torchvision.models.alexnet(num_classes=1)
    head = torch.nn.AdaptiveAvgPool2d((6, 6))
    for ours, theirs in zip(model.features, net.features, strict=True):  # torchvision's strides and paddings, narrow
        if hasattr(ours, "weight"):
            theirs.weight, theirs.bias = (torch.nn.Parameter(torch.from_numpy(p.data)) for p in ours.parameters())
    features = head(net.features(torch.from_numpy(x))).detach().numpy()
    assert relative(model.avgpool(model.features(x)), features) < 1e-12
    assert model(x).shape == (2, 1000) == model.output_shape(x.shape)


@pytest.mark.parametrize(("preset", "least"), [("torchvision", 63), ("paper", 64), ("d2l", 67)])
def test_the_smallest_input_is_named(preset, least):
    model = narrow(preset)
    assert model.smallest_input() == least
    assert model(random_input(model, 1, least)).shape == (1, model.num_classes)
    too_small = rf"^model: 300x{least - 1} is too small for '{preset}': the smallest input is {least}x{least}$"
    with pytest.raises(anp.ShapeError, match=too_small):
        model(random_input(model, 1, 300, least - 1))


def test_wrong_inputs_are_refused_in_one_line():
    model = narrow()
    with pytest.raises(anp.ShapeError, match=r"x must be \(N,3,H,W\), got shape \(3, 67, 67\); .* x\[None\]"):
        model(random_input(model)[0])
    with pytest.raises(anp.ShapeError, match=r"x must be \(N,3,H,W\), got shape \(2, 67, 67, 3\)"):
        model(random_input(model).transpose(0, 2, 3, 1))
    with pytest.raises(anp.DtypeError, match="uint8"):
        model(np.zeros((1, 3, 67, 67), "uint8"))
    with pytest.raises(anp.DtypeError, match="float64"):
        model(random_input(model).astype("float64"))
    with pytest.raises(anp.DtypeError, match="must be an array, got list"):
        model([[0.0]])


def test_an_empty_batch_gives_no_logits_and_zero_gradients():
    model = narrow()
    assert model(np.zeros((0, 3, 67, 67), "float32")).shape == (0, 1000)
    assert model.backward(np.zeros((0, 1000), "float32")).shape == (0, 3, 67, 67)
    assert not any(p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_custom_classes_channels_and_width(preset):
    model = anp.alexnet(preset, num_classes=7, in_channels=5, width=1 / 32, seed=0)
    assert (model.num_classes, model.in_channels) == (7, 5)
    assert model(random_input(model)).shape == (2, 7)
    filters = {"torchvision": 2, "paper": 4, "d2l": 3}  # 64/32, and 96/32 made even for the paper's two groups
    assert model.features[0].weight.shape[0] == filters[preset]
    assert str(model).startswith(f"AlexNet('{preset}',\n  (features): Sequential(\n    (0): Conv2d(5, ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "vgg"}, "unknown preset 'vgg': choose one of torchvision"),
        ({"num_classes": 0}, "num_classes .0."),
        ({"in_channels": -1}, "in_channels .-1."),
        ({"width": 0}, "width .0."),
        ({"backend": "tpu"}, "unknown backend 'tpu': choose one of"),
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64', got 'float16'"),
        ({"dtype": "nonsense"}, "dtype must be 'float32' or 'float64', got 'nonsense'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(anp.AlexNetError, match=message):
        anp.alexnet(**{"width": 1 / 32, **options})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_tensors_are_taken_as_input_and_left_alone(torch, dtype):
    model = narrow(dtype=dtype).eval()
    x = random_input(model)
    tensor, strided = torch.tensor(x), torch.tensor(x).contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(model(tensor), model(x))
    assert relative(model(strided), model(x)) < 1e-5
    assert model.backward(torch.ones(2, 1000, dtype=tensor.dtype)).shape == x.shape
    np.testing.assert_array_equal(tensor.numpy(), x)
    with pytest.raises(anp.DtypeError, match="^model: x: a Tensor that cannot be read"):
        model(tensor.requires_grad_())


# Parameters: seeds, dtypes, state dicts


def test_a_seed_fixes_every_parameter_in_both_dtypes():
    float32, again, float64, other = narrow(), narrow(), narrow(dtype="float64"), narrow(seed=1)
    for name, array in float32.state_dict().items():
        np.testing.assert_array_equal(array, again.state_dict()[name])
        np.testing.assert_array_equal(array, float64.state_dict()[name])
        assert array.dtype == "float32"
        assert float64.state_dict()[name].dtype == "float64"
        assert not np.array_equal(array, other.state_dict()[name])
    assert not np.array_equal(narrow(seed=None).features[0].weight.data, narrow(seed=None).features[0].weight.data)


def test_initial_values_are_uniform_within_torchs_bound_full_size():
    for name, parameter in full_size("d2l").named_parameters():
        bound = 1 / np.sqrt(parameter.fan_in)
        assert abs(parameter.data).max() <= bound * (1 + 1e-6), name
        if name.endswith("weight"):
            assert parameter.data.std() == pytest.approx(bound / np.sqrt(3), rel=0.02), name
            assert parameter.fan_in == parameter.data[0].size


def test_float64_and_float32_of_one_model_agree():
    model = narrow().eval()
    x = random_input(model)
    float32 = model(x)
    assert relative(float32, model.astype("float64")(x.astype("float64"))) < 1e-5
    assert model.dtype == "float64"


def test_a_state_dict_round_trip_copies():
    model, other = narrow(seed=1), narrow(seed=2, dtype="float64")
    assert other.load_state_dict(model.state_dict()) == ([], [])
    before = other.features[0].weight.data.copy()
    model.features[0].weight.data += 1
    np.testing.assert_array_equal(other.features[0].weight.data, before)
    assert other.dtype == "float64"  # the model's own, whatever the mapping holds


def test_a_state_dict_is_loaded_into_the_memory_that_is_there():
    model, given = narrow(seed=1), narrow(seed=2).state_dict()
    before = model.state_dict()
    model.load_state_dict({name: array[..., ::-1][..., ::-1].astype("float64") for name, array in given.items()})
    for name, array in model.state_dict().items():
        assert array is before[name]
        np.testing.assert_array_equal(array, given[name])


def test_a_state_dict_that_does_not_fit_is_refused_whole():
    model = narrow()
    state = {name: array + 1 for name, array in model.state_dict().items()}
    before = {name: array.copy() for name, array in model.state_dict().items()}
    del state["features.3.bias"]
    state["classifier.9.weight"] = np.zeros(3, "float32")
    with pytest.raises(anp.WeightsError) as caught:
        model.load_state_dict(state)
    assert "features.3.bias" in str(caught.value)
    assert "classifier.9.weight" in str(caught.value)
    assert "\n" not in str(caught.value)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])

    assert model.load_state_dict(state, strict=False) == (["features.3.bias"], ["classifier.9.weight"])
    np.testing.assert_array_equal(model.features[0].weight.data, state["features.0.weight"])
    np.testing.assert_array_equal(model.features[3].bias.data, before["features.3.bias"])


@pytest.mark.parametrize("strict", [True, False])
def test_a_wrong_shape_is_refused_strict_or_not(strict):
    model = narrow()
    state = dict(model.state_dict(), **{"classifier.6.weight": np.zeros((10, 256), "float32")})
    with pytest.raises(anp.WeightsError, match=r"classifier\.6\.weight.*\(10, 256\)"):
        model.load_state_dict(state, strict)


def test_weights_can_be_given_as_a_mapping():
    state = narrow(seed=1).state_dict()
    for name, array in narrow(weights=state, seed=2).state_dict().items():
        np.testing.assert_array_equal(array, state[name])


# Modes, gradients, freezing, a new head


def test_training_draws_dropout_by_the_seed_and_evaluation_drops_nothing():
    first, second = narrow(), narrow()
    x = random_input(first)
    assert first.training
    trained = first(x)
    np.testing.assert_array_equal(trained, second(x))  # same seed, same masks
    assert not np.array_equal(first(x), trained)  # and new ones at every call
    assert first.eval() is first
    np.testing.assert_array_equal(first(x), first(x))
    first.train()
    assert not np.array_equal(first(x), first(x))


def test_the_dropout_layers_of_a_model_draw_differently():
    model = narrow("paper")
    x = np.ones((2, 256), "float32")
    assert not np.array_equal(model.classifier[2](x), model.classifier[5](x))


def test_gradients_accumulate_until_zero_grad():
    model = narrow().eval()
    x, dlogits = random_input(model), np.ones((2, 1000), "float32")
    once = gradients(model, x, dlogits)[2]
    model.backward(dlogits)
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.grad, 2 * once[name])
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_the_input_gradient_is_left_out_on_request():
    model = narrow().eval()
    expected = gradients(model, random_input(model), np.ones((2, 1000), "float32"))[2]
    model.zero_grad()
    assert model.backward(np.ones((2, 1000), "float32"), input_grad=False) is None
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(parameter.grad, expected[name])


def test_no_grad_needs_a_new_forward_before_backward():
    model = narrow()
    with anp.no_grad():
        logits = model(random_input(model))
    with pytest.raises(anp.AlexNetError, match="backward needs a forward first"):
        model.backward(np.ones_like(logits))


def test_freezing_stops_the_backward_early():
    model = narrow().eval()
    reached = []
    for name, layer in model.leaves():
        layer.register_full_backward_hook(lambda layer, dx, dy, name=name: reached.append(name))
    assert model.freeze("features") is model
    model(random_input(model))
    model.backward(np.ones((2, 1000), "float32"), input_grad=False)
    assert reached[-1] == "classifier.1"
    assert all((p.grad is None) == name.startswith("features") for name, p in model.named_parameters())
    with pytest.raises(anp.ArgumentError, match="no parameter is named 'feature_map'"):
        model.freeze("feature_map")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_replace_head(dtype):
    model = narrow(dtype=dtype).eval()
    x, body = random_input(model), {k: v.copy() for k, v in model.state_dict().items() if "classifier.6" not in k}
    assert model.replace_head(5, seed=9) is model
    assert model.num_classes == 5
    assert model(x).shape == (2, 5)
    assert model(x).dtype == dtype
    for name, array in body.items():
        np.testing.assert_array_equal(model.state_dict()[name], array)
    np.testing.assert_array_equal(
        model.classifier[6].weight.data, narrow(dtype=dtype).replace_head(5, seed=9).classifier[6].weight.data
    )
    model.backward(np.ones((2, 5), dtype))
    assert model.classifier[6].weight.grad.shape == (5, 256)
    with pytest.raises(anp.ArgumentError, match="num_classes must be positive, got 0"):
        model.replace_head(0)


# Hooks and slices


def test_the_embedding_by_slice_and_by_hook_is_the_same():
    model = narrow().eval()
    x, kept = random_input(model), {}
    handle = model.classifier[5].register_forward_hook(lambda layer, x, y: kept.update(embedding=y))
    logits = model(x)
    handle.remove()
    copy = kept["embedding"].copy()
    by_slice = model.classifier[:6](model.flatten(model.avgpool(model.features(x))))
    np.testing.assert_array_equal(kept["embedding"], by_slice)
    model(x + 1)
    np.testing.assert_array_equal(kept["embedding"], copy)  # removed, and never overwritten
    assert isinstance(model.classifier[:6], Sequential)
    assert isinstance(model.classifier[-1], Linear)
    np.testing.assert_array_equal(model.classifier[6](by_slice), logits)


def test_what_hooks_on_every_layer_keep_never_changes():
    model, kept, copies = narrow(), [], []

    def keep(layer, first, second):
        kept.extend([first, second])
        copies.extend([first.copy(), second.copy()])

    for _, layer in model.leaves():
        layer.register_forward_hook(keep)
        layer.register_full_backward_hook(keep)
    for seed in range(2):
        model(random_input(model, seed=seed))
        model.backward(np.ones((2, 1000), "float32"))
    for array, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_hooks_on_the_whole_model():
    model, seen = narrow().eval(), {}
    x, dlogits = random_input(model), np.ones((2, 1000), "float32")
    logits = model(x)
    with model.register_forward_hook(lambda model, x, y: y + 1):
        np.testing.assert_array_equal(model(x), logits + 1)
    with model.register_full_backward_hook(lambda model, dx, dy: seen.update(dx=dx, dy=dy)):
        assert model.backward(dlogits) is seen["dx"]
    assert seen["dy"] is dlogits


def test_the_input_is_left_alone():
    model = narrow()
    x, dlogits = random_input(model), np.ones((2, 1000), "float32")
    before = x.copy()
    gradients(model, x, dlogits)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(dlogits, 1)


# Backends and threads


def backends_here():
    return [name for name, usable in anp.available_backends().items() if usable is True]


@pytest.mark.parametrize("backend", backends_here())
@pytest.mark.parametrize("preset", PRESETS)
def test_every_backend_gives_the_array_operations_numbers(backend, preset):
    reference, model = narrow(preset, dtype="float64"), narrow(preset, dtype="float64", backend=backend)
    x = random_input(model)
    xp = type(model.features[0].weight.data)
    dlogits = np.random.default_rng(1).standard_normal((2, model.num_classes))
    expected = gradients(reference, x, dlogits)
    if xp is not np.ndarray:
        import cupy

        x, dlogits = cupy.asarray(x), cupy.asarray(dlogits)
    logits, dx, grads = gradients(model, x, dlogits)
    for ours, truth in [(logits, expected[0]), (dx, expected[1]), *((grads[k], expected[2][k]) for k in grads)]:
        assert type(ours) is xp
        assert relative(ours if xp is np.ndarray else ours.get(), truth) < 1e-12


@pytest.mark.parametrize("backend", [name for name in backends_here() if name in ("numpy", "numba")])
def test_two_models_in_two_threads(backend):
    models = [narrow("torchvision", seed=0, backend=backend), narrow("paper", seed=1, backend=backend)]
    inputs = [random_input(model, 2, 96) for model in models]
    dlogits = np.ones((2, 1000), "float32")
    expected = [gradients(model, x, dlogits) for model, x in zip(models, inputs, strict=True)]
    for _, layer in [leaf for model in models for leaf in model.leaves()]:
        if hasattr(layer, "calls"):
            layer.calls = 0
    found = [None, None]

    def work(i):
        found[i] = gradients(models[i], inputs[i], dlogits)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (logits, dx, grads), (expected_logits, expected_dx, expected_grads) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(logits, expected_logits)
        np.testing.assert_array_equal(dx, expected_dx)
        for name, gradient in grads.items():
            np.testing.assert_array_equal(gradient, expected_grads[name])


def test_no_grad_in_one_thread_leaves_the_others_alone():
    model, failed = narrow().eval(), []

    def work():
        try:
            gradients(model, random_input(model), np.ones((2, 1000), "float32"))
        except anp.AlexNetError as error:
            failed.append(error)

    with anp.no_grad():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert not failed
