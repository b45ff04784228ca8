import numpy as np
import pytest

from alexnet_np.random import generator, philox, uniform

# Random123's known answers for philox4x32 with 10 rounds: counter, key, result
KNOWN = [
    ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_known_answers(counter, key, result):
    words = philox([np.array([c], np.uint64) for c in counter], tuple(key))
    assert [int(word[0]) for word in words] == result


def test_first_numbers_are_the_first_known_answers_top_bits():
    assert (uniform(4, seed=0) * 2**24).astype(int).tolist() == [word >> 8 for word in KNOWN[0][2]]


def test_layout_of_counter_and_key():
    """Element e of (seed, stream) is word e % 4 of block e // 4, counter and key as the module's head has them."""
    seed, stream, element = 0x1234_5678_9ABC_DEF0, 0x0FED_CBA9_8765_4321, 41
    counter = [np.array([c], np.uint64) for c in (element // 4, 0, 0x8765_4321, 0x0FED_CBA9)]
    word = int(philox(counter, (0x9ABC_DEF0, 0x1234_5678))[element % 4][0])
    assert uniform(42, seed, stream)[element] == (word >> 8) * 2.0**-24


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 1000])
def test_a_shorter_draw_is_the_beginning_of_a_longer_one(size):
    numbers = uniform(size, seed=7)
    assert numbers.shape == (size,) and numbers.dtype == np.float32
    assert np.array_equal(numbers, uniform(1001, seed=7)[:size])


def test_uniform_in_0_to_1():
    numbers = uniform(1 << 18, seed=3)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=64, range=(0, 1))
    expected = numbers.size / 64
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < 63 + 5 * np.sqrt(2 * 63)


@pytest.mark.parametrize("other", [{"seed": 2}, {"seed": 1 + (1 << 40)}, {"seed": 1, "stream": 1}, {"seed": -1}])
def test_seeds_and_streams_differ(other):
    assert not np.array_equal(uniform(64, seed=1), uniform(64, **other))


def test_negative_and_numpy_seeds_are_64_bit_words():
    assert np.array_equal(uniform(8, seed=-1), uniform(8, seed=(1 << 64) - 1))
    assert np.array_equal(uniform(8, seed=np.int64(5)), uniform(8, seed=5))


def philox4x64(counter, key):
    """Salmon et al. (2011), sec. 4, on Python's own integers."""
    (c0, c1, c2, c3), (k0, k1), mask = counter, key, (1 << 64) - 1
    for _ in range(10):
        low, high = c0 * 0xD2E7470EE14C6C93, c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = (high >> 64) ^ c1 ^ k0, high & mask, (low >> 64) ^ c3 ^ k1, low & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]


def test_the_oracle_knows_random123s_answer():
    answer = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox4x64([0, 0, 0, 0], [0, 0]) == answer


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (7, 2), (2**32 - 1, 15)])
def test_initial_weights_are_words_of_seed_and_stream(seed, stream):
    words = generator(seed, stream).bit_generator.random_raw(8)
    blocks = [philox4x64([block, 0, 0, stream], [seed, 0]) for block in (1, 2)]  # NumPy counts from 1
    assert words.tolist() == sum(blocks, [])
