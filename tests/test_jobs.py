"""Jobs over many images: the same numbers as the model's own, in order, past bad files, after a kill."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet_np as anp
from alexnet_np import jobs, threads
from alexnet_np.jobs import choosing, embedding, parts

CAT = Path(anp.__file__).parent / "assets" / "cat.jpg"
COUNT = 40


@pytest.fixture(scope="module")
def model():
    return anp.alexnet("torchvision", width=1 / 16, num_classes=10, seed=5).eval()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Many small pictures, all different, of which two cannot be read."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(1)
    for i in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / f"{i:03}.png")
    for i in 7, 20:
        (folder / f"{i:03}.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def files(photographs):
    """In an order that is not the names' own."""
    return sorted(map(str, photographs.iterdir()), key=lambda name: name[::-1])


def embeddings(model, files):
    """The vectors, one image at a time by the model's own layers."""
    kept = []
    handle = model.classifier[5].register_forward_hook(lambda layer, x, y: kept.append(y[0].copy()))
    for file in files:
        model(anp.preprocess(file)[None])
    handle.remove()
    return np.array(kept)


def readable(files):
    return [file for file in files if Path(file).name not in ("007.png", "020.png")]


def copy_of(model):
    """For jobs that may drop the weights."""
    made = anp.alexnet("torchvision", width=1 / 16, num_classes=10, seed=5)
    made.load_state_dict(model.state_dict())
    return made


# Workers


# Threads and plans


@pytest.mark.parametrize("preset", ["torchvision", "paper", "d2l"])
def test_a_twin_gives_the_same_bits_from_the_same_weights(preset, rng):
    model = anp.alexnet(preset, width=1 / 16, num_classes=10, seed=1).eval()
    plan = anp.compile(model, max_batch=4)
    twin = plan.twin()
    packed = [step.weights for step in plan._program.steps if step.weights.size]
    assert all(a is b for a, b in zip(packed, [s.weights for s in twin._program.steps if s.weights.size], strict=True))
    C, side = (1, 224) if preset == "d2l" else (3, 224)
    x = rng.standard_normal((6, 4, C, side, side)).astype(np.float32)
    want = [plan(batch) for batch in x]
    found = [None] * len(x)

    def run(which, own):
        with threads.alone():
            for i in own:
                found[i] = which(x[i])

    both = [
        threading.Thread(target=run, args=arguments) for arguments in ((plan, range(0, 6, 2)), (twin, range(1, 6, 2)))
    ]
    [each.start() for each in both]
    [each.join() for each in both]
    np.testing.assert_array_equal(found, want)


def test_a_twin_takes_other_sizes(rng):
    model = anp.alexnet("torchvision", width=1 / 16, num_classes=10, seed=1).eval()
    plan = anp.compile(model, max_batch=2)
    twin = plan.twin()
    x = rng.standard_normal((2, 3, 240, 200)).astype(np.float32)
    np.testing.assert_allclose(twin(x), model(x), rtol=1e-4, atol=1e-6)


# Which engine


def test_the_engine_is_chosen_by_what_there_is(model, monkeypatch):
    def choice(backend=None, images=100, of=model):
        made = jobs.choose(backend, images, of)
        return made.engine, made.backend

    assert choice() == choice("auto") == choice("numba") == ("plan", "numba")
    assert choice("numpy") == ("arrays", "numpy")
    assert choice(of=anp.alexnet("torchvision", width=1 / 16, dtype="float64", seed=0)) == ("arrays", "numpy")
    monkeypatch.setattr(choosing, "kernels_on_disk", lambda: True)
    assert choice(images=1) == ("plan", "numba")
    monkeypatch.setattr(choosing, "kernels_on_disk", lambda: False)
    assert choice(images=choosing.HANDFUL) == ("arrays", "numpy")
    assert choice(images=choosing.HANDFUL + 1) == ("plan", "numba")
    monkeypatch.setattr(choosing, "available_backends", lambda: {"numba": "numba is not installed"})
    assert choice() == ("arrays", "numpy")
    with pytest.raises(anp.errors.ArgumentError, match="choose one of auto, numpy, numba, cupy, cuda"):
        choice("fast")


