"""`alexnet classify` and `alexnet embed`: many images, past the bad ones."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

from alexnet_np.cli import show
from alexnet_np.cli.options import Backend, BatchSize, Json, Network, Preset, Seed, Weights, load_network
from alexnet_np.data.loading import find_images, load_batches
from alexnet_np.data.preprocess import source_name
from alexnet_np.device import Array, to_cpu
from alexnet_np.errors import ArgumentError, DataError, ImageError, MissingPackageError, one_line
from alexnet_np.files import replacing
from alexnet_np.layers import ReLU, no_grad
from alexnet_np.models import AlexNet
from alexnet_np.ops import softmax
from alexnet_np.presets import PRESETS

Paths = Annotated[
    list[str], typer.Argument(metavar="IMAGE", help="Image files, folders, or - for one image on standard input.")
]


@dataclass(frozen=True)
class Guess:
    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Failure:
    file: str
    error: str


def register(app: typer.Typer) -> None:
    panel = "Images"
    app.command(rich_help_panel=panel)(classify)
    app.command(rich_help_panel=panel)(embed)


def classify(
    images: Paths,
    top: Annotated[int, typer.Option("--top", "-k", help="How many labels for each image.", min=1)] = 5,
    preset: Preset = None,
    weights: Weights = None,
    backend: Backend = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """The most probable labels of images.

    Files that cannot be read are passed over and listed at the end; then the exit code is 1.

    Examples:
      alexnet classify cat.jpg
      alexnet classify holiday/ --top 1 --json > labels.json
      curl -s https://example.org/cat.jpg | alexnet classify -
    """
    network = load_network(preset, weights, backend, seed, trained=True)
    warn_if_random(network)
    labels = network.labels()
    results: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for files, x in read_batches(images, network, batch_size, failures):
        with no_grad():
            probabilities = to_cpu(softmax.forward(network.model(x))[0])
        for file, row in zip(files, probabilities, strict=True):
            guesses = best(row, labels, top)
            if as_json:
                results.append({"file": file, "top": [asdict(guess) for guess in guesses]})
            else:
                show_guesses(file, guesses)
    if as_json:
        listed = [asdict(failure) for failure in failures]
        show.print_json({"model": network.described(), "results": results, "failures": listed})
    report(failures)


def embed(
    images: Paths,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write: .npy, .npz or .parquet.")],
    preset: Preset = None,
    weights: Weights = None,
    backend: Backend = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    as_json: Json = False,
) -> None:
    """Images as vectors: the 4096 numbers of the last hidden layer.

    .npz and .parquet hold the files' names too; those of v.npy stand in v.npy.txt, a line each.
    Files that cannot be read are passed over and listed at the end; then the exit code is 1.

    Examples:
      alexnet embed holiday/ --out holiday.npz
      alexnet embed *.jpg --out vectors.npy --batch-size 64
    """
    save = writer(out)
    network = load_network(preset, weights, backend, seed, trained=True)
    warn_if_random(network)
    names: list[str] = []
    vectors: list[np.ndarray] = []
    failures: list[Failure] = []
    for files, x in read_batches(images, network, batch_size, failures):
        names += files
        vectors.append(to_cpu(embedding(network.model, x)))
    if names:
        try:
            save(out, names, np.concatenate(vectors))
        except OSError as error:
            raise DataError(f"{out}: cannot be written: {error.strerror or one_line(error)}") from error
    if as_json:
        listed = [asdict(failure) for failure in failures]
        written = {"out": str(out) if names else None, "files": names, "failures": listed}
        show.print_json({"model": network.described(), **written})
    elif names:
        print(f"{out}: {len(names)} vectors of {vectors[0].shape[1]}")
    report(failures)


def read_batches(
    paths: Sequence[str], network: Network, batch_size: int, failures: list[Failure]
) -> Iterator[tuple[list[str], Array]]:
    """(files, x) for every batch of the images that `paths` name; what cannot be read is added to `failures`."""
    found: list[str] = []
    for path in paths:
        try:
            found += find_images(path)
        except ImageError as error:
            failures.append(failed(path, error))
    files = list(dict.fromkeys(found))  # each once: standard input cannot be read again
    recipe = PRESETS[network.model.preset].preprocessing
    batches: Any = load_batches(files, batch_size, recipe, dtype=str(network.model.dtype))
    with closing(batches), show.progress("images", len(files)) as advance:
        for start, batch in zip(range(0, len(files), batch_size), batches, strict=True):
            unread = [file for file in files[start : start + batch_size] if file not in batch.files]
            failures += map(failed, unread, batch.failures)
            if batch.files:
                yield batch.files, network.place(batch.x)
            advance(len(batch.files) + len(unread))


def failed(file: str, error: ImageError) -> Failure:
    return Failure(file, str(error).removeprefix(f"{source_name(file)}: "))


def report(failures: list[Failure]) -> None:
    """List the files that could not be read on standard error, and end with exit code 1 if there are any."""
    for failure in failures:
        show.note(f"alexnet: {source_name(failure.file)}: {failure.error}")
    if failures:
        raise typer.Exit(1)


def warn_if_random(network: Network) -> None:
    if network.random:
        show.note(f"alexnet: weights {network.weights}: what comes out means nothing")


def best(probabilities: np.ndarray, labels: list[str], top: int) -> list[Guess]:
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [Guess(int(i), labels[i], float(probabilities[i])) for i in order]


def show_guesses(file: str, guesses: list[Guess]) -> None:
    """The file's name and under it its labels; all on one line where there is one label."""
    name = source_name(file)
    if len(guesses) == 1:
        only = guesses[0]
        show.say(Text.assemble((f"{only.probability:6.1%}  ", "cyan"), f"{only.label}  ", (name, "dim")))
        return
    bars = [(guess, show.bar(guess.probability, 24)) for guess in guesses]
    rows = [Text.assemble(f"  {guess.probability:6.1%}  ", bar, f"  {guess.label}") for guess, bar in bars]
    show.say(Text(name, "bold"), *rows)


