"""Weight files from attackers and from broken disks: a correct result or a WeightsError, and nothing else, ever."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("hypothesis")

import weight_files as wf  # noqa: E402
from hostile import fails  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from weight_files import glob, number, tensor_of, text, tup  # noqa: E402

import alexnet_np as anp  # noqa: E402
from alexnet_np.errors import WeightsError  # noqa: E402

WRAPPINGS = {"zip": wf.zip_of, "legacy": wf.stream_of}
ORDERED_DICT = glob("collections", "OrderedDict")


# Pickles that run code, in whatever way.


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tup(*arguments) + b"R"


def entries(*pairs: tuple[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in pairs) + b"u"


ATTACKS = {
    "os.system": lambda s: call(glob("posix", "system"), text(f"touch {s}")),
    "eval": lambda s: call(glob("builtins", "eval"), text(f"open({s!r}, 'w')")),
    "eval, as Python 2 called it": lambda s: call(glob("__builtin__", "eval"), text(f"open({s!r}, 'w')")),
    "partial": lambda s: call(call(glob("functools", "partial"), glob("builtins", "open"), text(s), text("w"))),
    "partial's state": lambda s: (
        call(glob("functools", "partial"), glob("builtins", "print"))
        + (tup(glob("builtins", "open"), tup(text(s), text("w")), b"}", b"}") + b"b)R")
    ),
    "getattr of getattr": lambda s: call(
        call(glob("builtins", "getattr"), call(glob("importlib", "import_module"), text("os")), text("system")),
        text(f"touch {s}"),
    ),
    "a dotted name": lambda s: call(text("shutil") + text("os.system") + b"\x93", text(f"touch {s}")),
    "NEWOBJ": lambda s: glob("subprocess", "Popen") + tup(b"](" + text("touch") + text(s) + b"e") + b"\x81",
    "NEWOBJ_EX": lambda s: glob("subprocess", "Popen") + tup(tup(text("touch"), text(s))) + b"}\x92",
    "INST": lambda s: b"(" + text(f"touch {s}") + b"iposix\nsystem\n",
    "OBJ": lambda s: b"(" + glob("posix", "system") + text(f"touch {s}") + b"o",
    "__setstate__": lambda s: (
        ORDERED_DICT + b")R" + entries(("__setstate__", glob("posix", "system"))) + b"b" + text(f"touch {s}") + b"b"
    ),
    "an allowed function's globals": lambda s: (
        text("torch._utils") + text("_rebuild_tensor.__globals__") + b"\x93" + text("a") + b"b"
    ),
    "an extension code": lambda s: b"\x82\x01",
    "torch.hub.load": lambda s: call(glob("torch.hub", "load"), text("a/b"), text("c")),
    "numpy's unpickler": lambda s: call(glob("numpy", "load"), text(s)),
    "calling a tensor": lambda s: tensor_of((4,), (1,)) + b")R",
    "calling a storage type": lambda s: glob("torch", "FloatStorage") + tup(number(1 << 40)) + b"R",
    "attributes of a tensor": lambda s: tensor_of((4,), (1,)) + entries(("shape", tup(number(9)))) + b"b",
    "attributes of a function": lambda s: (
        glob("torch._utils", "_rebuild_tensor") + tup(b"}", entries(("__defaults__", tup(number(1))))) + b"b"
    ),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_code_runs(tmp_path, wrapping, attack):
    sentinel = tmp_path / "sentinel"
    path = WRAPPINGS[wrapping](tmp_path / "w.pth", wf.script(("w", ATTACKS[attack](str(sentinel)))))
    fails(path)
    assert not sentinel.exists()


REFUSED = {"an extension code", "calling a tensor", "attributes of a tensor", "attributes of a function"}
REFUSED |= {"an allowed function's globals"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_beside_weights_stay_names(tmp_path, attack):
    """What would run if somebody called it is as inert as a Namespace; what no file needs is refused."""
    sentinel = tmp_path / "sentinel"
    script = wf.script(
        ("model", wf.script(("w", tensor_of((2, 2), (1, 2))))[2:-1]), ("evil", ATTACKS[attack](str(sentinel)))
    )
    path = wf.zip_of(tmp_path / "w.pth", script, FOUR)
    if attack in REFUSED:
        fails(path, "refused before anything ran")
    else:
        assert list(anp.weights.read(path)) == ["w"]
    assert not sentinel.exists()


WORKING = ["os.system", "eval", "partial", "getattr of getattr", "a dotted name", "INST", "OBJ"]


@pytest.mark.parametrize("attack", WORKING)
def test_the_attacks_work_elsewhere(tmp_path, attack):
    """The test above means something only if Python's own unpickler runs them."""
    sentinel = tmp_path / "sentinel"
    pickle.loads(wf.script(("w", ATTACKS[attack](str(sentinel)))))
    assert sentinel.exists()