def test_kernels_on_disk_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(choosing.code_cache, "places", lambda: [tmp_path / "none", tmp_path])
    for name in choosing.FIRST_AND_LAST:
        assert not choosing.kernels_on_disk()
        (tmp_path / f"{name}-0123.kernel").touch()
    assert choosing.kernels_on_disk()


def test_the_names_of_those_kernels_are_right(model):
    """The plan's first and last kernel, as they are called on the disk."""
    from alexnet_np.kernels.cpu.numba_internals import name_of
    from alexnet_np.kernels.linear_numba import product_of_packed
    from alexnet_np.kernels.preprocess_nhwc_numba import bytes_to_depth

    assert (name_of(bytes_to_depth), name_of(product_of_packed)) == choosing.FIRST_AND_LAST


def test_one_worker_a_core(model):
    engine = jobs.open_engine(model, images=100, backend="numba")
    assert engine.at_once == len(engine.workers) == threads.get_num_threads()
    assert jobs.open_engine(model, images=1, backend="numba").at_once == 1
    assert jobs.open_engine(model, images=100, backend="numba", workers=1).at_once == 1


def test_what_no_plan_can_do_is_left_to_the_array_operations_unless_it_was_asked_for(model, monkeypatch):
    def refuse(*arguments, **options):
        raise anp.errors.ArgumentError("no plan for this")

    monkeypatch.setattr("alexnet_np.jobs.engine.compile_plan", refuse)
    engine = jobs.open_engine(model, images=100)
    expected = {"engine": "arrays", "backend": "numpy", "why": "no plan for this", "workers": 1, "chunk": 32}
    assert engine.described() == expected
    with pytest.raises(anp.errors.ArgumentError, match="no plan"):
        jobs.open_engine(model, images=100, backend="numba")


# Rows


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_rows_are_the_models_own_in_the_order_of_the_files(model, files, backend):
    name = jobs.embedding_name(model)
    assert name == "classifier.5"
    engine = jobs.open_engine(copy_of(model), name, images=len(files), backend=backend, batch_size=4, forget=True)
    found = list(jobs.stream(files, engine))
    assert [file for rows in found for file in rows.files] == readable(files)
    assert [failure.file for rows in found for failure in rows.failures] == [
        f for f in files if f not in readable(files)
    ]
    want = embeddings(model, readable(files))
    np.testing.assert_allclose(np.concatenate([rows.values for rows in found]), want, rtol=1e-4, atol=1e-6)


def test_the_weights_are_gone_once_they_are_packed(model, files):
    mine = copy_of(model)
    jobs.open_engine(mine, images=100, backend="numba", forget=True)
    assert sum(p.data.strides == (0,) * p.data.ndim for p in mine.parameters()) == 16
    kept = copy_of(model)
    jobs.open_engine(kept, images=100, backend="numba")
    np.testing.assert_array_equal(kept.classifier[6].weight.data, model.classifier[6].weight.data)


@pytest.mark.parametrize("crops", [1, 10])
def test_logits_of_a_data_set(model, crops):
    from alexnet_np.data.augment import CenterCrop, TenCrop
    from alexnet_np.data.dataset import Synthetic
    from alexnet_np.presets import PRESETS

    dataset = Synthetic(13, size=256, channels=3, seed=0)
    recipe = PRESETS["torchvision"].preprocessing
    augment = CenterCrop(recipe) if crops == 1 else TenCrop(recipe)
    engine = jobs.open_engine(model, images=13 * crops, backend="numba", batch_size=8)
    found = list(jobs.stream_logits(dataset, augment, engine))
    np.testing.assert_array_equal(np.concatenate([target for _, target in found]), dataset.targets)
    x = np.empty((13, *augment.shape), np.float32)
    for i in range(13):
        augment(dataset.pixels(i), np.empty(0), x[i])
    want = model(x.reshape(-1, 3, 224, 224)).reshape(*x.shape[:-3], 10)
    np.testing.assert_allclose(np.concatenate([logits for logits, _ in found]), want, rtol=1e-4, atol=1e-5)


