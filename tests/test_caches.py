"""What the caches hold, as Linux says it; sizes that go with it change no bit of what a plan computes."""

import numpy as np
import pytest

import alexnet_np as anp
from alexnet_np.kernels import choices
from alexnet_np.kernels.choices import Row
from alexnet_np.kernels.cpu import caches


def processor(folder, *levels):
    for i, (level, kind, size) in enumerate(levels):
        index = folder / f"index{i}"
        index.mkdir()
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (index / name).write_text(f"{value}\n")
    return folder


FIRST = ((1, "Data", "32K"), (1, "Instruction", "32K"))


@pytest.mark.parametrize(
    ("levels", "core", "shared"),
    [
        ((*FIRST, (2, "Unified", "1024K"), (3, "Unified", "32768K")), 1 << 20, 32 << 20),
        ((*FIRST, (2, "Unified", "2M"), (3, "Unified", "260M")), 2 << 20, 260 << 20),
        ((*FIRST, (2, "Unified", "512K")), 512 << 10, 512 << 10),
        ((*FIRST, (2, "Unified", "256K"), (3, "Unified", "8M"), (4, "Unified", "128M")), 256 << 10, 128 << 20),
        ((), 1 << 20, 32 << 20),
        (FIRST, 1 << 20, 32 << 20),
        ((*FIRST, (2, "Unified", "many")), 1 << 20, 32 << 20),
        ((*FIRST, (2, "Unified", "0K")), 1 << 20, 32 << 20),
    ],
)
def test_linux_says_what_the_caches_hold_else_the_measured_machine_does(tmp_path, levels, core, shared):
    assert caches.find(processor(tmp_path, *levels)) == (core, shared)
    assert caches.find(tmp_path / "nothing") == caches.MEASURED


def test_sizes_go_with_the_cache_within_bounds():
    scaled = [caches.scaled(32, size << 10, 1 << 20, 24, 96) for size in (256, 512, 1024, 1280, 2048, 4096)]
    assert scaled == [24, 24, 32, 40, 64, 96]


@pytest.mark.parametrize("preset", ["torchvision", "paper"])
def test_no_size_that_goes_with_the_caches_changes_a_bit(preset):
    model = anp.alexnet(preset, width=1 / 4, num_classes=10, seed=0).eval()
    side = model.input_size or 224
    x = np.random.default_rng(0).standard_normal((5, 3, side, side), dtype=np.float32)
    x[1, 0, 100, 100] = 1e4  # a tile that is computed as defined
    logits = anp.compile(model, 5)(x)
    for tiles, stage, chunk in ((24, 3 << 20, 3 << 19), (96, 24 << 20, 12 << 20), (40, 1 << 20, 1 << 19)):
        stages = Row(op="stages", planned=True, training=False, stage_bytes=stage, chunk_bytes=chunk)
        with choices.overriding(Row(block_tiles=tiles), stages):
            assert np.array_equal(anp.compile(model, 5)(x), logits)
