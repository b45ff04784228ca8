"""Sums of the rows and of the columns of a matrix; see sums.cu."""

from alexnet_np.device import Array
from alexnet_np.kernels.gpu.runtime import ceil_div, empty, launch

BLOCKS = {"ROW_THREADS": 128, "WIDTH": 32, "DEPTH": 8}  # threads that share a row; columns, and threads that share one


def sum_rows(x: Array) -> Array:
    """(rows, columns) -> (rows,)."""
    sums, block = empty((len(x),), x), (BLOCKS["ROW_THREADS"],)
    launch("gpu/sums", "row_sums", (len(x),), block, x, sums, x.shape[1], real=x.dtype, **BLOCKS)
    return sums


def sum_columns(x: Array) -> Array:
    """(rows, columns) -> (columns,)."""
    rows, columns = x.shape
    sums, block = empty((columns,), x), (BLOCKS["WIDTH"], BLOCKS["DEPTH"])
    grid = (ceil_div(columns, BLOCKS["WIDTH"]),)
    launch("gpu/sums", "column_sums", grid, block, x, sums, rows, columns, real=x.dtype, **BLOCKS)
    return sums
