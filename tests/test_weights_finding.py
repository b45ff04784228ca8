"""Which arrays of a file are the weights: other people's checkpoints, beside torch; and files that change under way."""

from __future__ import annotations

import argparse
import collections
import copy
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import weight_files as wf  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np.errors import WeightsError  # noqa: E402
from alexnet_np.inspection import inspect  # noqa: E402

WIDTH = 1 / 32  # of torchvision's network, with ten classes: the files are kilobytes


class Net(torch.nn.Module):
    """torchvision's AlexNet in small, as people write it."""

    def __init__(self, filters=(2, 6, 12, 8, 8), dense=128, classes=10):
        super().__init__()
        a, b, c, d, e = filters
        relu, pool, conv = torch.nn.ReLU, lambda: torch.nn.MaxPool2d(3, 2), torch.nn.Conv2d
        self.features = torch.nn.Sequential(
            conv(3, a, 11, 4, 2), relu(), pool(), conv(a, b, 5, padding=2), relu(), pool(),
            conv(b, c, 3, padding=1), relu(), conv(c, d, 3, padding=1), relu(),
            conv(d, e, 3, padding=1), relu(), pool(),
        )  # fmt: skip
        self.avgpool = torch.nn.AdaptiveAvgPool2d((6, 6))
        drop, linear = torch.nn.Dropout, torch.nn.Linear
        self.classifier = torch.nn.Sequential(
            drop(), linear(36 * e, dense), relu(), drop(), linear(dense, dense), relu(), linear(dense, classes)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture(scope="module")
def tensors(net):
    return dict(net.state_dict())


def load(path):
    return anp.alexnet(weights=path, width=WIDTH, num_classes=10).state_dict()


def same(got, want):
    assert list(got) == list(want)
    for name, tensor in want.items():
        np.testing.assert_array_equal(got[name], tensor.detach().numpy(), err_msg=name)


def prefixed(tensors, prefix):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def in_features(tensors):
    return {name.replace("features.", "features.module."): tensor for name, tensor in tensors.items()}


CHECKPOINTS = {
    "pytorch/examples": lambda t: {"epoch": 90, "state_dict": in_features(t), "best_acc1": torch.tensor(1.0)},
    "DataParallel": lambda t: {"state_dict": prefixed(t, "module.")},
    "Lightning": lambda t: {"state_dict": prefixed(t, "model."), "loops": {}, "callbacks": {}, "optimizer_states": []},
    "Lightning's net": lambda t: {"state_dict": prefixed(t, "net.")},
    "two wrappers": lambda t: prefixed(t, "module.model."),
    "torch.compile": lambda t: {"model": prefixed(t, "_orig_mod.")},
    "a criterion's weight": lambda t: {"state_dict": prefixed(t, "model.") | {"criterion.weight": torch.ones(10)}},
    "AveragedModel": lambda t: prefixed(t, "module.") | {"n_averaged": torch.tensor(3)},
    "weights": lambda t: {"weights": t, "epoch": 1},
    "ema": lambda t: {"ema": t},
    "deep": lambda t: {"runs": [{"best": {"net": t}}]},
    "one tensor, two names": lambda t: {"state_dict": prefixed(t, "model.") | prefixed(t, "backbone.")},
    "an attribute beside": lambda t: {"state_dict": {**t, "step": 3, "name": "alexnet"}},
    "another network beside": lambda t: {"model": t, "head": {"0.w": torch.ones(5, 9), "1.w": torch.ones(4, 5)}},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_all_kinds(tmp_path, tensors, name):
    saved = CHECKPOINTS[name](tensors)
    torch.save(saved, tmp_path / "w.ckpt")
    same(load(tmp_path / "w.ckpt"), tensors)
    same(anp.alexnet(weights=saved, width=WIDTH, num_classes=10).state_dict(), tensors)  # in memory, the same


def optimized(net):
    net = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(1, 3, 224, 224)).sum().backward()
    optimizer.step()
    return net.state_dict(), optimizer.state_dict()


def test_optimizers_are_never_meant(tmp_path, net):
    tensors, state = optimized(net)
    torch.save({"optimizer": state, "model": tensors}, tmp_path / "w.pth")
    same(load(tmp_path / "w.pth"), tensors)
    assert list(anp.weights.read(tmp_path / "w.pth")) == list(tensors)
    ours = {f"momentum.{name}": torch.zeros_like(tensor) for name, tensor in tensors.items()}
    torch.save(tensors | ours, tmp_path / "ours.pth")
    same(load(tmp_path / "ours.pth"), tensors)


BESIDE = {
    "Namespace": argparse.Namespace(lr=0.1),
    "np.float64": np.float64(0.5),
    "np.array": np.arange(3.0),
    "torch.Size": torch.Size([1, 3, 224, 224]),
    "torch.device": torch.device("cpu"),
    "torch.dtype": torch.float32,
    "set": {"cat", "dog"},
    "Counter": collections.Counter("aab"),
    "tuple keys": {(0, 1): 2},
    "bytes": b"abc",
    "a class": argparse.ArgumentParser,
    "a function": np.linalg.norm,
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", BESIDE)
def test_objects_beside_the_weights(tmp_path, tensors, name, protocol):
    torch.save({"model": tensors, "extra": BESIDE[name]}, tmp_path / "w.pth", pickle_protocol=protocol)
    same(load(tmp_path / "w.pth"), tensors)


def test_a_whole_model_is_read_without_its_class(tmp_path, net, tensors):
    torch.save(net, tmp_path / "w.pth")
    same(load(tmp_path / "w.pth"), tensors)
    assert list(anp.weights.read(tmp_path / "w.pth")) == list(tensors)
    assert not inspect(tmp_path / "w.pth").arrays.left  # a module is there for what is in it
    torch.save(
        {"net": torch.nn.DataParallel(net), "epoch": 2}, tmp_path / "old.pth", _use_new_zipfile_serialization=False
    )
    same(load(tmp_path / "old.pth"), tensors)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_gives_its_tensors(tmp_path, net, tensors):
    torch.jit.script(net).save(tmp_path / "scripted.pt")
    torch.jit.trace(net.eval(), torch.randn(1, 3, 224, 224)).save(tmp_path / "traced.pt")
    for name in ("scripted", "traced"):
        same(load(tmp_path / f"{name}.pt"), tensors)
        left = inspect(tmp_path / f"{name}.pt").arrays.left  # but for the paddings of five scripted convolutions
        assert all("_reversed_padding" in each for each in left) and len(left) == {"scripted": 5, "traced": 0}[name]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickles(tmp_path, tensors, protocol):
    (tmp_path / "tensors.pkl").write_bytes(pickle.dumps({"model": tensors}, protocol))
    (tmp_path / "arrays.pkl").write_bytes(pickle.dumps({"model": wf.arrays(tensors), "lr": 0.1}, protocol))
    for name in ("tensors", "arrays"):
        same(load(tmp_path / f"{name}.pkl"), tensors)


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_dtype_in_a_pickle(tmp_path, order):
    dtypes = ["<f2", "<f4", "<f8", ">f4", ">i2", "<i8", "<u2", "|u1", "|b1"]
    want = {
        f"{dtype} {n}": np.arange(n * 6).reshape(n, 6).astype(dtype, order=order) for dtype in dtypes for n in (1, 900)
    }
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(want))
    got = anp.weights.read(tmp_path / "w.pkl")
    for name, array in want.items():
        assert got[name].dtype == array.dtype.newbyteorder("=") and got[name].flags.writeable
        np.testing.assert_array_equal(got[name], array)


def test_names_of_another_program_fit_by_their_shapes(tmp_path, net, tensors):
    numbered = {f"layer{i // 2}.{'wb'[i % 2]}": tensor for i, tensor in enumerate(tensors.values())}
    shuffled = dict(sorted(numbered.items(), key=lambda item: hash(item[0])))
    for saved in (numbered, {"state_dict": shuffled, "epoch": 3}):
        torch.save(saved, tmp_path / "w.pth")
        same(load(tmp_path / "w.pth"), tensors)
    del numbered["layer3.b"]
    torch.save(numbered, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="missing: .* does not have its shapes"):
        load(tmp_path / "w.pth")


def tensorflow(tensors):
    """As TF-slim names and turns them: HWIO, the first dense layer's rows in the order H, W, C."""
    names = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    turned = {}
    for name, layer in zip(names, dict.fromkeys(name.rpartition(".")[0] for name in tensors), strict=True):
        weight = tensors[f"{layer}.weight"].numpy()
        if weight.ndim == 4:
            weight = weight.transpose(2, 3, 1, 0)
        elif name == "fc6":
            weight = weight.reshape(len(weight), -1, 6, 6).transpose(2, 3, 1, 0).reshape(-1, len(weight))
        else:
            weight = weight.T
        turned[f"alexnet/{name}/weights"], turned[f"alexnet/{name}/biases"] = weight, tensors[f"{layer}.bias"].numpy()
    return turned


def test_names_and_layout_of_tensorflow(tmp_path, tensors):
    flat = tensorflow(tensors)
    np.savez(tmp_path / "flat.npz", **flat)
    same(load(tmp_path / "flat.npz"), tensors)
    for name, size in {"fc6": 6, "fc7": 1, "fc8": 1}.items():  # as slim has them, convolutions over the whole map
        array = flat[f"alexnet/{name}/weights"]
        flat[f"alexnet/{name}/weights"] = array.reshape(size, size, -1, array.shape[1])
    np.savez(tmp_path / "slim.npz", **flat)
    same(load(tmp_path / "slim.npz"), tensors)


def test_two_that_fit_are_an_error_that_names_both(tmp_path, tensors):
    other = {name: tensor + 1 for name, tensor in tensors.items()}
    path = tmp_path / "w.pth"
    torch.save({"model": tensors, "model_ema": prefixed(other, "module.")}, path)
    for attempt in (lambda: load(path), lambda: anp.weights.read(path), lambda: anp.weights.inspect(path)):
        with pytest.raises(WeightsError, match=r"'model' and 'model_ema.*part=.*--part"):
            attempt()
    same(load(anp.weights.read(path, part="model_ema")), other)  # what the message says
    same(load(anp.weights.read(path, part="model_ema.module")), other)
    with pytest.raises(WeightsError, match="no arrays under the name 'nothing'; there are 'model.features.0.weight'"):
        anp.weights.read(path, part="nothing")
    torch.save(tensors | prefixed(other, "module."), path)
    with pytest.raises(WeightsError, match="2 sets of weights that fit"):
        load(path)


def test_what_does_not_fit_is_said(tmp_path, tensors):
    torch.save({"state_dict": prefixed(tensors, "module.")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"wrong shape: classifier.6.weight is \(10, 128\), not \(7, 128\)"):
        anp.alexnet(weights=tmp_path / "w.pth", width=WIDTH, num_classes=7)
    lacking = {name: tensor for name, tensor in tensors.items() if name != "features.3.bias"}
    with pytest.raises(WeightsError, match="missing: 'features.3.bias'"):
        anp.alexnet(weights=lacking, width=WIDTH, num_classes=10)
    with pytest.raises(WeightsError, match="a mapping that contains itself"):
        itself = {}
        itself["itself"] = itself
        anp.alexnet(weights=itself)


def test_inspect_and_load_agree(tmp_path, tensors):
    for name, checkpoint in CHECKPOINTS.items():
        torch.save(checkpoint(tensors), tmp_path / "w.pth")
        rows = anp.weights.inspect(tmp_path / "w.pth").rows
        assert [(row.name, row.shape) for row in rows] == [
            (name, array.shape) for name, array in anp.weights.read(tmp_path / "w.pth").items()
        ], name


def test_bfloat16_is_shown_as_such(tmp_path, tensors):
    torch.save({name: tensor.bfloat16() for name, tensor in tensors.items()}, tmp_path / "w.pth")
    assert {row.dtype for row in anp.weights.inspect(tmp_path / "w.pth").rows} == {"bfloat16"}
    half = {name: tensor.bfloat16().float() for name, tensor in tensors.items()}
    same(load(tmp_path / "w.pth"), half)
    same(load({name: tensor.bfloat16() for name, tensor in tensors.items()}), half)


# Files that somebody else writes to.


FORMATS = {"zip.pth": wf.save_zip, "legacy.pth": wf.save_legacy, "tar.pth": wf.save_tar}


def save_safetensors(path, tensors):
    from safetensors.torch import save_file

    save_file(tensors, path)
    return path


FORMATS["w.safetensors"] = save_safetensors


@pytest.mark.parametrize("name", FORMATS)
def test_arrays_stay_as_they_are_when_the_file_is_cut_or_rewritten(tmp_path, tensors, name):
    path = FORMATS[name](tmp_path / name, tensors)
    got = anp.weights.read(path)
    size = path.stat().st_size
    path.write_bytes(b"\xff" * size)
    same(got, tensors) if "safetensors" not in name else same({n: got[n] for n in tensors}, tensors)
    path.write_bytes(b"")
    for array in got.values():
        array += 1


@pytest.mark.parametrize("name", FORMATS)
def test_every_length_of_a_file_is_refused_or_whole(tmp_path, tensors, name):
    raw = FORMATS[name](tmp_path / name, tensors).read_bytes()
    cut = tmp_path / "cut"
    for length in sorted({int(len(raw) * i / 40) for i in range(40)} | {len(raw) - 1}):
        if "tar" in name and len(raw) - length < 10240:  # what a tar file is filled up with
            continue
        cut.write_bytes(raw[:length])
        with pytest.raises(WeightsError):
            anp.weights.read(cut)


def test_a_file_that_is_rewritten_while_it_is_read(tmp_path):
    """As a trainer saves over its checkpoint: an error, or one whole set of numbers; never a dead process."""
    path = tmp_path / "w.pth"
    values = [{f"features.{i}.weight": torch.full((300, 500), float(n)) for i in range(8)} for n in range(2)]
    torch.save(values[0], path)
    done = threading.Event()

    def rewrite():
        while not done.is_set():
            for state in values:
                torch.save(state, path)

    writer = threading.Thread(target=rewrite)
    writer.start()
    read = 0
    try:
        for _ in range(60):
            try:
                got = anp.weights.read(path)
            except WeightsError:
                continue
            read += 1
            for array in got.values():
                assert array.min() == array.max()
    finally:
        done.set()
        writer.join()
    torch.save(values[0], path)
    assert anp.weights.read(path)["features.0.weight"].max() == 0


def test_a_file_that_shrinks_between_two_reads(tmp_path, tensors, monkeypatch):
    from alexnet_np.weights.source import Source

    path = wf.save_legacy(tmp_path / "w.pth", tensors)
    read_at = Source._read_at

    def cutting(self, place, room):
        if room.nbytes > 1000:
            with path.open("rb+") as file:
                file.truncate(2000)
        return read_at(self, place, room)

    monkeypatch.setattr(Source, "_read_at", cutting)
    with pytest.raises(WeightsError, match="cut short"):
        anp.weights.read(path)


def test_a_file_with_other_numbers_at_the_end_is_refused(tmp_path, tensors, monkeypatch):
    from alexnet_np.weights import reading

    path = wf.save_legacy(tmp_path / "w.pth", tensors)
    read_all = reading.read_all

    def rewriting(leaves):
        got = read_all(leaves)
        with path.open("rb+") as file:
            file.seek(-4, 2)
            file.write(b"\0\0\0\0")
        return got

    monkeypatch.setattr(reading, "read_all", rewriting)
    with pytest.raises(WeightsError, match="changed while it was read"):
        anp.weights.read(path)


def test_reading_takes_no_more_than_the_file(tmp_path):
    """A tenth above the file's size, in a process of its own: what is beside the weights is not read at all."""
    state = {f"layer{i}.weight": torch.zeros(1024, 1024) for i in range(8)}
    torch.save(
        {"state_dict": state, "optimizer": {"momentum": [torch.ones(1024, 1024) for _ in range(8)]}}, tmp_path / "w.pth"
    )
    code = f"""
import resource, alexnet_np as anp
anp.weights.read({str(tmp_path / "small.pth")!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
arrays = anp.weights.read({str(tmp_path / "w.pth")!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    torch.save({"w": torch.ones(2)}, tmp_path / "small.pth")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.1 * 32 * 1024 + 2048, done.stdout  # KiB; two MiB for Python's own
