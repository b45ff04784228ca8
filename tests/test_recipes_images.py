"""What the recipes of 2012 do to images, and to ties: the mean image, OpenCV's resizing, the second JPEG. A run with
all of it, killed and resumed, evaluated, converted, shared by processes."""

from __future__ import annotations

import io
import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import cuda_shim
import numpy as np
import pytest
from PIL import Image
from test_recipes import run
from test_training import Crash, crash_at, weights_of
from thread_groups import everybody

import alexnet_np as anp
from alexnet_np import ops
from alexnet_np.data.augment import IMAGENET_COLOUR, CenterCrop, RandomCrop, TenCrop
from alexnet_np.data.dataset import ArrayDataset
from alexnet_np.data.loader import Loader
from alexnet_np.data.mean_image import MeanImage, add_up
from alexnet_np.data.preprocess import read_pixels
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.data.resize import resized
from alexnet_np.errors import ArgumentError, WeightsError
from alexnet_np.export import Changes, convert
from alexnet_np.identity import recipe_of
from alexnet_np.layers import Conv2d, Dropout, MaxPool2d, ReLU
from alexnet_np.training.config import Config
from alexnet_np.training.loop import Trainer
from alexnet_np.training.recipes import configured, settings
from alexnet_np.training.trained import open_trained
from alexnet_np.weights import seal

SMALL = Preprocessing(resize=12, crop=8, mode="RGB", scale=1, mean=(0, 0, 0), std=(1, 1, 1))
PIXELS = np.random.default_rng(0).integers(0, 256, (7, 12, 12, 3), dtype=np.uint8)
DATA = ArrayDataset(PIXELS, np.arange(7) % 2, ["a", "b"])


def recipe_with(at: str, **more: Any) -> Preprocessing:
    mean = MeanImage(PIXELS.mean(0, dtype=np.float64).astype(np.float32), at)
    return SMALL._replace(mean_image=mean, **more)


def applied(augment: Any, u: Any = (0.99, 0.3, 0.4, 0, 0, 0, 0)) -> np.ndarray:
    out = np.empty(augment.shape, np.float32)
    augment(PIXELS[0], np.array(u, np.float64), out)
    return out


# The mean image


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_it_is_the_mean_by_whomever_it_is_added_up(workers: int) -> None:
    total = add_up(DATA, lambda pixels: pixels, range(7), workers)
    np.testing.assert_array_equal(total, PIXELS.sum(0, dtype=np.int64))
    parts = [add_up(DATA, lambda pixels: pixels, range(7)[rank::3], workers) for rank in range(3)]
    np.testing.assert_array_equal(sum(parts), total)


def test_caffes_goes_with_the_crop_and_the_authors_stays() -> None:
    mean = PIXELS.mean(0, dtype=np.float64)
    top, left = 4, 1  # what u says: of 0 to 4
    here, centre = np.s_[top : top + 8, left : left + 8], np.s_[2:10, 2:10]
    mirrored = PIXELS[0].astype(np.float64)[here][:, ::-1]
    for at, minus in (("place", mean[here][:, ::-1]), ("centre", mean[centre])):
        found = applied(RandomCrop(recipe_with(at)))
        np.testing.assert_allclose(found, np.moveaxis(mirrored - minus, -1, 0), atol=2e-5)
        bgr = applied(RandomCrop(recipe_with(at, mode="BGR", scale=2.0)))
        np.testing.assert_allclose(bgr, found[::-1] / 2, atol=2e-5)
        one = np.moveaxis(PIXELS[0][centre] - mean[centre], -1, 0)
        np.testing.assert_allclose(applied(CenterCrop(recipe_with(at))), one, atol=2e-5)
    ten = {at: applied(TenCrop(recipe_with(at))) for at in ("place", "centre")}
    plain = applied(TenCrop(SMALL))
    np.testing.assert_allclose(ten["place"][5], ten["place"][1][..., ::-1], atol=2e-5)  # of the whole image, mirrored
    for i in range(10):
        np.testing.assert_allclose(plain[i] - ten["centre"][i], np.moveaxis(mean[centre], -1, 0), atol=2e-5)


def test_noise_ends_after_its_epochs() -> None:
    augment = RandomCrop(SMALL, colour=IMAGENET_COLOUR, divisor=1.1, colour_epochs=1)
    loud, silent = ([x for x, _ in Loader(DATA, 7, augment=augment).epoch(epoch)][0] for epoch in (0, 1))
    np.testing.assert_array_equal(silent, [x for x, _ in Loader(DATA, 7, augment=RandomCrop(SMALL)).epoch(1)][0])
    assert not np.array_equal(loud, np.rint(loud))


