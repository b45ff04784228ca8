"""Mistakes with ops and layers: each is an AlexNetError of one line, and what it says to do works when done."""

import pytest
from mistakes import check, names, rows

MISTAKES = rows(r"""
layers.Sequential(3)  ->  layers must be layers, or a list of them, got 3
    layers.Sequential([layers.ReLU()])
ops.max_pool2d.backward(y[:1], cache)  ->  dy has shape (1, 3, 4, 4), the output had (2, 3, 4, 4)
    ops.max_pool2d.backward(y, cache)
layers.Sequential(["relu"])  ->  must be a layer of alexnet_np.layers
    layers.Sequential([layers.ReLU()])
layers.Linear(-1, 3)  ->  in_features must be at least 0
    layers.Linear(1, 3)
layers.Linear(4, "3")  ->  out_features must be an int
    layers.Linear(4, 3)
layers.Linear(4, 3, bias=None)  ->  bias must be True or False
    layers.Linear(4, 3, bias=False)
layers.Linear(2**31 - 1, 2**31 - 1)  ->  ask for less
    layers.Linear(2, 2)
layers.Conv2d(3, 4, 3, groups=2)  ->  must be multiples of groups=2
    layers.Conv2d(4, 4, 3, groups=2)
layers.Conv2d(3, 4, 0)  ->  kernel_size must be at least 1
    layers.Conv2d(3, 4, 1)
layers.Conv2d(3, 4, 3, stride=0)  ->  stride must be at least 1
    layers.Conv2d(3, 4, 3, stride=1)
layers.Conv2d(3, 4, 3, padding="full")  ->  'same' or 'valid'
    layers.Conv2d(3, 4, 3, padding="same")
layers.MaxPool2d(3, padding=2)  ->  at most half of the kernel
    layers.MaxPool2d(3, padding=1)
layers.Dropout(1.5)  ->  p must be between 0 and 1
    layers.Dropout(0.5)
layers.LocalResponseNorm(5, convention="kaffe")  ->  choose one of torch
    layers.LocalResponseNorm(5, convention="caffe")
layers.Flatten("all")  ->  start_dim must be an int
    layers.Flatten(1)
conv2d(x, w, stride=2**62)  ->  stride must be at most 2147483647
    conv2d(x, w, stride=2**31 - 1)
conv2d(x, w, stride=1.5)  ->  stride must be an int or a pair of ints
    conv2d(x, w, stride=1)
conv2d(x, w, groups=None)  ->  groups must be an int
    conv2d(x, w, groups=1)
conv2d(x, w, padding=2**30)  ->  and this machine has
    conv2d(x, w, padding=2)
ops.conv2d.backward(x, None)  ->  y, cache = conv2d.forward(...)
    ops.conv2d.backward(*conv2d(x, w))
ops.conv2d.backward(*conv2d(x, w), needs=True)  ->  three flags
    ops.conv2d.backward(*conv2d(x, w), needs=(True, True, False))
max_pool2d(x, None)  ->  kernel_size must be an int or a pair
    max_pool2d(x, 3)
max_pool2d(x, 3, ceil_mode="no")  ->  ceil_mode must be True or False
    max_pool2d(x, 3, ceil_mode=False)
max_pool2d(x, 2**63)  ->  kernel_size must be at most
    max_pool2d(x, 8)
ops.max_pool2d.backward(cache, y)  ->  cache must be what max_pool2d.forward returned
    ops.max_pool2d.backward(y, cache)
adaptive_avg_pool2d(x, "6")  ->  an int or a pair of ints or None
    adaptive_avg_pool2d(x, 6)
adaptive_avg_pool2d(x, 2**63)  ->  output_size must be at most
    adaptive_avg_pool2d(x, 6)
adaptive_avg_pool2d(x, 2**30)  ->  ask for less
    adaptive_avg_pool2d(x, 30)
local_response_norm(x, 3, k=None)  ->  k must be a finite number, got None
    local_response_norm(x, 3, k=1.0)
local_response_norm(x, 3, alpha=None)  ->  alpha must be a finite number
    local_response_norm(x, 3, alpha=1e-4)
local_response_norm(x, 0)  ->  size must be at least 1
    local_response_norm(x, 1)
local_response_norm(x, 3, convention=[])  ->  choose one of torch
    local_response_norm(x, 3, convention="torch")
dropout(x, p="a", seed=1)  ->  p must be between 0 and 1, got 'a'
    dropout(x, p=0.5, seed=1)
dropout(x)  ->  give seed=<int> or mask=
    dropout(x, seed=1)
dropout(x, training=None)  ->  training must be True or False
    dropout(x, training=False)
softmax(logits, dim=2)  ->  give -2 to 1
    softmax(logits, dim=1)
softmax(logits, dim=None)  ->  dim must be an int
    softmax(logits, dim=-1)
cross_entropy(logits, [0, 1, 2, 3])  ->  use numpy.asarray(target)
    cross_entropy(logits, np.asarray([0, 1, 2, 3]))
cross_entropy(logits, labels.astype("float32"))  ->  target.astype('int64')
    cross_entropy(logits, labels.astype("float32").astype("int64"))
cross_entropy(logits, labels + 5)  ->  out of 0...4
    cross_entropy(logits, labels)
cross_entropy(logits, labels, ignore_index="a")  ->  ignore_index must be an int, got 'a'
    cross_entropy(logits, labels, ignore_index=-100)
cross_entropy(logits, labels, ignore_index=[2, 2])  ->  ignore_index must be an int
    cross_entropy(logits, labels, ignore_index=2)
cross_entropy(logits, labels, ignore_index=None)  ->  ignore_index must be an int
    cross_entropy(logits, labels)
cross_entropy(logits, labels, ignore_index=2.5)  ->  ignore_index must be an int
    cross_entropy(logits, labels, ignore_index=2)
cross_entropy(logits, labels, label_smoothing=None)  ->  label_smoothing must be between 0 and 1
    cross_entropy(logits, labels, label_smoothing=0)
cross_entropy(logits, labels, reduction=["mean"])  ->  must be 'mean', 'sum' or 'none'
    cross_entropy(logits, labels, reduction="mean")
linear(logits, logits.T)  ->  their last axes must be equal
    linear(logits, logits)
relu([1.0])  ->  use numpy.asarray(..., dtype='float32')
    relu(np.asarray([1.0], dtype='float32'))
flatten(x, 2, 1)  ->  comes after end_dim
    flatten(x, 1, 2)
""")


