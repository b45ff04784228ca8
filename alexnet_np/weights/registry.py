"""Published weights: where they are, how to know them, and how they come onto this machine. Of which network each is,
presets.py says.

One of them comes with the package. Any other is looked for in our own cache ($ALEXNET_NP_HOME, by default alexnet-np in
$XDG_CACHE_HOME or ~/.cache), then in torch.hub's ($TORCH_HOME/hub/checkpoints, by default torch/hub/checkpoints in the
same). A file counts as the published one when its size and its SHA-256 are those below.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_np.arguments import shown
from alexnet_np.download import fetch
from alexnet_np.errors import WeightsError, one_line
from alexnet_np.files import own_cache, package, replacing, user_cache
from alexnet_np.weights import seal
from alexnet_np.weights.finding import mapping
from alexnet_np.weights.fitting import Wanted, fit
from alexnet_np.weights.leaves import Contents, Leaf, read_all
from alexnet_np.weights.memory import contents_of
from alexnet_np.weights.reading import newest_checkpoint, opened

ASSETS = package() / "assets"  # what the package carries


class Entry(NamedTuple):
    """One published weight file."""

    file: str
    url: str | None  # None: the package carries the file
    size: int  # bytes
    sha256: str
    format: str
    width: float  # of the hidden layers: 1.0 is the published network's own
    num_classes: int
    top1: float  # per cent of the validation images, one crop
    top5: float
    source: str  # of the accuracies


ENTRIES = {
    "IMAGENET1K_V1": Entry(
        file="alexnet-owt-7be5be79.pth",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        size=244_408_911,
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        format="torch zip",
        width=1.0,
        num_classes=1000,
        top1=56.522,
        top5=79.066,
        source="torchvision's documentation of AlexNet_Weights.IMAGENET1K_V1",
    ),
    "FASHION_MNIST_V1": Entry(
        file="fashion_mnist_v1.safetensors",
        url=None,
        size=2_953_192,
        sha256="25eeb79a74f2452a7c33869ec88d43674fc2c1ea5ec51282742df7d655bdc580",
        format="safetensors",
        width=0.125,
        num_classes=10,
        top1=92.07,
        top5=99.92,
        source="`alexnet evaluate FASHION_MNIST_V1`: the 10,000 test images; made as assets/README.md says",
    ),
}
ALIASES = {"DEFAULT": "IMAGENET1K_V1"}  # as torchvision has it


def names() -> list[str]:
    return [*ENTRIES, *ALIASES]


def entry(name: str) -> Entry:
    """The registry's entry. Raises WeightsError naming the choices."""
    if isinstance(name, str) and name in names():
        return ENTRIES[ALIASES.get(name, name)]
    raise WeightsError(f"no published weights are called {shown(name)}: choose one of {', '.join(names())}")


def load(weights: Any, wanted: Wanted | None = None) -> dict[str, Any]:
    """The weights of a registry name, downloaded if need be, of torchvision's AlexNet_Weights, of a file or a mapping.

    With `wanted` the one mapping among them that fits, by its names and of its shapes (weights/fitting.py); without,
    that which is a network's (weights/finding.py). Raises WeightsError.
    """
    if isinstance(weights, Mapping):
        return _chosen(contents_of(weights), wanted)
    with opened(path_of(weights)) as contents:
        return _chosen(contents, wanted)


def _chosen(contents: Contents, wanted: Wanted | None) -> dict[str, Any]:
    return numbers_of(contents, (mapping(contents) if wanted is None else fit(contents, wanted)).leaves)


def numbers_of(contents: Contents, leaves: Mapping[str, Leaf]) -> dict[str, Any]:
    """The numbers of some of a file's arrays. Raises WeightsError where the file has a checksum, and another one."""
    if "sha256" not in seal.unpack(contents.metadata):
        return read_all(leaves)
    arrays = read_all(contents.tree)  # of a file with a checksum all are read: it is of all
    seal.check(contents.metadata, arrays)
    by_leaf = {id(leaf): arrays[name] for name, leaf in contents.tree.items()}
    return {name: by_leaf[id(leaf)] if id(leaf) in by_leaf else leaf.read() for name, leaf in leaves.items()}