def test_a_whole_model_of_the_legacy_format(tmp_path):
    container = tup(text("module"), text("any"), text("model.py"), text("class Any: ...")) + b"Q"
    fails(wf.stream_of(tmp_path / "w.pth", wf.script(("w", container)), pickle.dumps([], 2)), "no arrays")
    fails(wf.save_tar(tmp_path / "t.pth", {"w": torch.ones(2)}, saved=[torch.nn.Linear]), "no arrays")


# Tensors and storages that claim more than there is.

FOUR = {"data/0": np.arange(4, dtype="<f4").tobytes()}
BEYOND = {
    "too many": tensor_of((5,), (1,)),
    "too far": tensor_of((4,), (1,), offset=1),
    "too wide": tensor_of((2, 2), (3, 1)),
    "huge": tensor_of((1 << 40, 1 << 20), (1 << 20, 1)),
    "overflowing": tensor_of((1 << 61, 2), (8, 1)),
    "past 64 bits": tensor_of((1 << 70,), (1,)),
    "one number, repeated": tensor_of((1 << 40,), (0,)),
    "nothing, but huge": tensor_of((0, 1 << 61, 1 << 61), (0, 0, 0)),
    "negative size": tensor_of((-4,), (1,)),
    "negative stride": tensor_of((4,), (-1,), offset=3),
    "negative offset": tensor_of((4,), (1,), offset=-1),
    "a stride too few": tensor_of((2, 2), (1,)),
    "too many axes": tensor_of((1,) * 65, (1,) * 65),
    "a size that is no number": tensor_of((4,), (1,)).replace(number(4) + b"t", text("4") + b"t"),
    "a storage larger than the file": tensor_of((4,), (1,), storage=wf.storage_id(numel=1 << 50)),
    "a storage that is not there": tensor_of((4,), (1,), storage=wf.storage_id(key="../../../etc/passwd")),
    "a storage of two types": tensor_of((4,), (1,)) + text("v") + tensor_of((2,), (1,), storage=wf.storage_id(2)),
    "no storage": tensor_of((4,), (1,), storage=b"N"),
    "no parts": call(glob("torch._utils", "_rebuild_tensor_v2")),
}


@pytest.mark.parametrize("case", BEYOND)
def test_tensors_stay_within_their_storage(tmp_path, case):
    fails(wf.zip_of(tmp_path / "w.pth", wf.script(("w", BEYOND[case])), FOUR))
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + FOUR["data/0"]
    fails(wf.stream_of(tmp_path / "l.pth", wf.script(("w", BEYOND[case])), tail))


def test_the_same_files_with_honest_sizes_are_read(tmp_path):
    want, honest = np.arange(4, dtype=np.float32), wf.script(("w", tensor_of((2, 2), (1, 2))))
    path = wf.zip_of(tmp_path / "w.pth", honest, FOUR)
    np.testing.assert_array_equal(anp.weights.read(path)["w"], want.reshape(2, 2).T)
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + FOUR["data/0"]
    path = wf.stream_of(tmp_path / "l.pth", honest, tail)
    np.testing.assert_array_equal(anp.weights.read(path)["w"], want.reshape(2, 2).T)


@pytest.mark.parametrize("numel", [-1, 0, 3, 5, 1 << 40, (1 << 63) - 1])
def test_legacy_storages_that_lie_about_their_size(tmp_path, numel):
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", numel) + FOUR["data/0"]
    fails(wf.stream_of(tmp_path / "w.pth", wf.script(("w", tensor_of((4,), (1,)))), tail))
    claim = tensor_of((4,), (1,), storage=wf.storage_id(numel))
    fails(wf.stream_of(tmp_path / "w.pth", wf.script(("w", claim)), tail))


