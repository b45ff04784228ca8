"""Loading: full-size weight files (244 MB) beside torch.load, and a folder of JPEGs beside torch's DataLoader.

    alexnet bench load [--out FILE]

Weights: the file is in the page cache; reading alone, and reading and then summing every array, because a memory map
reads what it shows only when it is used. torch.load checks no checksum and we check all that there are. Of the other
formats torch.load reads the same weights from its own zip file, and beside it stands the format's own library. Images:
decode, resize, crop and normalise, on as many workers as there are cores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

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


class File(NamedTuple):
    """A weight file, and the same weights as torch.save's zip file."""

    kind: str
    path: Path
    zip: Path


def files(folder: Path, width: float = 1) -> list[File]:
    """A state dict in the two formats of torch.save, and the network in those of others."""
    torch = import_torch()
    model = alexnet("torchvision", width=width, seed=0)
    state = {name: torch.from_numpy(array) for name, array in model.state_dict().items()}
    whole, legacy = folder / "weights.pth", folder / "legacy.pth"
    torch.save(state, whole)
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    made = [File(".pth, zip", whole, whole), File(".pth, legacy", legacy, whole)]
    for ending in OTHERS:
        weights.write(folder / f"weights{ending}", model)
        made.append(File(ending, folder / f"weights{ending}", whole))
    return made


def readers(file: File) -> dict[str, Callable[[], Any]]:
    """Who reads it, ours first."""
    torch = import_torch()
    contenders = {"alexnet_np": lambda: weights.read(file.path)}
    if file.kind in OTHERS:
        contenders[f"torch.load of {file.zip.suffix}"] = lambda: torch.load(file.zip)
        library, read = OTHERS[file.kind] or ("", None)
        if read is not None and find_spec(library):
            contenders[library] = lambda: read(str(file.path))
    else:
        contenders["torch.load"] = lambda: torch.load(file.path)
    if file.path == file.zip:  # the only one that torch can map
        contenders["torch.load mmap"] = lambda: torch.load(file.path, mmap=True)
    return contenders


def by_safetensors(path: str) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(path)


def by_numpy(path: str) -> dict[str, Any]:
    with np.load(path) as arrays:
        return dict(arrays)


def by_onnx(path: str) -> dict[str, Any]:
    import onnx
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


# the ending of other formats -> the library that reads them, and how; Caffe does not install
OTHERS: dict[str, tuple[str, Callable[[str], Any]] | None] = {
    ".safetensors": ("safetensors", by_safetensors),
    ".npz": ("numpy", by_numpy),
    ".onnx": ("onnx", by_onnx),
    ".caffemodel": None,
}


def summed(read: Callable[[], Any]) -> float:
    return sum(float(array.sum()) for array in read().values())


def works() -> Iterator[Work]:
    """Reading weights in every format, and decoding photographs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in files(folder):
            yield from weight_works(file)
        yield image_work(folder)


def weight_works(file: File) -> Iterator[Work]:
    """Every reader gives the same numbers, whatever a format calls them and however it shapes them."""
    contenders = readers(file)
    truth = [tensor.numpy().ravel() for tensor in import_torch().load(file.zip).values()]

    def check(arrays: Any) -> None:
        found = [np.asarray(array).ravel() for array in arrays.values()]
        for wanted in truth:
            assert any(np.array_equal(array, wanted) for array in found), f"{wanted.size} numbers are not there"

    size, total = file.path.stat().st_size, sum(float(array.sum()) for array in truth)
    reading = [Contender(name, read) for name, read in contenders.items()]
    yield Work(f"read a {file.kind}", 0.0, size, reading, check)

    def check_sum(found: Any) -> None:
        np.testing.assert_allclose(found, total, rtol=1e-3)

    summing = [Contender(name, partial(summed, read)) for name, read in contenders.items()]
    yield Work(f"read and sum a {file.kind}", 0.0, size, summing, check_sum)


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
