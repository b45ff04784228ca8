// CUDA C on a CPU: enough of the language to run the kernels of this project as plain C++, for their tests.
//
// Blocks run one after another. The threads of a block are fibres: each runs until it meets a barrier or a shuffle, then
// the next one takes over, so a block has one call stack a thread but one thread of the operating system. A warp runs as
// far ahead of the others as barriers let it. A launch says in which order threads, warps and blocks take turns: a
// kernel without data races gives the same bits in every order.
// A barrier that not all threads of the block reach, or that they reach on different lines, is an error. Kernels without
// barriers may skip the fibres; meeting one all the same ends the launch with NEEDS_FIBRES.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__ static  // so that what a function shares is no COMDAT, which a section cannot hold beside other variables
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One section holds everything shared, so that it can be filled with garbage before each block.
#define __shared__ static __attribute__((section("cuda_shared")))
extern char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

struct Dim3 {
    unsigned x, y, z;
};
static Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

enum Status { OK = 0, NEEDS_FIBRES = 1, DIVERGED = 2 };
enum Order { FORWARD = 0, REVERSE = 1, RANDOM = 2 };

const unsigned MOST_THREADS = 1024, WARP = 32;
const size_t STACK_BYTES = 128 << 10;

struct Fibre {
    ucontext_t start;  // makes the stack; from then on jumps are enough, and they cost no system calls
    jmp_buf place;
    bool started = false;
    char* stack = nullptr;
    Dim3 index;
    int barrier = 0;  // the line of the block-wide barrier it waits at
    int shuffle = 0;  // the line of the warp-wide exchange it waits at
    bool finished = false;
    void* sanitizer = nullptr;
};

static jmp_buf scheduler;
static void* scheduler_sanitizer;
static const void* scheduler_stack;
static size_t scheduler_stack_bytes;
static Fibre fibres[MOST_THREADS];
static Fibre* current;  // null outside fibres
static unsigned threads;
static double exchanged[2][MOST_THREADS];  // wide enough for any value shuffled
static unsigned exchanges[MOST_THREADS];   // how many a thread has made: even and odd ones use different slots

inline void leave(Fibre& from, bool for_good) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(for_good ? nullptr : &from.sanitizer, scheduler_stack, scheduler_stack_bytes);
#endif
    if (!_setjmp(from.place)) _longjmp(scheduler, 1);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
#endif
}

inline void resume(Fibre& fibre) {
    current = &fibre;
    threadIdx = fibre.index;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&scheduler_sanitizer, fibre.stack, STACK_BYTES);
#endif
    if (!_setjmp(scheduler)) {
        if (fibre.started) _longjmp(fibre.place, 1);
        fibre.started = true;
        setcontext(&fibre.start);
    }
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_sanitizer, nullptr, nullptr);
#endif
    current = nullptr;
}

inline void wait(int Fibre::*where, int line) {
    if (!current) _longjmp(scheduler, 1);
    current->*where = line;
    leave(*current, false);
}

inline unsigned rank_in_block() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

template <class T>
T shuffle(T value, unsigned source_lane, int line) {
    static_assert(sizeof(T) <= sizeof(double), "");
    const unsigned rank = rank_in_block();
    double* slots = exchanged[exchanges[rank]++ % 2];
    memcpy(&slots[rank], &value, sizeof value);
    wait(&Fibre::shuffle, line);
    memcpy(&value, &slots[rank / WARP * WARP + source_lane], sizeof value);
    return value;
}

// Lets every thread waiting at `where` go on, if all of [first, last) wait at one and the same line.
inline bool release(int Fibre::*where, unsigned first, unsigned last) {
    const int line = fibres[first].*where;
    for (unsigned i = first; i < last; i++)
        if (fibres[i].finished || fibres[i].*where != line) return false;
    if (!line) return false;
    for (unsigned i = first; i < last; i++) fibres[i].*where = 0;
    return true;
}

