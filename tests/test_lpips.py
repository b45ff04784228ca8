"""LPIPS beside the reference package, with its real heads and the same random backbone; its gradient, and its edges."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import fails, run, run_json
from PIL import Image

import alexnet_np as anp
from alexnet_np.study import lpips
from alexnet_np.study.torch_net import import_torchvision

SIDE = 67


@pytest.fixture(scope="module")
def reference():
    import_torchvision()  # whose operators may not load here
    package = pytest.importorskip("lpips")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, of an argument that the package gives
        made = package.LPIPS(net="alex", pnet_rand=True, verbose=False)
        return made.double(), package.LPIPS(net="alex", spatial=True, pnet_rand=True, verbose=False).double()


def ours(reference, dtype):
    """Our network with the reference's random backbone: its slices are features 0..11 in order."""
    model = anp.alexnet("torchvision", dtype=dtype, seed=0)
    state = {name.rpartition("slice")[2].partition(".")[2]: value for name, value in reference.net.state_dict().items()}
    model.load_state_dict({f"features.{name}": value.numpy() for name, value in state.items()}, strict=False)
    return model


@pytest.fixture(scope="module")
def models(reference):
    reference[1].net.load_state_dict(reference[0].net.state_dict())
    return {dtype: ours(reference[0], dtype) for dtype in ("float32", "float64")}


def pictures(rng, n=2, side=SIDE):
    return rng.uniform(-1, 1, (2, n, 3, side, side))


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_distance_and_its_parts(reference, models, rng, dtype, limit, normalize):
    a, b = pictures(rng)
    want, parts = reference[0](torch.from_numpy(a), torch.from_numpy(b), retPerLayer=True, normalize=normalize)
    found = anp.lpips(a, b, models[dtype], normalize=normalize, per_layer=True)
    assert found[0].dtype == dtype and found[0].shape == (2, 1, 1, 1)
    np.testing.assert_allclose(found[0], want.detach().numpy(), rtol=limit)
    for mine, theirs in zip(found[1], parts, strict=True):
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=10 * limit)
    np.testing.assert_array_equal(anp.lpips(a, b, models[dtype], normalize=normalize), found[0])


@pytest.mark.parametrize("size", [(31, 31), (45, 70)])
def test_the_map_as_large_as_the_picture(reference, models, rng, size):
    a, b = rng.uniform(-1, 1, (2, 1, 3, *size))
    want = reference[1](torch.from_numpy(a), torch.from_numpy(b)).detach().numpy()
    found = anp.lpips(a, b, models["float64"], spatial=True)
    assert found.shape == (1, 1, *size)
    np.testing.assert_allclose(found, want, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_gradient(reference, models, rng, spatial, normalize):
    x = [torch.from_numpy(each).requires_grad_() for each in pictures(rng)]
    distance = reference[spatial](*x, normalize=normalize)
    weight = torch.from_numpy(rng.standard_normal(distance.shape))
    (distance * weight).sum().backward()
    value, cache = lpips.forward(*(each.detach().numpy() for each in x), models["float64"], normalize, spatial)
    found = lpips.backward(weight.numpy(), cache)
    for mine, theirs in zip(found, x, strict=True):
        want = theirs.grad.numpy()
        assert abs(mine - want).max() <= 1e-10 * abs(want).max()
    a, b = (each.detach().numpy() for each in x)
    np.testing.assert_array_equal(value, anp.lpips(a, b, models["float64"], normalize, spatial))
    assert all(p.grad is None for p in models["float64"].parameters()), "the backbone is not trained"


def test_more_pairs_than_are_computed_at_once(models, rng):
    a, b = pictures(rng, lpips.CHUNK + 3, 31)
    found = anp.lpips(a, b, models["float64"])
    one_by_one = [anp.lpips(x, y, models["float64"]) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, np.concatenate(one_by_one), rtol=1e-12)


def test_identical_pictures_are_at_no_distance_and_have_a_finite_gradient(models, rng):
    grey = np.zeros((1, 3, SIDE, SIDE))
    for a in (pictures(rng)[0], grey):
        distance, cache = lpips.forward(a, a, models["float64"])
        assert not distance.any()
        assert not any(each.any() for each in lpips.backward(np.ones_like(distance), cache))
    with np.errstate(all="raise"):
        distance, cache = lpips.forward(grey, pictures(rng)[0][:1], models["float64"])
        assert all(np.isfinite(each).all() for each in lpips.backward(np.ones_like(distance), cache))


def test_where_every_map_is_off_the_gradient_is_finite(models, rng):
    model = ours_dark(models["float64"])
    a, b = pictures(rng)
    distance, cache = lpips.forward(a, b, model)
    assert not distance.any() and all(np.isfinite(each).all() for each in lpips.backward(np.ones_like(distance), cache))


def ours_dark(model):
    """A network whose ReLUs are all at 0."""
    state = model.state_dict()
    dark = {name: np.full_like(array, -1) if name.endswith("bias") else array * 0 for name, array in state.items()}
    made = anp.alexnet("torchvision", dtype="float64", seed=0)
    made.load_state_dict(dark)
    return made


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_backends_agree(models, rng, backend):
    a, b = pictures(rng)
    model = models["float32"].to(backend)
    try:
        np.testing.assert_allclose(anp.lpips(a, b, model), anp.lpips(a, b, models["float64"]), rtol=1e-5)
    finally:
        model.to("numpy")


def test_the_metric_over_batches(models, rng):
    model, (a, b) = models["float64"], pictures(rng, 5, 31)
    each = anp.lpips(a, b, model).ravel()
    metric = anp.LPIPS(model)
    metric.update(a[:2], b[:2])
    assert metric(a[2:], b[2:]) == pytest.approx(each[2:].mean(), rel=1e-12)
    assert metric.compute() == pytest.approx(each.mean(), rel=1e-12) and f"{each.mean():.4f} over 5" in repr(metric)
    da, _ = metric.backward()
    _, cache = lpips.forward(a[2:], b[2:], model)
    np.testing.assert_allclose(da, lpips.backward(np.full((3, 1, 1, 1), 1 / 3), cache)[0], rtol=1e-12)
    metric.reset()
    with pytest.raises(anp.ArgumentError, match=r"no pairs yet; call update\(a, b\) first"):
        metric.compute()
    with pytest.raises(anp.ArgumentError, match="call it with two pictures first"):
        metric.backward()
    total = anp.LPIPS(model, reduction="sum")
    total.update(a, b)
    assert total.compute() == pytest.approx(each.sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "error", "said"),
    [
        (
            np.zeros((1, 3, 30, 40)),
            np.zeros((1, 3, 30, 40)),
            anp.ShapeError,
            "30x40, the smallest picture is 31x31",
        ),
        (np.zeros((1, 3, 40, 40)), np.zeros((1, 3, 40, 41)), anp.ShapeError, "both must have the same size"),
        (np.zeros((1, 1, 40, 40)), np.zeros((1, 1, 40, 40)), anp.ShapeError, r"a must be pictures \(N,3,H,W\)"),
        (
            np.zeros((1, 3, 40, 40), np.uint8),
            np.zeros((1, 3, 40, 40)),
            anp.ArgumentError,
            "uint8; give floats in -1",
        ),
        ("cat.jpg", np.zeros((1, 3, 40, 40)), anp.AlexNetError, "a"),
    ],
)
def test_what_is_no_pair_of_pictures_is_refused(models, a, b, error, said):
    with pytest.raises(error, match=said):
        anp.lpips(a, b, models["float32"])


