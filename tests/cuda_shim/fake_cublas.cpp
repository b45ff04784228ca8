// The six cuBLAS entry points that cublas.py calls, on host memory: column-major, strided batches, transposes, and TF32
// as the tensor cores take it (operands cut to 10 fraction bits). With CUBLAS_HEADER the real header checks the prototypes.
#include <cstdint>
#include <cstring>

#ifdef CUBLAS_HEADER
#include <cublas_api.h>
#else
typedef void *cublasHandle_t, *cudaStream_t;
typedef int cublasStatus_t, cublasOperation_t, cudaDataType, cublasComputeType_t, cublasGemmAlgo_t;
enum { CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_INVALID_VALUE = 7, CUBLAS_STATUS_NOT_SUPPORTED = 15 };
enum { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum { CUDA_R_32F = 0, CUDA_R_64F = 1 };
enum { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_64F = 70, CUBLAS_COMPUTE_32F_FAST_TF32 = 77 };
enum { CUBLAS_GEMM_DEFAULT = -1 };
#endif

static double cut_to_tf32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits &= 0xffffe000u;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

template <class T>
static void multiply(bool transpose_a, bool transpose_b, int m, int n, int k, T alpha, const T* a, int lda, long long step_a,
                     const T* b, int ldb, long long step_b, T beta, T* c, int ldc, long long step_c, int batch, bool tf32) {
    for (int i = 0; i < batch; i++, a += step_a, b += step_b, c += step_c)
        for (int column = 0; column < n; column++)
            for (int row = 0; row < m; row++) {
                double sum = 0;
                for (int j = 0; j < k; j++) {
                    const T x = transpose_a ? a[j + (long long)row * lda] : a[row + (long long)j * lda];
                    const T y = transpose_b ? b[column + (long long)j * ldb] : b[j + (long long)column * ldb];
                    sum += tf32 ? cut_to_tf32(x) * cut_to_tf32(y) : (double)x * y;
                }
                T& out = c[row + (long long)column * ldc];
                out = beta == 0 ? (T)(alpha * sum) : (T)(alpha * sum + (double)beta * out);  // beta 0 does not read c
            }
}

extern "C" {

static int handle;

cublasStatus_t cublasCreate_v2(cublasHandle_t* out) {
    *out = (cublasHandle_t)&handle;
    return CUBLAS_STATUS_SUCCESS;
}

int destroyed_handles = 0;

cublasStatus_t cublasDestroy_v2(cublasHandle_t) {
    destroyed_handles++;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void* workspace, size_t bytes) {
    return workspace && bytes ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

const char* cublasGetStatusName(cublasStatus_t status) {
    return status == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE" : "CUBLAS_STATUS_NOT_SUPPORTED";
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t transpose_a, cublasOperation_t transpose_b, int m,
                                          int n, int k, const void* alpha, const void* a, cudaDataType type_a, int lda,
                                          long long step_a, const void* b, cudaDataType type_b, int ldb, long long step_b,
                                          const void* beta, void* c, cudaDataType type_c, int ldc, long long step_c, int batch,
                                          cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
    const bool ta = transpose_a == CUBLAS_OP_T, tb = transpose_b == CUBLAS_OP_T;
    // The documented conditions on the arguments.
    if (h != (cublasHandle_t)&handle || m < 0 || n < 0 || k < 0 || batch < 0 || lda < (ta ? k : m) || ldb < (tb ? n : k) ||
        ldc < m || lda < 1 || ldb < 1 || ldc < 1 || type_a != type_b || type_b != type_c || algorithm != CUBLAS_GEMM_DEFAULT)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (type_a == CUDA_R_64F && compute == CUBLAS_COMPUTE_64F)
        multiply(ta, tb, m, n, k, *(const double*)alpha, (const double*)a, lda, step_a, (const double*)b, ldb, step_b,
                 *(const double*)beta, (double*)c, ldc, step_c, batch, false);
    else if (type_a == CUDA_R_32F && (compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_FAST_TF32))
        multiply(ta, tb, m, n, k, *(const float*)alpha, (const float*)a, lda, step_a, (const float*)b, ldb, step_b,
                 *(const float*)beta, (float*)c, ldc, step_c, batch, compute == CUBLAS_COMPUTE_32F_FAST_TF32);
    else
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}
}