def test_storages_listed_wrongly(tmp_path):
    script, data = wf.script(("w", tensor_of((4,), (1,)))), struct.pack("<q", 4) + FOUR["data/0"]
    fails(wf.stream_of(tmp_path / "w.pth", script, pickle.dumps([], 2)), "storage '0' is missing")
    for keys in (["1"], [("0",)], "0", None, [[]]):
        fails(wf.stream_of(tmp_path / "w.pth", script, pickle.dumps(keys, 2) + (b"" if keys == "0" else data)))


def test_tar_files_that_lie(tmp_path):
    honest = wf.save_tar(tmp_path / "w.pth", {"w": torch.arange(4.0)})
    raw = honest.read_bytes()
    numel, shape = raw.index(struct.pack("<q", 4)), raw.index(struct.pack("<ii", 1, 0))
    for place, value in (
        (numel, struct.pack("<q", 1 << 50)),
        (shape, struct.pack("<i", 1 << 30)),
        (shape, struct.pack("<i", -1)),
        (shape + 8, struct.pack("<q", 5)),
        (shape + 8, struct.pack("<q", 1 << 62)),
        (shape + 24, struct.pack("<q", -1)),
        (156, b"2"),  # a link
    ):
        honest.write_bytes(raw[:place] + value + raw[place + len(value) :])
        fails(honest)


# Bombs.

NOT_A_DICT = b"N."
PICKLE_BOMBS = {
    "a memo index of 4 billion": b"\x80\x02Nr\xff\xff\xff\xff.",
    "a string of 4 GB": b"\x80\x02X\xff\xff\xff\xff" + NOT_A_DICT,
    "a string of 2^63 bytes": b"\x80\x04\x8d" + struct.pack("<Q", (1 << 63) - 1) + NOT_A_DICT,
    "bytes of 2^62": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + NOT_A_DICT,
    "a bytearray of 2^40": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + NOT_A_DICT,
    "an int of a megabyte": b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + b".",
    "a decimal of a megabyte": b"I" + b"9" * (1 << 20) + b"\n.",
    "nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "nested tuples for a key": b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",
    "a key that is 2^60 tuples": b"\x80\x02})" + b"".join(b"q\x00h\x00\x86" for _ in range(60)) + b"Ns.",
    "a persistent id of nested tuples": b"\x80\x02)" + b"\x85" * 100_000 + b"Q.",
    "a global named by nested tuples": b"\x80\x04)" + b"\x85" * 100_000 + text("x") + b"\x93.",
    "a billion laughs": b"\x80\x02]" + b"".join(b"q\x00](h\x00h\x00e" for _ in range(100)) + b".",
    "a list of itself": b"\x80\x02]q\x00h\x00a.",
    "a dict of itself": wf.script(("state_dict", b"}q\x00" + text("w") + b"h\x00s")),
    "a million steps": b"\x80\x02" + b"N" * 1_100_000 + b".",
    "marks": b"\x80\x02" + b"(" * 300_000 + b".",
    "one long list, read often": (
        b"\x80\x02" + ORDERED_DICT + b"q\x00]("
        + b"](X\x01\x00\x00\x00aNe" * 30_000 + b"e\x85q\x02" + b"h\x00h\x02R" * 100_000 + b"."
    ),
    "one long tuple of arguments": (
        b"\x80\x02" + glob("torch._utils", "_rebuild_tensor_v2") + b"q\x00("
        + (wf.storage_id() + number(0) + b"))" + b"N" * 300_000) + b"tq\x02" + b"h\x00h\x02R" * 100_000 + b"."
    ),
    "one long shape": (
        b"\x80\x02" + glob("torch._utils", "_rebuild_tensor") + b"q\x00(" + wf.storage_id() + number(0)
        + b"(" + b"K\x01" * 300_000 + b"tq\x01h\x01tq\x02" + b"h\x00h\x02R" * 100_000 + b"."
    ),
    "a stack that runs empty": b"\x80\x02R.",
    "a mark that is not there": b"\x80\x02NNt.",
    "a memo that is not there": b"\x80\x02h\x07.",
    "nothing": b".",
    "no end": b"\x80\x02N",
    "an unknown opcode": b"\x80\x02\xff.",
}  # fmt: skip


