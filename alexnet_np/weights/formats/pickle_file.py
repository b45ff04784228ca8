"""A pickle that neither torch.save nor numpy.save wrote: a dict of arrays or tensors, as pickle.dump leaves it.

Checkpoints of cuda-convnet are such files too; cuda_convnet.py knows what is in them.
"""

from __future__ import annotations

from alexnet_np.weights.formats import cuda_convnet, pickled
from alexnet_np.weights.formats.torch_legacy import storage_in
from alexnet_np.weights.leaves import Contents, Holder
from alexnet_np.weights.source import Source
from alexnet_np.weights.stream import Stream

MAX_STEPS = 4_000_000  # a checkpoint of cuda-convnet has every batch's error, and takes a million


def read(source: Source) -> Contents:
    """What pickle.dump wrote. Raises WeightsError."""
    saved = pickled.load(Stream(source), storage_in=storage_in, steps=MAX_STEPS)
    tree = saved.content if type(saved) is Holder else saved
    return cuda_convnet.contents(tree) if cuda_convnet.is_checkpoint(tree) else Contents("pickle", tree)
