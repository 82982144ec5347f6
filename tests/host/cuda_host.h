// Just enough CUDA C for a CPU: the kernels of cuda_src/, compiled by a C++ compiler as they stand.
//
// Every CUDA thread of a block is a fibre, with a stack of its own, and a barrier hands over to the
// next one, so a block runs on one core and meets its barriers in lock step. Shared memory is
// static: one block at a time. Warp-level barriers are block-level ones here: these kernels meet
// them all together. This finds wrong results, not races. See tests/test_host.py.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <bit>
#include <cfloat>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __restrict__
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline dim3 threadIdx, blockIdx, blockDim;

template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }

inline long long __double_as_longlong(double value) { return std::bit_cast<long long>(value); }
inline double __longlong_as_double(long long bits) { return std::bit_cast<double>(bits); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }

inline int __clz(unsigned value) { return std::countl_zero(value); }

inline unsigned __brev(unsigned value)
{
    unsigned out = 0;
    for (int i = 0; i < 32; ++i) out |= (value >> i & 1) << (31 - i);
    return out;
}

inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const unsigned long long both = (unsigned long long)y << 32 | x;
    unsigned out = 0;
    for (int i = 0; i < 4; ++i)
        out |= (unsigned)(both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return out;
}

inline unsigned __dp2a_lo(unsigned a, unsigned b, unsigned c)
{
    return c + (a & 0xffff) * (b & 0xff) + (a >> 16) * (b >> 8 & 0xff);
}

// ---- fibres

namespace host {

inline constexpr size_t STACK = 1 << 18;

struct Fibre {
    jmp_buf at;
    void* stack;  // null: it has not begun
    dim3 index;
    bool done;
};

inline Fibre fibres[1024];
inline jmp_buf scheduler;
inline Fibre* running;
inline void (*body)();

// Not by swapcontext: it sets the signal mask by a system call, which took most of the time.
[[gnu::noinline]] inline void barrier()
{
    if (!_setjmp(running->at)) _longjmp(scheduler, 1);
}

// A fibre that began goes on for ever: once for each block.
inline void enter()
{
    for (;;) {
        body();
        running->done = true;
        barrier();
    }
}

[[gnu::noinline]] inline void resume(Fibre& fibre)
{
    running = &fibre;
    threadIdx = fibre.index;
    if (_setjmp(scheduler)) return;
    if (fibre.stack) _longjmp(fibre.at, 1);
    fibre.stack = malloc(STACK);
    ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = fibre.stack;
    start.uc_stack.ss_size = STACK;
    makecontext(&start, enter, 0);
    setcontext(&start);
}

inline void run_block(void (*kernel)(), unsigned x, unsigned y)
{
    body = kernel;
    for (unsigned i = 0; i < x * y; ++i) {
        fibres[i].index = {i % x, i / x, 0};
        fibres[i].done = false;
    }
    for (bool more = true; more;) {
        more = false;
        for (unsigned i = 0; i < x * y; ++i) {
            if (fibres[i].done) continue;
            resume(fibres[i]);
            more |= !fibres[i].done;
        }
    }
}

inline unsigned exchange[1024];

inline unsigned thread() { return threadIdx.x + blockDim.x * threadIdx.y; }

}  // namespace host

inline void __syncthreads() { host::barrier(); }
inline void __syncwarp() { host::barrier(); }
inline void __threadfence() {}

template <typename T>
void __stcs(T* to, const T& value)
{
    *to = value;
}

inline unsigned __shfl_up_sync(unsigned, unsigned value, int delta)
{
    const unsigned me = host::thread();
    host::exchange[me] = value;
    host::barrier();
    const unsigned got = (int)(me % 32) >= delta ? host::exchange[me - delta] : value;
    host::barrier();
    return got;
}

inline float __shfl_sync(unsigned, float value, int lane)
{
    const unsigned me = host::thread();
    host::exchange[me] = __float_as_int(value);
    host::barrier();
    const float got = __uint_as_float(host::exchange[me / 32 * 32 + lane]);
    host::barrier();
    return got;
}

inline bool __all_sync(unsigned, bool value)
{
    const unsigned me = host::thread(), first = me / 32 * 32;
    host::exchange[me] = value;
    host::barrier();
    bool all = true;
    for (unsigned i = 0; i < 32; ++i) all &= host::exchange[first + i] != 0;
    host::barrier();
    return all;
}

inline bool __syncthreads_or(bool value)
{
    const unsigned me = host::thread();
    host::exchange[me] = value;
    host::barrier();
    bool any = false;
    for (unsigned i = 0; i < blockDim.x * blockDim.y; ++i) any |= host::exchange[i] != 0;
    host::barrier();
    return any;
}

inline int __syncthreads_count(bool value)
{
    const unsigned me = host::thread();
    host::exchange[me] = value;
    host::barrier();
    int count = 0;
    for (unsigned i = 0; i < blockDim.x * blockDim.y; ++i) count += host::exchange[i] != 0;
    host::barrier();
    return count;
}

size_t __cvta_generic_to_shared(const void*);  // for bulk copies, which are not compiled here

// ---- pairs of 16 bits

template <typename Pick>
unsigned each_half(unsigned a, unsigned b, Pick pick)
{
    return pick(a & 0xffff, b & 0xffff) | pick(a >> 16, b >> 16) << 16;
}

inline unsigned __vminu2(unsigned a, unsigned b)
{
    return each_half(a, b, [](unsigned x, unsigned y) { return min(x, y); });
}

inline unsigned __vmaxu2(unsigned a, unsigned b)
{
    return each_half(a, b, [](unsigned x, unsigned y) { return max(x, y); });
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, int shift)
{
    return (unsigned)(((unsigned long long)high << 32 | low) >> shift);
}

template <typename T>
T atomicAdd(T* to, T value)
{
    const T before = *to;
    *to += value;
    return before;
}

inline unsigned atomicOr(unsigned* to, unsigned value)
{
    const unsigned before = *to;
    *to |= value;
    return before;
}

inline int atomicMin(int* to, int value)
{
    const int before = *to;
    if (value < before) *to = value;
    return before;
}

// ---- float64, each operation rounded by itself: compiled without contraction

inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
