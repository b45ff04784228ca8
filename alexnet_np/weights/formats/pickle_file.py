"""A pickle that neither torch.save nor numpy.save wrote: a dict of arrays or tensors, as pickle.dump leaves it.

Checkpoints of cuda-convnet are such files too; cuda_convnet.py knows what is in them. So are Paddle's .pdparams.
"""

from __future__ import annotations

from alexnet_np.weights.formats import cuda_convnet, pickled
from alexnet_np.weights.formats.torch_legacy import storage_in
from alexnet_np.weights.leaves import Contents, Holder
from alexnet_np.weights.source import Source
from alexnet_np.weights.stream import Stream

MAX_STEPS = 4_000_000  # a checkpoint of cuda-convnet has every batch's error, and takes a million
PADDLES = "StructuredToParameterName@@"  # what paddle.save puts beside the arrays of a state dict


def read(source: Source) -> Contents:
    """What pickle.dump wrote. Raises WeightsError."""
    saved = pickled.load(Stream(source), storage_in=storage_in, steps=MAX_STEPS)
    tree = saved.content if type(saved) is Holder else saved
    if cuda_convnet.is_checkpoint(tree):
        return cuda_convnet.contents(tree)
    return Contents("pickle of Paddle" if type(tree) is dict and PADDLES in tree else "pickle", tree)
