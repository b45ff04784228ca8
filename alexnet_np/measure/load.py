"""Loading: a full-size .pth (244 MB) beside torch.load, and a folder of JPEGs beside torch's DataLoader.

    alexnet bench load [--out FILE]

Weights: the file is in the page cache; reading alone, and reading and then summing every array, because a memory map
reads what it shows only when it is used. torch.load checks no checksum and we check all that there are. Images: decode,
resize, crop and normalise, on as many workers as there are cores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_np import weights
from alexnet_np.data.loading import find_images, load_batches
from alexnet_np.files import package
from alexnet_np.identity import alexnet
from alexnet_np.measure.harness import Contender, Work
from alexnet_np.presets import PRESETS
from alexnet_np.study.torch_net import import_torch, import_torchvision

JPEGS, JPEG_SIZE, BATCH, WORKERS = 64, (500, 375), 32, 2
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg")


def files(folder: Path) -> dict[str, Path]:
    """A full-size state dict in the two formats of torch.save."""
    torch = import_torch()
    state = {name: torch.from_numpy(array) for name, array in alexnet("torchvision", seed=0).state_dict().items()}
    paths = {"zip": folder / "zip.pth", "legacy": folder / "legacy.pth"}
    torch.save(state, paths["zip"])
    torch.save(state, paths["legacy"], _use_new_zipfile_serialization=False)
    return paths


def readers(path: Path, kind: str) -> dict[str, Callable[[], Any]]:
    torch = import_torch()
    contenders = {"alexnet_np": lambda: weights.read(path), "torch.load": lambda: torch.load(path)}
    if kind == "zip":  # the only one that torch can map
        contenders["torch.load mmap"] = lambda: torch.load(path, mmap=True)
    return contenders


def summed(read: Callable[[], Any]) -> float:
    return sum(float(array.sum()) for array in read().values())


def works() -> Iterator[Work]:
    """Reading weights in both formats of torch.save, and decoding photographs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, path in files(folder).items():
            yield from weight_works(path, kind)
        yield image_work(folder)


def weight_works(path: Path, kind: str) -> Iterator[Work]:
    contenders = readers(path, kind)
    reference = {name: tensor.numpy() for name, tensor in contenders["torch.load"]().items()}

    def check(arrays: Any) -> None:
        assert arrays.keys() == reference.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(np.asarray(array), reference[name])

    size, total = path.stat().st_size, sum(float(array.sum()) for array in reference.values())
    reading = [Contender(name, read) for name, read in contenders.items()]
    yield Work(f"read a .pth, {kind}", 0.0, size, reading, check)

    def check_sum(found: Any) -> None:
        np.testing.assert_allclose(found, total, rtol=1e-3)

    summing = [Contender(name, partial(summed, read)) for name, read in contenders.items()]
    yield Work(f"read a .pth and sum, {kind}", 0.0, size, summing, check_sum)


def image_work(folder: Path) -> Work:
    """The contenders give one batch after the other; the sum of all is compared."""
    write_photographs(folder / "photographs" / "one_class", JPEGS)
    paths = find_images([folder / "photographs"])
    torch, torchvision = import_torch(), import_torchvision()
    dataset = torchvision.datasets.ImageFolder(
        folder / "photographs", torchvision.models.AlexNet_Weights.IMAGENET1K_V1.transforms()
    )
    loader = torch.utils.data.DataLoader(dataset, BATCH, num_workers=WORKERS, persistent_workers=True)
    recipe = PRESETS["torchvision"].preprocessing

    def ours() -> float:
        return sum(
            float(batch.x.sum(dtype=np.float64)) for batch in load_batches(paths, BATCH, recipe, workers=WORKERS)
        )

    def theirs() -> float:
        return sum(float(x.double().sum()) for x, _ in loader)

    total = ours()

    def check(found: Any) -> None:
        np.testing.assert_allclose(found, total, rtol=1e-5)

    contenders = [Contender("alexnet_np", ours), Contender("torch.utils.data.DataLoader", theirs)]
    moved = sum(Path(path).stat().st_size for path in paths)
    return Work(f"{JPEGS} JPEGs of {JPEG_SIZE[0]}x{JPEG_SIZE[1]}", 0.0, moved, contenders, check, images=JPEGS)


def write_photographs(folder: Path, count: int) -> None:
    """`count` photographs at ImageNet's usual size, in turn, and rolled to be another each time."""
    from PIL import ImageChops

    folder.mkdir(parents=True)
    large = photographs()
    for i in range(count):
        ImageChops.offset(large[i % len(large)], 7 * i, 3 * i).save(folder / f"{i:05}.jpg", quality=92)


def photographs() -> list[Any]:
    """The coloured ones of scikit-image where it is installed, with the cat that the package carries."""
    from PIL import Image, ImageOps

    found = [package() / "assets" / "cat.jpg"]
    others = find_spec("skimage")
    if others is not None and others.origin:
        inside = Path(others.origin).parent / "data"
        found += [path for name in PHOTOGRAPHS for path in (inside / name,) if path.exists()]
    made = []
    for path in found:
        with Image.open(path) as image:
            made.append(ImageOps.fit(image.convert("RGB"), JPEG_SIZE))
    return made