def path_of(weights: Any) -> Path:
    """The file that a published name, a member of torchvision's AlexNet_Weights, a file or a run's folder is."""
    name = weights
    if isinstance(weights, Enum):
        name = next((each for each, known in ENTRIES.items() if known.url and known.url == _url(weights)), None)
        if name is None:
            raise WeightsError(f"{weights} is not of AlexNet: choose one of {', '.join(names())}")
    if isinstance(name, str) and name in names():
        return find(name) or download(name)
    if not isinstance(name, (str, os.PathLike)):
        raise WeightsError(
            f"weights must be a published name ({', '.join(names())}), a file or a mapping, got {type(name).__name__}"
        )
    if Path(name).is_symlink() and not Path(name).exists():
        raise WeightsError(f"{os.fspath(name)}: a link to {Path(name).readlink()}, where there is no file")
    if not Path(name).exists():
        raise WeightsError(
            f"{os.fspath(name)}: neither a run's folder nor a file nor one of the published weights "
            f"{', '.join(names())}"
        )
    return in_run(Path(name)) if Path(name).is_dir() else Path(name)


def in_run(folder: Path) -> Path:
    """The weights in the folder of a run: the finished ones, else those of its newest checkpoint.

    A folder of cuda-convnet's checkpoints is a run too. Raises WeightsError for a folder that is none.
    """
    found = [folder / "weights.safetensors", *sorted(folder.glob("checkpoints/step-*.safetensors"), reverse=True)]
    whole = next((path for path in found if path.exists()), None) or newest_checkpoint(folder)
    if whole is None:
        raise WeightsError(f"{folder}: no run of `alexnet train`: neither weights.safetensors nor a checkpoint in it")
    return whole


def _url(member: Enum) -> Any:
    return getattr(member.value, "url", None)


def find(name: str) -> Path | None:
    """The published file if it is on this machine, whole and unchanged. Never downloads. Raises WeightsError."""
    wanted = entry(name)
    return next((path for path in places(wanted) if why_not(path, wanted) is None), None)


def places(wanted: Entry) -> list[Path]:
    """Where the file may be; the first is where `download` puts it."""
    if wanted.url is None:
        return [ASSETS / wanted.file]
    return [own_cache() / wanted.file, torch_hub() / wanted.file]


def torch_hub() -> Path:
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else user_cache() / "torch") / "hub" / "checkpoints"


def why_not(path: Path, wanted: Entry) -> str | None:
    """Why `path` is not the published file; None if it is.

    Hashing takes as long as several readings, so a file that was found right is remembered in our cache by its place,
    size and times. Whatever changes the file changes its times, and it is hashed again.
    """
    try:
        status = path.stat()
        if status.st_size != wanted.size:
            return f"{path} has {status.st_size} bytes instead of {wanted.size}"
        times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
        seen = f"{wanted.sha256} {path.resolve()} {status.st_dev} {status.st_ino} {times}"
        mark = own_cache() / f"{wanted.file}.verified"
        if mark.is_file() and mark.read_text(errors="replace") == seen:
            return None
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path}: {error.strerror}"
    if found != wanted.sha256:
        return f"{path} has SHA-256 {found} instead of {wanted.sha256}"
    with suppress(OSError):  # a cache that cannot be written to only costs the hashing next time
        mark.parent.mkdir(parents=True, exist_ok=True)
        with replacing(mark) as temporary:
            temporary.write_text(seen)
    return None


def download(name: str, progress: bool = True) -> Path:
    """Fetch published weights into our cache and return their path. Raises WeightsError; then the cache is as it was.

    The file takes its name only when it is whole: size and SHA-256 checked, and flushed to the disk. Weights that the
    package carries are there already: their path is returned.
    """
    wanted = entry(name)
    target = places(wanted)[0]
    if wanted.url is None:
        if fault := why_not(target, wanted):
            raise WeightsError(f"{name}: {fault}; install this package anew")
        return target
    try:
        fetch(wanted.url, target, wanted.size, wanted.sha256, progress)
    except OSError as error:
        found = [fault for path in places(wanted) if path.exists() and (fault := why_not(path, wanted))]
        raise WeightsError(
            f"{name}: cannot download {wanted.url}: {one_line(error)}; fetch {wanted.file} ({wanted.size} bytes) by "
            f"other means and put it at {target}{''.join(f' ({fault})' for fault in found)}"
        ) from error
    return target
