"""The long jobs over many images, on one machine: every core carries its own images from the file to the answer.

    from alexnet_np import jobs

    engine = jobs.open_engine(model, "logits", images=len(files))   # choices.py, engine.py
    for rows in jobs.stream(files, engine):                          # rows.py, workers.py
        rows.files, rows.values, rows.failures

    jobs.embed(model, files, Path("vectors.parquet"))                # embedding.py: parts.py, vectors.py
    jobs.similar(model, "cat.jpg", folder, files)                    # nearest.py
    jobs.excite(model, files, "features.8", range(16), Path("x.png"))   # exciting.py

On many machines: cluster.py hands out parts, dataset.py computes one anywhere, store.py keeps it, listing.py and
labelled.py read addresses, searching.py asks the parts for what is nearest.

engine    a model made ready to compute one of its outputs, in as many workers as run at once
chunk     the images that a worker takes at a time
rows      what became of a chunk: the files that could be read, a row for each, and the failures
part      rows that are kept on the disk until the job is done, so that it can be killed and goes on

`read_rows(files, compute, recipe)` is a pure function of files and weights: whoever has other machines runs it there.
"""

from __future__ import annotations

from alexnet_np.jobs.choosing import Choice, choose
from alexnet_np.jobs.embedding import Embedded, Interrupted, embed, embedding_name
from alexnet_np.jobs.engine import Engine, open_engine
from alexnet_np.jobs.exciting import Best, Excited, excite
from alexnet_np.jobs.finding import Failure, find
from alexnet_np.jobs.nearest import Match, Similar, similar
from alexnet_np.jobs.rows import Rows, read_rows, stream
from alexnet_np.jobs.scoring import stream_logits
from alexnet_np.jobs.vectors import check_output

__all__ = [
    "Best",
    "Choice",
    "Embedded",
    "Engine",
    "Excited",
    "Failure",
    "Interrupted",
    "Match",
    "Rows",
    "Similar",
    "check_output",
    "choose",
    "embed",
    "embedding_name",
    "excite",
    "find",
    "open_engine",
    "read_rows",
    "similar",
    "stream",
    "stream_logits",
]
