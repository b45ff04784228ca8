// Sums of the rows and of the columns of a matrix: gradients of biases, a batch's loss.
//
// row_sums       version 1: a block a row; threads stride along it, then warps shuffle. Rows are long: (N*F, OH*OW).
// column_sums    version 1: a block WIDTH columns and DEPTH threads deep, so that a warp reads 32 neighbours of one row.
// A convolution's dbias is row_sums, then column_sums; a dense layer's is column_sums alone. No atomics: the order of
// the additions is fixed.
// Parallel over: rows, columns.

#include "gpu/common.cuh"

extern "C" __global__ void __launch_bounds__(ROW_THREADS)
    row_sums(const real* __restrict__ x, real* __restrict__ sums, index_t columns) {
    const real* row = x + blockIdx.x * columns;
    real sum = 0;
    for (index_t i = threadIdx.x; i < columns; i += blockDim.x) sum += row[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(WIDTH * DEPTH)
    column_sums(const real* __restrict__ x, real* __restrict__ sums, index_t rows, index_t columns) {
    __shared__ real partial[DEPTH][WIDTH];
    const index_t column = (index_t)blockIdx.x * WIDTH + threadIdx.x;
    real sum = 0;
    if (column < columns)
        for (index_t row = threadIdx.y; row < rows; row += DEPTH) sum += x[row * columns + column];
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || column >= columns) return;
    for (int i = 1; i < DEPTH; i++) sum += partial[i][threadIdx.x];
    sums[column] = sum;
}
