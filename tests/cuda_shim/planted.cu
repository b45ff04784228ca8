// Faults that the shim and the sanitizers must find (test_cuda_shim.py). Run by nothing else.

extern "C" __global__ void writes_beyond_shared(float* y, int past) {
    __shared__ float tile[32];
    float* volatile mine = tile + threadIdx.x + past;  // volatile: only the address sanitizer knows what lies there
    *mine = 1;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void writes_beyond_global(float* y, int past) {
    y[threadIdx.x + past] = 1;
}

extern "C" __global__ void overflows_an_int(float* y, int large) {
    y[threadIdx.x] = large * 3;
}

// Thread i reads what thread i+1 writes, with no barrier between.
extern "C" __global__ void races(float* y) {
    __shared__ float tile[33];
    tile[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = tile[(threadIdx.x + 1) % blockDim.x];
    __syncthreads();
}

extern "C" __global__ void reads_unwritten_shared(float* y) {
    __shared__ float tile[32];
    y[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void diverges(float* y) {
    if (threadIdx.x < 16) __syncthreads();
    y[threadIdx.x] = 1;
}

extern "C" __global__ void waits_on_two_lines(float* y) {
    if (threadIdx.x < 16)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = 1;
}

extern "C" __global__ void __launch_bounds__(64) takes_64_threads(float* y) {
    y[threadIdx.x] = 1;
}