@pytest.mark.parametrize(("wrong", "says", "right"), MISTAKES, ids=[wrong for wrong, _, _ in MISTAKES])
def test_a_mistake_is_told_in_one_line_and_the_remedy_works(wrong, says, right):
    check(wrong, says, right)


# What is right, though it is seldom written so


@pytest.mark.parametrize(
    "line",
    [
        "max_pool2d(x, np.int32(3), stride=np.int64(2))",
        "max_pool2d(x, [3, 2], stride=())",
        "conv2d(x, w, stride=np.array(2), padding=[1, 1], groups=np.uint8(1))",
        "local_response_norm(x, np.int64(3), alpha=np.float32(1e-4), k=2)",
        "dropout(x, p=np.float64(0.5), training=np.True_, seed=np.uint32(7))",
        "cross_entropy(logits, labels, ignore_index=np.int64(2), label_smoothing=0)",
        "adaptive_avg_pool2d(x, (np.int64(2), None))",
        "alexnet(num_classes=np.int64(3), width=np.float32(1 / 32), seed=np.uint64(5), dtype=np.float64)",
        "anp.SGD(named, np.float32(0.1), momentum=1, nesterov=np.bool_(True))",
        "StepLR(optimizer, np.int64(2), gamma=np.float32(0.5))",
        "OneCycleLR(optimizer, (0.1,), np.int64(10))",
        "Config(epochs=np.int64(3), lr=np.float32(0.1), lrn=np.bool_(False), freeze=['features']).to_json()",
    ],
)
def test_numpys_numbers_and_flags_count_as_pythons(line):
    eval(line, names())
