"""The presets: published figures, torch's and torchvision's numbers, and everything that a model offers.

Narrow copies keep this quick; what needs the published widths takes `full_size`.
"""

import numpy as np
import pytest
from small_networks import full_size, gradients, narrow, random_input, relative

import alexnet_np as anp
from alexnet_np.presets import PRESETS
from alexnet_np.study.verify import import_torchvision

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


def paper_in_torch(torch, w):
    nn = torch.nn

    class Norm(nn.LocalResponseNorm):
        """Each tower by itself."""

        def forward(self, x):
            return torch.cat([super(Norm, self).forward(tower) for tower in x.chunk(2, 1)], 1)

    def norm():
        return Norm(5, alpha=5 * 1e-4, beta=0.75, k=2)  # torch divides alpha by the size

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


def d2l_in_torch(torch, w):
    nn = torch.nn
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
    net = build(torch, lambda full: full // 16).to(getattr(torch, str(model.dtype))).eval()
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
    with pytest.raises(
        anp.ShapeError, match=r"got shape \(2, 67, 67, 3\), channels last; give it numpy\.moveaxis\(x, -1, -3\)$"
    ):
        model(random_input(model).transpose(0, 2, 3, 1))
    with pytest.raises(anp.DtypeError, match=r"x holds bytes, as pictures do; give it anp\.preprocess\(x\)$"):
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
    filters = {"torchvision": 2, "d2l": 3, "lenet5": 1}.get(preset, 4)  # 64/32, and 96/32 made even for two groups
    assert model.features[0].weight.shape[0] == filters
    assert str(model).startswith(f"AlexNet('{preset}',\n  (features): Sequential(\n    (0): Conv2d(5, ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "vgg"}, "unknown preset 'vgg': choose one of torchvision"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"in_channels": -1}, "in_channels must be at least 1, got -1"),
        ({"width": 0}, "width must be positive, got 0.0"),
        ({"backend": "tpu"}, "unknown backend 'tpu': choose one of"),
        ({"dtype": "float16"}, "dtype must be float32 or float64, got 'float16'"),
        ({"dtype": "nonsense"}, "dtype must be float32 or float64, got 'nonsense'"),
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


# Hooks and slices


# Backends and threads


def test_assigned_arrays_are_the_models_own_and_none_is_shared():
    model, given = narrow(seed=1), narrow(seed=2).state_dict()
    first, second = list(given)[:2]
    given[first] = given[first].astype("float64")  # of another dtype: copied
    assert model.load_state_dict(given, assign=True) == ([], [])
    own = dict(model.named_parameters())
    assert own[second].data is given[second] and own[first].data.dtype == np.float32
    tied = {name: array.copy() for name, array in model.state_dict().items()}
    twins = [name for name, p in own.items() if p.shape == own["classifier.1.bias"].shape]
    assert len(twins) > 1
    for name in twins:
        tied[name] = tied[twins[0]]
    model.load_state_dict(tied, assign=True)
    assert not np.shares_memory(own[twins[0]].data, own[twins[1]].data)
    frozen = {name: array.copy() for name, array in tied.items()}
    frozen[second].flags.writeable = False
    model.load_state_dict(frozen, assign=True)
    assert own[second].data is not frozen[second]
    np.testing.assert_array_equal(own[second].data, frozen[second])


def test_a_file_is_read_into_the_parameters_and_a_mapping_is_copied(tmp_path):
    given = narrow(seed=2).state_dict()
    anp.weights.write(tmp_path / "w.safetensors", given)
    loaded = anp.alexnet(None, weights=tmp_path / "w.safetensors")
    copied = anp.alexnet("torchvision", weights=given, width=None)
    for (name, p), (_, q) in zip(loaded.named_parameters(), copied.named_parameters(), strict=True):
        np.testing.assert_array_equal(p.data, given[name])
        assert p.data.flags.writeable and not np.shares_memory(q.data, given[name])
