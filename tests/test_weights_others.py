"""Networks of others that are no preset: named, their numbers read, and refused where a model is to take them."""

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np import inspection
from alexnet_np.errors import WeightsError
from alexnet_np.identity import identify


def slim(numbers):
    """TF-slim's alexnet_v2 as a TensorFlow checkpoint has it, of bytes."""
    sizes = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 384), (3, 3, 384, 256)]
    sizes += [(5, 5, 256, 4096), (1, 1, 4096, 4096), (1, 1, 4096, 11)]
    names = [*(f"conv{i}/conv{i}" if i in (3, 4, 5) else f"conv{i}" for i in range(1, 6)), "fc6", "fc7", "fc8"]
    weights = {f"alexnet_v2/{name}/weights": numbers(size) for name, size in zip(names, sizes, strict=True)}
    return weights | {f"alexnet_v2/{n}/biases": numbers(size[3:]) for n, size in zip(names, sizes, strict=True)}


def test_slims_own_network_is_named_and_its_numbers_are_read(tmp_path):
    rng = np.random.default_rng(0)
    arrays = slim(lambda size: rng.integers(0, 256, size, dtype=np.uint8))
    np.savez(tmp_path / "slim.npz", **arrays)
    read = anp.weights.read(tmp_path / "slim.npz")
    assert {name.removeprefix("alexnet_v2/") for name in arrays} == {n.removeprefix("alexnet_v2/") for n in read}
    assert all(np.array_equal(arrays[f"alexnet_v2/{name.removeprefix('alexnet_v2/')}"], a) for name, a in read.items())
    found = inspection.inspect(tmp_path / "slim.npz")
    assert "Network: TF-slim's alexnet_v2, none of the presets" in found.words()
    assert found.to_json()["other"] == "TF-slim's alexnet_v2" and found.said is None
    for preset in (None, "torchvision"):
        with pytest.raises(WeightsError, match=r"TF-slim's alexnet_v2 \(384 filters in conv 4.*which is no preset"):
            anp.alexnet(preset, tmp_path / "slim.npz")
    arrays["alexnet_v2/conv4/conv4/weights"] = np.zeros((3, 3, 384, 256), np.uint8)  # another one
    with pytest.raises(WeightsError, match="no preset, at any width, has the shapes"):
        identify(arrays)