def test_other_networks_and_other_ranges(models, rng):
    with pytest.raises(anp.ArgumentError, match="heads are of torchvision's network at full width"):
        anp.lpips(*pictures(rng, 1), anp.alexnet("torchvision", width=1 / 8, seed=0))
    with pytest.raises(anp.ArgumentError, match="got paper with"):
        anp.LPIPS(anp.alexnet("paper", seed=0))
    with pytest.warns(UserWarning, match=r"values up to 255, where pictures have -1..1"):
        anp.lpips(np.full((1, 3, 40, 40), 255.0), np.zeros((1, 3, 40, 40)), models["float32"])


def test_the_command(tmp_path, rng):
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        for i in range(2):
            noise = np.random.default_rng(seed + i).integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{i}.png")
    weights = tmp_path / "w.safetensors"
    model = anp.alexnet("torchvision", seed=0)
    anp.weights.write(weights, model)
    a, b = tmp_path / "a" / "0.png", tmp_path / "b" / "0.png"
    read = [np.asarray(Image.open(p), np.float32).transpose(2, 0, 1) / np.float32(127.5) - 1 for p in (a, b)]
    want = float(anp.lpips(*read, model).item())
    found = run_json("lpips", a, b, "-w", weights, "--spatial", tmp_path / "map.png")
    assert found["pairs"][0]["distance"] == pytest.approx(want, rel=1e-5)
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.width > 200
    assert f"{want:.4f}" in run("lpips", a, b, "-w", weights).stdout

    (tmp_path / "b" / "alone.png").write_bytes(a.read_bytes())
    (tmp_path / "b" / "1.png").write_bytes(b"no picture")
    result = run("lpips", tmp_path / "a", tmp_path / "b", "-w", weights, code=1)
    assert "mean of 1 pair" in result.stdout and f"{want:.4f}" in result.stdout
    assert "alone.png: only in" in result.stderr and "1.png" in result.stderr


def test_mistakes_at_the_command_are_one_line(tmp_path):
    Image.new("RGB", (40, 50)).save(tmp_path / "a.png")
    Image.new("RGB", (50, 40)).save(tmp_path / "b.png")
    (tmp_path / "folder").mkdir()
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    assert "same size" in fails("lpips", a, b, "-w", "random")
    assert "two pictures or two folders" in fails("lpips", a, tmp_path / "folder", "-w", "random")
    assert "no such file" in fails("lpips", a, Path("nowhere.png"), "-w", "random")
    assert "no pictures of the same name" in fails("lpips", tmp_path / "folder", tmp_path / "folder", "-w", "random")