# Files of vectors, and going on


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("alexnet_np.jobs.embedding.PART", 8)


def read(out):
    """(names, vectors) of a file of vectors."""
    if out.suffix == ".npz":
        with np.load(out) as saved:
            return saved["files"].tolist(), saved["embeddings"]
    if out.suffix == ".npy":
        return out.with_name(f"{out.name}.txt").read_text().splitlines(), np.load(out)
    table = pytest.importorskip("pyarrow.parquet").read_table(out)
    return table["file"].to_pylist(), np.array(table["embedding"].to_pylist(), np.float32)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".parquet"])
def test_vectors_in_every_format(model, files, tmp_path, small_parts, ending):
    out = tmp_path / f"v{ending}"
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    seen = []
    done = jobs.embed(copy_of(model), files, out, batch_size=3, forget=True, progress=seen.append)
    names, vectors = read(out)
    assert names == done.files == readable(files)
    assert len(done.failures) == 2 and sum(seen) == len(files)
    assert (done.features, done.kept) == (256, 0)
    assert (vectors.dtype, vectors.shape) == (np.float32, (38, 256))
    np.testing.assert_allclose(vectors, embeddings(model, names), rtol=1e-4, atol=1e-6)
    assert {path.name for path in tmp_path.iterdir()} <= {out.name, f"{out.name}.txt", f"{out.name}.done.json"}


def stop_after(images):
    done = itertools.count()

    def progress(more):
        if more and next(done) * 4 >= images:
            raise KeyboardInterrupt

    return progress