inline uint32_t next_random(uint32_t& state) {
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

inline void put_in_order(unsigned* items, unsigned count, int order, uint32_t& state) {
    for (unsigned i = 0; i < count; i++) items[i] = order == REVERSE ? count - 1 - i : i;
    if (order == RANDOM)
        for (unsigned i = count; i > 1; i--) std::swap(items[i - 1], items[next_random(state) % i]);
}

inline Dim3 unrank(unsigned rank, Dim3 size) {
    return {rank % size.x, rank / size.x % size.y, rank / size.x / size.y};
}

// The kernel with its arguments, and how a fibre gets at it.
static void (*body)(void*);
static void* body_arguments;

inline void fibre_main() {
    Fibre& self = *current;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
    body(body_arguments);
    self.finished = true;
    leave(self, true);
}

// Takes one warp as far as it gets without the others: to the next block-wide barrier, or to its end.
inline void run_warp(unsigned first, int order, uint32_t& random) {
    const unsigned lanes = first + WARP < threads ? WARP : threads - first;
    unsigned turns[WARP];
    do {
        put_in_order(turns, lanes, order, random);
        for (unsigned i = 0; i < lanes; i++) {
            Fibre& fibre = fibres[first + turns[i]];
            if (!fibre.finished && !fibre.barrier && !fibre.shuffle) resume(fibre);
        }
    } while (release(&Fibre::shuffle, first, first + lanes));
}

inline Status run_block_of_fibres(int order, uint32_t& random) {
    unsigned turns[MOST_THREADS];
    for (unsigned i = 0; i < threads; i++) {
        Fibre& fibre = fibres[i];
        if (!fibre.stack) fibre.stack = static_cast<char*>(malloc(STACK_BYTES));
        getcontext(&fibre.start);
        fibre.start.uc_stack.ss_sp = fibre.stack;
        fibre.start.uc_stack.ss_size = STACK_BYTES;
        makecontext(&fibre.start, fibre_main, 0);
        fibre.started = false;
        fibre.index = unrank(i, blockDim);
        fibre.barrier = fibre.shuffle = exchanges[i] = 0;
        fibre.finished = false;
    }
    const unsigned warps = (threads + WARP - 1) / WARP;
    do {
        put_in_order(turns, warps, order, random);
        for (unsigned i = 0; i < warps; i++) run_warp(turns[i] * WARP, order, random);
        bool all_finished = true;
        for (unsigned i = 0; i < threads; i++) all_finished &= fibres[i].finished;
        if (all_finished) return OK;
    } while (release(&Fibre::barrier, 0, threads));
    return DIVERGED;
}

inline Status run_block_plainly(int order, uint32_t& random) {
    unsigned turns[MOST_THREADS];
    put_in_order(turns, threads, order, random);
    if (_setjmp(scheduler)) return NEEDS_FIBRES;  // from `wait`
    for (unsigned i = 0; i < threads; i++) {
        threadIdx = unrank(turns[i], blockDim);
        body(body_arguments);
    }
    return OK;
}

// Not instrumented: it writes over the sanitizer's margins between the variables too, which is harmless.
__attribute__((no_sanitize("address", "undefined"), noinline)) inline void spoil_shared_memory() {
    volatile char* byte = __start_cuda_shared;
    for (; byte < __stop_cuda_shared; byte++) *byte = static_cast<char>(0xff);
}

template <class... A, size_t... I>
void call_kernel(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A>*>(arguments[I])...);
}

template <class... A>
struct Call {
    void (*kernel)(A...);
    void** arguments;
    static void go(void* self) {
        auto call = static_cast<Call*>(self);
        call_kernel(call->kernel, call->arguments, std::index_sequence_for<A...>{});
    }
};

// `shape`: grid x, y, z, block x, y, z.
template <class... A>
int launch(void (*kernel)(A...), const unsigned* shape, bool with_fibres, int order, void** arguments) {
    Call<A...> call{kernel, arguments};
    body = Call<A...>::go;
    body_arguments = &call;
    gridDim = {shape[0], shape[1], shape[2]};
    blockDim = {shape[3], shape[4], shape[5]};
    threads = blockDim.x * blockDim.y * blockDim.z;
    const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
    uint32_t random = 2463534242u;
    auto turns = static_cast<unsigned*>(malloc(blocks * sizeof(unsigned)));
    put_in_order(turns, blocks, order, random);
    int status = OK;
    for (unsigned i = 0; i < blocks && !status; i++) {
        blockIdx = unrank(turns[i], gridDim);
        spoil_shared_memory();
        status = with_fibres ? run_block_of_fibres(order, random) : run_block_plainly(order, random);
    }
    free(turns);
    return status;
}

// What a parameter is, in NumPy's words: f4, i8, ...; * before what a pointer points at; s and the size for a structure.
template <class T>
void describe(char*& out) {
    if (std::is_pointer<T>::value) {
        *out++ = '*';
        return describe<std::remove_const_t<std::remove_pointer_t<T>>>(out);
    }
    const char kind = std::is_same<T, bool>::value    ? 'b'
                      : std::is_floating_point<T>::value ? 'f'
                      : std::is_unsigned<T>::value       ? 'u'
                      : std::is_integral<T>::value       ? 'i'
                                                         : 's';
    out += sprintf(out, "%c%zu ", kind, sizeof(T));
}

template <class... A>
const char* signature(void (*)(A...)) {
    static char text[1024];
    char* out = text;
    using expand = int[];
    (void)expand{0, (describe<std::remove_const_t<A>>(out), 0)...};
    *out = 0;
    return text;
}

}  // namespace shim

#define __syncthreads() shim::wait(&shim::Fibre::barrier, __LINE__)
#define __shfl_xor_sync(mask, value, step) shim::shuffle(value, (shim::rank_in_block() % shim::WARP) ^ (step), __LINE__)

static inline float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline float __uint_as_float(unsigned bits) { return __int_as_float((int)bits); }
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }

static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline float rsqrt(float a) { return 1 / std::sqrt(a); }
static inline double rsqrt(double a) { return 1 / std::sqrt(a); }
using std::exp;
using std::fabs;
using std::log;
using std::pow;
using std::sqrt;
using std::tanh;