# Resizing and JPEG


@pytest.mark.parametrize("size", [(31, 47), (17, 9), (60, 60), (97, 93), (200, 110)])
@pytest.mark.parametrize("way", ["area", "linear"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_resizing_is_opencvs(size: tuple[int, int], way: str, mode: str) -> None:
    cv2 = pytest.importorskip("cv2")
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (93, 97, 3), dtype=np.uint8)).convert(mode)
    grows = size[0] > 97 or size[1] > 93
    theirs = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_CUBIC if grows else cv2.INTER_AREA}[way]
    want = cv2.resize(np.asarray(picture), size, interpolation=theirs)
    found = resized(picture, size, way)
    assert (found.size, found.mode) == (size, mode)
    assert np.abs(np.asarray(found).astype(int) - want).max() <= 1  # its fixed-point weights
    assert (np.asarray(found) != want).mean() < 0.15


def test_the_square_is_stored_as_jpeg_before_crops_are_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    Image.fromarray(rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    plain = read_pixels(tmp_path / "a.png", SMALL._replace(crop=12))
    file = io.BytesIO()
    Image.fromarray(plain).save(file, "JPEG", quality=95)
    want = np.asarray(Image.open(file))
    assert not np.array_equal(want, plain)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png", SMALL._replace(crop=12, jpeg=95)), want)
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png", SMALL._replace(jpeg=95)), want[2:10, 2:10])


# Ties


def literal_ties(x: np.ndarray, dy: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    dx = np.zeros_like(x)
    for (n, c, i, j), given in np.ndenumerate(dy):
        window = np.s_[n, c, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        dx[window] += np.where(x[window] == x[window].max(), given, 0)
    return dx


@pytest.fixture(params=["numpy", "numba", cuda_shim.NAME])
def backend(request: Any) -> Any:
    if request.param != cuda_shim.NAME:
        yield request.param
        return
    if cuda_shim.compiler() is None:
        pytest.skip("needs g++ to compile the CUDA sources as C++")
    with cuda_shim.as_backend() as name:
        yield name


def test_every_maximum_gets_the_gradient(backend: str, rng: Any) -> None:
    x = rng.integers(0, 3, (2, 17, 9, 8)).astype(np.float32)  # hardly a window without a tie
    with anp.use_backend(backend):
        y, cache = ops.max_pool2d.forward(x, 3, 2, ceil_mode=True, ties="all")
        dy = rng.standard_normal(y.shape).astype(np.float32)
        found = ops.max_pool2d.backward(dy, cache)
        np.testing.assert_allclose(found, literal_ties(x, dy, 3, 2), rtol=1e-5, atol=1e-5)
        one = ops.max_pool2d.backward(dy[0], ops.max_pool2d.forward(x[0], 3, 2, ceil_mode=True, ties="all")[1])
        np.testing.assert_array_equal(one, found[0])
        distinct = rng.permutation(x.size).reshape(x.shape).astype(np.float32)
        caches = [ops.max_pool2d.forward(distinct, 3, 2, padding=1, ties=ties)[1] for ties in ("first", "all")]
        dy = rng.standard_normal(caches[0].switches.shape).astype(np.float32)
        np.testing.assert_allclose(*(ops.max_pool2d.backward(dy, cache) for cache in caches), rtol=1e-5, atol=1e-6)
        distinct[0, 0, 4, 4] = np.nan
        caches = [ops.max_pool2d.forward(distinct, 3, 2, padding=1, ties=ties)[1] for ties in ("first", "all")]
        np.testing.assert_allclose(*(ops.max_pool2d.backward(dy, cache) for cache in caches), rtol=1e-5, atol=1e-6)
        with pytest.raises(ArgumentError, match="unknown ties 'last': choose one of first, all"):
            ops.max_pool2d.forward(x, 3, ties="last")


def test_kernels_that_run_together_heed_it(rng: Any) -> None:
    """Over an even picture, with numbers of which sums are exact, so that what is equal is so in every backend."""
    x = np.repeat(rng.integers(-3, 4, (2, 3, 1, 1)).astype(np.float32), 67, 2).repeat(67, 3)
    x[:, :, 30:, 30:] = rng.integers(-3, 4, (2, 3, 37, 37))
    target, found = np.array([0, 2]), {}
    for name, ties in itertools.product(("numpy", "numba"), ("first", "all")):
        model = anp.alexnet("torchvision", width=1 / 8, num_classes=3, seed=0, backend=name)
        for layer in model.modules():
            if isinstance(layer, Conv2d):
                for parameter in layer.parameters():
                    parameter.data = np.rint(parameter.data * 64) / 8
            if isinstance(layer, MaxPool2d):
                layer.ties = ties
            if isinstance(layer, Dropout):
                layer.p = 0.0
        _, cache = ops.cross_entropy.forward(model(x), target)
        model.backward(ops.cross_entropy.backward(np.float32(1), cache))
        found[name, ties] = {n: p.grad for n, p in model.named_parameters()}
    for ties in ("first", "all"):
        for parameter, want in found["numpy", ties].items():
            np.testing.assert_allclose(found["numba", ties][parameter], want, rtol=0, atol=2e-4 * np.abs(want).max())
    first, every = (found["numba", ties]["features.0.bias"] for ties in ("first", "all"))
    assert np.abs(first - every).max() > 0.1 * np.abs(every).max()
    with pytest.raises(ArgumentError, match="train layer by layer"):
        anp.compile_training(model, anp.SGD(model.named_parameters(), lr=0.1), 2, (67, 67))


def test_fused_layers_heed_it(rng: Any) -> None:
    x = np.zeros((1, 3, 11, 11), np.float32)
    net = anp.layers.Sequential([Conv2d(3, 16, 3, seed=0), ReLU(), MaxPool2d(3, 2)])
    net.train()
    gradients = []
    for ties in ("first", "all"):
        net[2].ties = ties
        with anp.use_backend("numba"):
            y = net(x)
            net.zero_grad()
            net.backward(np.ones_like(y))
        gradients.append(net[0].bias.grad)
    alive = gradients[0] != 0
    np.testing.assert_allclose(gradients[1][alive], 9 * gradients[0][alive], rtol=1e-5)


# A run with all of it


def pictures(root: Path, part: str, count: int) -> None:
    chance = random.Random(part)
    for i in range(count):
        side = (chance.randrange(230, 300), chance.randrange(230, 300), 3)
        pixels = np.full(side, 40 + 100 * (i % 2), np.uint8)
        pixels[:100, :, i % 3] = np.frombuffer(chance.randbytes(100 * side[1]), np.uint8).reshape(100, -1)
        path = root / part / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    pictures(root, "train", 12)
    pictures(root, "val", 4)
    return root


def config(folder: Path, name: str = "krizhevsky145", **more: Any) -> Config:
    small: dict[str, Any] = {"width": 1 / 32, "epochs": 3, "batch_size": 4, "dataset": "folder", "data": str(folder)}
    return configured(name, **small, **more)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: Any) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    Trainer(config(folder), out, cache=out / "cache").fit()
    return out


def test_the_recipe_is_drawn_in() -> None:
    short = settings("krizhevsky145", {"epochs": 3, "dataset": "folder"})
    assert (short["colour_epochs"], short["freeze_after"]) == (2, {"features.0": 2})
    assert (short["mean"], short["resizing"], short["jpeg"], short["ties"]) == ("centre", "area", 95, "all")
    small = settings("krizhevsky145", {"epochs": 91})
    assert small["mean"] == "centre" and small["freeze_after"] == {"features.0": 71}
    assert not {"resizing", "jpeg", "colour_epochs"} & set(small)
    assert [configured(name, data="x", dataset="folder").mean for name in ("paper", "caffe")] == ["place", "place"]


def test_a_run_killed_and_resumed_has_the_same_bits(folder: Path, trained: Path, tmp_path: Path) -> None:
    whole = anp.weights.read(trained / "weights.safetensors")
    trainer = Trainer(config(folder), tmp_path / "cut", save_every=0)
    with pytest.raises(Crash):
        trainer.fit([crash_at(13)])  # in the last epoch, where conv 1 stands and colours are left alone
    resumed = Trainer.resume(tmp_path / "cut")
    assert resumed.run.task.recipe.mean_image == trainer.run.task.recipe.mean_image
    resumed.fit()
    after = weights_of(resumed)
    assert all(np.array_equal(array, after[name]) for name, array in whole.items()) and "mean_image" in after
    files = [path / "weights.safetensors" for path in (trained, tmp_path / "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_conv_1_stands_still_from_its_epoch_on(folder: Path) -> None:
    trainer = Trainer(config(folder, rule="torch"))
    seen: dict[int, np.ndarray] = {}

    def look(event: Any) -> None:
        if event["kind"] == "batch":
            seen[event["step"]] = weights_of(trainer)["features.0.weight"].copy()

    trainer.fit([look])
    assert not np.array_equal(seen[5], seen[6]) and np.array_equal(seen[6], seen[9])


def test_what_was_subtracted_goes_with_the_weights(folder: Path, trained: Path, tmp_path: Path) -> None:
    found = open_trained(trained)
    recipe = recipe_of(found.model)
    task_mean = Trainer(config(folder)).run.task.recipe.mean_image
    assert recipe.mean_image == task_mean and recipe.mean_image.at == "centre"
    picture = sorted((folder / "val").rglob("*.png"))[0]
    x = anp.preprocess(picture, model=found.model)
    pixels = read_pixels(picture, recipe)
    want = np.moveaxis(pixels.astype(np.float64) - recipe.mean_image.pixels[16:240, 16:240], -1, 0)
    np.testing.assert_allclose(x, want, atol=1e-4)
    plan = anp.compile(found.model, 1)
    np.testing.assert_array_equal(plan(pixels[None]), plan(x[None]))
    result = run("evaluate", trained, "--json", "--backend", "numba")
    assert result.exit_code == 0, result.output
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert json.loads(result.stdout)["loss"] == pytest.approx(last["loss"], rel=1e-4)

    for ending in (".npz", ".safetensors"):
        convert(trained / "weights.safetensors", tmp_path / f"a{ending}")
        again = anp.alexnet(None, tmp_path / f"a{ending}")
        assert recipe_of(again) == recipe
    done = convert(trained / "weights.safetensors", tmp_path / "a.pth")
    assert "mean image stays behind" in done.changed[-1]
    assert set(anp.weights.read(tmp_path / "a.pth")) == set(found.model.state_dict())
    anp.weights.write(tmp_path / "m.pth", found.model)
    assert recipe_of(anp.alexnet("krizhevsky145", tmp_path / "m.pth", width=1 / 32)).mean_image is None
    with pytest.raises(WeightsError, match="a mean image differs from place to place"):
        convert(trained / "weights.safetensors", tmp_path / "b.npz", changes=Changes(mean_inside=True))
    shown = run("weights", "inspect", trained)
    words = " ".join(shown.output.split())
    assert shown.exit_code == 0 and "a mean image, of mean" in words and "Not taken" not in words
    said = seal.pack({"network": found.model.described().to_json()})
    anp.weights.write(tmp_path / "cut.npz", found.model.state_dict(), metadata=said)
    with pytest.raises(WeightsError, match="says that it has an array 'mean_image'"):
        anp.alexnet(None, tmp_path / "cut.npz")


def test_processes_share_the_sum(folder: Path) -> None:
    def one(group: Any) -> MeanImage:
        return Trainer(config(folder, shards=2), group=group).run.task.recipe.mean_image

    alone = Trainer(config(folder)).run.task.recipe.mean_image
    assert all(found == alone for found in everybody(2, one))


def test_small_images_have_a_mean_image_too() -> None:
    small = Config(dataset="synthetic", limit=10, image_size=67, width=1 / 32, mean="place", epochs=1, batch_size=5)
    trainer = Trainer(small)
    mean = trainer.run.task.recipe.mean_image
    want = np.mean([trainer.run.task.train.pixels(i) for i in range(10)], 0)
    np.testing.assert_allclose(mean.pixels, want, rtol=1e-6)
    ((x, _),) = Loader(trainer.run.task.train, 10, augment=trainer.run.train_batches.augment).epoch(0)
    assert abs(x.mean()) < 1e-3 and np.abs(x.mean(0)).max() < 1e-2
    trainer.fit()


def test_refused_in_one_line(folder: Path) -> None:
    for field, value in (("resizing", "area"), ("jpeg", 90)):
        with pytest.raises(ArgumentError, match="resizing and jpeg are for folders"):
            Config(**{field: value})
    with pytest.raises(ArgumentError, match="colour_epochs is for augmentations with colour noise"):
        Config(dataset="folder", data="x", augmentation="crop", colour_epochs=3)
    with pytest.raises(ArgumentError, match="freeze_after: no parameter's name starts with 'conv9'"):
        Trainer(config(folder, freeze_after={"conv9": 1}))
    with pytest.raises(ArgumentError, match="ties must be one of first, all"):
        Config(ties="last")
    result = run("train", "--out", "x", "--freeze-after", "features.0")
    assert result.exit_code and "--freeze-after: PREFIX:EPOCHS" in str(result.output) + str(result.exception)
    assert replace(Config(), ties="all").ties == "all"
