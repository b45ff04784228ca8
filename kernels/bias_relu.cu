// What comes after a product: add the bias, clamp at zero; and the bias's gradient.
//
// bias_relu      version 1: a thread an element, in place; bias and ReLU in one pass instead of two.
// row_sums       version 1: a block a row; threads stride along it, then warps shuffle. Rows are long: (N*F, OH*OW).
// column_sums    version 1: a block 32 columns and 8 threads deep, so that a warp reads 32 neighbours of one row.
// A convolution's dbias is row_sums, then column_sums; a dense layer's is column_sums alone. No atomics: the order of
// the additions is fixed.
// Parallel over: elements, rows, columns.  Source: Krizhevsky, Sutskever, Hinton (2012), sec. 3.1 for the ReLU.

#include "common.cuh"

// y is (outer, channels, inner); bias is one value a channel.
extern "C" __global__ void bias_relu(real* __restrict__ y, const real* __restrict__ bias, index_t channels, index_t inner,
                                     int relu, index_t count) {
    const index_t i = thread_number();
    if (i >= count) return;
    const real value = y[i] + (bias ? bias[i / inner % channels] : (real)0);
    y[i] = relu && value <= 0 ? (real)0 : value;
}

extern "C" __global__ void __launch_bounds__(128)
    row_sums(const real* __restrict__ x, real* __restrict__ sums, index_t columns) {
    const real* row = x + blockIdx.x * columns;
    real sum = 0;
    for (index_t i = threadIdx.x; i < columns; i += blockDim.x) sum += row[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
    column_sums(const real* __restrict__ x, real* __restrict__ sums, index_t rows, index_t columns) {
    __shared__ real partial[8][32];
    const index_t column = (index_t)blockIdx.x * 32 + threadIdx.x;
    real sum = 0;
    if (column < columns)
        for (index_t row = threadIdx.y; row < rows; row += 8) sum += x[row * columns + column];
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || column >= columns) return;
    for (int i = 1; i < 8; i++) sum += partial[i][threadIdx.x];
    sums[column] = sum;
}