def embedding(model: AlexNet, x: Array) -> Array:
    """What the last hidden ReLU gives: classifier[:6] of torchvision's network."""
    last = max(i for i, layer in enumerate(model.classifier) if isinstance(layer, ReLU))
    with no_grad():
        return model.classifier[: last + 1](model.flatten(model.avgpool(model.features(x))))


def writer(out: Path) -> Callable[[Path, list[str], np.ndarray], None]:
    """The function that writes (file, names, vectors) in the format of `out`, which is found wanting now or never."""
    if out.suffix not in WRITERS:
        raise ArgumentError(f"{out}: vectors are written as {', '.join(WRITERS)}, by the ending of the name")
    if not out.parent.is_dir():
        raise ArgumentError(f"{out}: there is no folder {out.parent}; create it first")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingPackageError(f"{out}: .parquet needs the package pyarrow: pip install pyarrow, or write .npz")
    return WRITERS[out.suffix]


def write_npy(out: Path, names: list[str], vectors: np.ndarray) -> None:
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    with replacing(out.with_name(f"{out.name}.txt")) as temporary:
        temporary.write_bytes(b"".join(os.fsencode(name) + b"\n" for name in names))


def write_npz(out: Path, names: list[str], vectors: np.ndarray) -> None:
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez(file, files=np.array(names), embeddings=vectors)


def write_parquet(out: Path, names: list[str], vectors: np.ndarray) -> None:
    import pyarrow
    from pyarrow import parquet

    files = [name.encode(errors="backslashreplace").decode() for name in names]  # Parquet's strings are valid UTF-8
    column = pyarrow.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    with replacing(out) as temporary:
        parquet.write_table(pyarrow.table({"file": files, "embedding": column}), temporary)


WRITERS = {".npy": write_npy, ".npz": write_npz, ".parquet": write_parquet}