def test_what_was_stopped_goes_on_with_what_is_missing(model, files, tmp_path, small_parts):
    options = {"batch_size": 4, "backend": "numba"}
    jobs.embed(model, files, tmp_path / "whole.npz", **options)
    out = tmp_path / "v.npz"
    with pytest.raises(jobs.Interrupted, match="16 of 40 images are kept in .*--resume") as stopped:
        jobs.embed(model, files, out, progress=stop_after(16), **options)
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert not out.exists()
    with pytest.raises(anp.errors.DataError, match="go on with --resume, or delete it"):
        jobs.embed(model, files, out, **options)
    seen = []
    done = jobs.embed(model, files, out, resume=True, progress=seen.append, **options)
    assert done.kept == seen[0] == 16
    assert len(done.failures) == 2
    for ours, theirs in zip(read(out), read(tmp_path / "whole.npz"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_what_is_finished_is_not_done_again(model, photographs, tmp_path, small_parts, monkeypatch, ending):
    folder = shutil.copytree(photographs, tmp_path / "copy")
    files, out, seen = sorted(map(str, folder.iterdir())), tmp_path / f"v.{ending}", []
    first = jobs.embed(model, files, out, batch_size=4)
    bits = out.read_bytes()
    with monkeypatch.context() as nothing:
        nothing.setattr(embedding, "open_engine", None)
        again = jobs.embed(model, files, out, resume=True, progress=seen.append)
    assert (again.files, again.failures, again.features) == (first.files, first.failures, first.features)
    assert again.kept == len(files) == sum(seen) and out.read_bytes() == bits
    assert again.engine["engine"] == "none"
    assert jobs.embed(model, files, out, batch_size=4).kept == 0, "without resume it is"
    other = anp.alexnet("torchvision", width=1 / 16, num_classes=10, seed=6)
    assert jobs.embed(other, files, out, resume=True).kept == 0
    out.write_bytes(bits[:-1])
    assert jobs.embed(other, files, out, resume=True).kept == 0
    Image.new("RGB", (9, 9), "red").save(files[7])
    assert jobs.embed(other, files, out, resume=True).kept == 0
    assert jobs.embed(other, files, out, resume=True).kept == len(files)


def test_parts_of_other_files_or_weights_are_done_again(model, photographs, tmp_path, small_parts):
    folder = shutil.copytree(photographs, tmp_path / "copy")
    files = sorted(map(str, folder.iterdir()))
    out = tmp_path / "v.npy"

    def kept(model):
        with pytest.raises(jobs.Interrupted):
            jobs.embed(model, files, out, resume=True, progress=stop_after(24), batch_size=4)
        return len(list(tmp_path.glob("*.parts/*")))

    assert kept(model) == 3
    Image.new("RGB", (9, 9), "red").save(files[7])  # mended meanwhile
    damaged = tmp_path / "v.npy.parts" / "part-000001.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done = jobs.embed(model, files, out, resume=True)
    assert done.kept == 8
    np.testing.assert_allclose(read(out)[1], embeddings(model, read(out)[0]), rtol=1e-4, atol=1e-6)

    out.unlink()
    kept(model)
    other = anp.alexnet("torchvision", width=1 / 16, num_classes=10, seed=6)
    assert jobs.embed(other, files, out, resume=True).kept == 0
    np.testing.assert_allclose(read(out)[1], embeddings(other, read(out)[0]), rtol=1e-4, atol=1e-6)


def test_a_part_is_whole_or_not_there(model, files, tmp_path, monkeypatch):
    store = parts.Parts(tmp_path / "v.npz", "of")
    rows = jobs.Rows(files[:2], np.zeros((2, 3), np.float32), [])

    def disk_full(path, tensors, about):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(parts.safetensors_file, "save", disk_full)
        with pytest.raises(OSError):
            store.write(0, files[:2], rows)
    assert not store.has(0, files[:2]) and not list(store.folder.iterdir())
    store.write(0, files[:2], rows)
    assert store.has(0, files[:2])
    assert not store.has(0, files[:3])
    (tmp_path / "plain").touch()
    (written,) = store.folder.iterdir()
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode, "who may read the pictures may read this"


KILLED = """
import sys, os, alexnet_np.jobs.embedding as embedding
embedding.PART = 8
from alexnet_np.cli import main
main()
"""


@pytest.mark.parametrize("sign, code", [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_process_that_is_killed_goes_on(model, files, tmp_path, sign, code):
    np.savez(tmp_path / "w.npz", **model.state_dict())
    many = [str(shutil.copy(files[0], tmp_path / f"{i:04}.png")) for i in range(1200)]
    command = [
        sys.executable,
        "-c",
        KILLED,
        "embed",
        *map(str, many),
        "-w",
        "w.npz",
        "-o",
        "v.npz",
        "--json",
        "-b",
        "4",
    ]
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while len(list(tmp_path.glob("v.npz.parts/part-*"))) < 3:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    running.send_signal(sign)
    _, said = running.communicate(timeout=60)
    assert running.returncode == code
    if sign == signal.SIGINT:
        assert b"of 1200 images are kept in v.npz.parts; the same command with --resume goes on" in said
    assert not (tmp_path / "v.npz").exists()
    again = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, timeout=100)
    found = json.loads(again.stdout)
    assert 24 <= found["kept"] < 1200
    names, vectors = read(tmp_path / "v.npz")
    assert names == many
    assert len(np.unique(vectors, axis=0)) == 1
    assert not (tmp_path / "v.npz.parts").exists()


def test_the_benchmark_says_the_bound_and_our_share_of_it():
    from alexnet_np.measure.jobs import COMPUTING, DECODING, OURS, speeds
    from alexnet_np.measure.report import Row

    rows = [Row("w", OURS, median=2.0), Row("w", DECODING, median=0.5), Row("w", COMPUTING, median=1.0)]
    *others, bound = speeds(300, [*rows, Row("w", "openvino", missing="not installed")])
    assert others == [f"{OURS}: 150 images/s", f"{DECODING}: 600 images/s", f"{COMPUTING}: 300 images/s"]
    assert "200 images/s" in bound and "75%" in bound