@pytest.mark.parametrize("wrapping", [pytest.param(w, marks=[pytest.mark.slow] * (w == "legacy")) for w in WRAPPINGS])
@pytest.mark.parametrize("bomb", PICKLE_BOMBS)
def test_pickle_bombs(tmp_path, wrapping, bomb):
    fails(WRAPPINGS[wrapping](tmp_path / "w.pth", PICKLE_BOMBS[bomb]), megabytes=256)


# Damage at random. The formats with checksums never give a wrong number; the others give arrays, and bounded ones.


def npz(path, state):
    with path.open("wb") as file:
        np.savez_compressed(file, **wf.arrays(state))
    return path


def safetensors(path, state):
    from safetensors.torch import save_file

    save_file(state, path)
    return path


WRITERS = {"zip": wf.save_zip, "npz": npz, "legacy": wf.save_legacy, "tar": wf.save_tar, "safetensors": safetensors}
CHECKED = ("zip", "npz")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    return {name: save(folder / name, wf.state_dict()).read_bytes() for name, save in WRITERS.items()}


fraction = st.floats(0, 1, exclude_max=True)
damage = st.one_of(
    st.tuples(st.just("truncate"), fraction),
    st.tuples(st.just("flip"), fraction, st.integers(0, 7)),
    st.tuples(st.just("flip near the end"), fraction, st.integers(0, 7)),
    st.tuples(st.just("splice"), fraction, fraction, st.binary(max_size=16)),
    st.tuples(st.just("copy"), fraction, fraction, fraction),
)


def damaged(raw: bytes, kind: str, where: float, *how) -> bytes:
    at = int(where * len(raw))
    if kind == "truncate":
        return raw[:at]
    if kind in ("flip", "flip near the end"):  # where a zip file has its directory
        at = at if kind == "flip" else len(raw) - 1 - int(where * min(len(raw), 2500))
        return raw[:at] + bytes([raw[at] ^ 1 << how[0]]) + raw[at + 1 :]
    if kind == "splice":
        return raw[:at] + how[1] + raw[at + int(how[0] ** 8 * len(raw)) :]
    start, length = int(how[0] * len(raw)), int(how[1] ** 4 * len(raw))
    return raw[:at] + raw[start : start + length] + raw[at + length :]


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(damage, min_size=1, max_size=3))
def test_damage_anywhere(tmp_path, originals, name, damages):
    raw = originals[name]
    for one in damages:
        raw = damaged(raw, *one) if raw else raw
    path = tmp_path / "w"
    path.write_bytes(raw)
    try:
        got = anp.weights.read(path)
    except WeightsError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return
    want = wf.arrays(wf.state_dict())
    if name in CHECKED:
        assert got.keys() <= want.keys()
        for key, array in got.items():
            np.testing.assert_array_equal(array, want[key])
    assert sum(array.nbytes for array in got.values()) <= 16 * len(raw) + len(got) * (8 << 20)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(damage, min_size=1, max_size=4))
def test_damage_in_the_pickle_under_a_right_checksum(tmp_path, originals, damages):
    """As an attacker would make it: the pickle machine gets to see every change."""
    with zipfile.ZipFile(io.BytesIO(originals["zip"])) as archive:
        members = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    script = members.pop("data.pkl")
    for one in damages:
        script = damaged(script, *one) if script else script
    try:
        got = anp.weights.read(wf.zip_of(tmp_path / "w", script, members))
    except WeightsError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return
    numbers = {float(x) for array in wf.arrays(wf.state_dict()).values() for x in array.flat}
    for array in got.values():  # no number that is not the file's: nothing beyond a storage was read
        assert array.size <= 1 << 20
        assert array.dtype != np.float32 or {float(x) for x in array.flat} <= numbers


@pytest.mark.parametrize("name", CHECKED)
def test_every_single_flipped_bit_of_the_numbers_is_noticed(tmp_path, originals, name):
    rng = np.random.default_rng(0)
    for at in rng.integers(2000, len(originals[name]) - 3000, 60):
        raw = bytearray(originals[name])
        raw[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "w").write_bytes(raw)
        try:
            got = anp.weights.read(tmp_path / "w")
        except WeightsError:
            continue
        want = wf.arrays(wf.state_dict())  # padding between the members, or a time in a header
        assert all(np.array_equal(got[key], array) for key, array in want.items())
