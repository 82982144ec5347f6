// Step 17, otsu: the threshold that sets dark and bright apart best, and what lies above it.
//
// clear() empties the counts, count() counts each channel's levels, find() takes the best threshold,
// in whole numbers of any size, and filter() applies it. Levels are the samples of 8 and 16 bits,
// and of floats the nearest of 65536 from 0 to 1. Alpha is kept.
// Launch: blocks of THREADS threads; in count() and filter() each walks rows blockIdx.x, + task.rows
// and so on; find() has a block for each channel. Planned by variants/otsu.py. task.scratch are the
// counts, (CHANNELS, BINS), and a threshold for each channel. A channel has fewer than 2^32 samples.
#include "levels.cuh"

#define BINS (SAMPLE == 0 ? 256 : 65536)
#define SHARE (BINS < THREADS ? 1 : BINS / THREADS)  // levels of a thread in find()

typedef unsigned long long Long;

__device__ __forceinline__ unsigned* counts_of(const Task& task, int c)
{
    return (unsigned*)task.scratch + c * BINS;
}

__device__ __forceinline__ int* thresholds_of(const Task& task)
{
    return (int*)task.scratch + CHANNELS * BINS;
}

__device__ __forceinline__ int bin_of(sample_t sample)
{
    return SAMPLE == 0 ? (int)sample : level_of(sample);
}

extern "C" __global__ void __launch_bounds__(THREADS)
clear(const Task task)
{
    const int i = blockIdx.x * THREADS + threadIdx.x;
    if (i < CHANNELS * BINS) ((unsigned*)task.scratch)[i] = 0;
}

extern "C" __global__ void __launch_bounds__(THREADS)
count(const Task task)
{
#if SAMPLE == 0
    __shared__ unsigned few[CHANNELS * BINS];
    for (int i = threadIdx.x; i < CHANNELS * BINS; i += THREADS) few[i] = 0;
    __syncthreads();
#endif
    for (int y = blockIdx.x; y < task.height; y += task.rows) {
        const sample_t* row = task.source + (y + task.y0) * task.source_pitch;
        for (int x = threadIdx.x; x < task.width; x += THREADS) {
#pragma unroll
            for (int c = 0; c < COLOURS; ++c) {
                const int bin = bin_of(row[(size_t)x * CHANNELS + c]);
#if SAMPLE == 0
                atomicAdd(&few[c * BINS + bin], 1u);
#else
                if (bin >= 0) atomicAdd(&counts_of(task, c)[bin], 1u);
#endif
            }
        }
    }
#if SAMPLE == 0
    __syncthreads();
    for (int i = threadIdx.x; i < CHANNELS * BINS; i += THREADS)
        if (few[i]) atomicAdd((unsigned*)task.scratch + i, few[i]);
#endif
}

// out = a * b, 32 bits at a time, the lowest first.
template <int A, int B>
__device__ __forceinline__ void multiply(
    unsigned (&out)[A + B], const unsigned (&a)[A], const unsigned (&b)[B])
{
#pragma unroll
    for (int i = 0; i < A + B; ++i) out[i] = 0;
#pragma unroll
    for (int i = 0; i < A; ++i) {
        Long carry = 0;
#pragma unroll
        for (int j = 0; j < B; ++j) {
            carry += (Long)a[i] * b[j] + out[i + j];
            out[i + j] = (unsigned)carry;
            carry >>= 32;
        }
        out[i + B] = (unsigned)carry;
    }
}

// A threshold and its variance: difference^2 / weight.
struct Split {
    unsigned difference[3];  // below 2^80
    unsigned weight[2];
    int level;
};

__device__ __forceinline__ bool is_better(const Split& a, const Split& b)
{
    unsigned square[6], first[8], second[8];
    multiply(square, a.difference, a.difference);
    multiply(first, square, b.weight);
    multiply(square, b.difference, b.difference);
    multiply(second, square, a.weight);
#pragma unroll
    for (int i = 7; i >= 0; --i)
        if (first[i] != second[i]) return first[i] > second[i];
    return false;
}

// The split behind `level`, up to which there are n samples of sum s, of `all` with sum `total`.
__device__ __forceinline__ Split split_at(int level, Long n, Long s, Long all, Long total)
{
    const unsigned counts[2][1] = {{(unsigned)all}, {(unsigned)n}};
    const unsigned sums[2][2] = {{(unsigned)s, (unsigned)(s >> 32)},
                                 {(unsigned)total, (unsigned)(total >> 32)}};
    unsigned a[3], b[3];
    multiply(a, counts[0], sums[0]);
    multiply(b, counts[1], sums[1]);
    bool less = false;
#pragma unroll
    for (int i = 0; i < 3; ++i) less = a[i] != b[i] ? a[i] < b[i] : less;
    Split split;
    Long borrow = 0;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        const Long wide = (Long)(less ? b[i] : a[i]) - (less ? a[i] : b[i]) - borrow;
        split.difference[i] = (unsigned)wide;
        borrow = wide >> 63;
    }
    const Long weight = n * (all - n);
    split.weight[0] = (unsigned)weight, split.weight[1] = (unsigned)(weight >> 32);
    split.level = level;
    return split;
}

extern "C" __global__ void __launch_bounds__(THREADS)
find(const Task task)
{
    __shared__ Long counts[THREADS + 1], sums[THREADS + 1];
    __shared__ Split splits[THREADS];
    const unsigned* of = counts_of(task, blockIdx.x);
    const int me = threadIdx.x, begin = min(me * SHARE, BINS), end = min(begin + SHARE, BINS);
    Long n = 0, s = 0;
    for (int level = begin; level < end; ++level) n += of[level], s += (Long)of[level] * level;
    counts[me + 1] = n, sums[me + 1] = s;
    __syncthreads();
    if (me == 0) {
        counts[0] = sums[0] = 0;
        for (int i = 1; i <= THREADS; ++i) counts[i] += counts[i - 1], sums[i] += sums[i - 1];
    }
    __syncthreads();
    const Long all = counts[THREADS], total = sums[THREADS];
    n = counts[me], s = sums[me];
    Split best = {{0, 0, 0}, {1, 0}, BINS - 1};  // where there are no two levels
    for (int level = begin; level < end; ++level) {
        if (of[level] == 0) continue;
        n += of[level], s += (Long)of[level] * level;
        if (n == all) break;
        const Split split = split_at(level, n, s, all, total);
        if (is_better(split, best)) best = split;
    }
    splits[me] = best;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        // Levels rise with the thread, and of equals the least one stays.
        __syncthreads();
        Split other;
        const int stride = THREADS / (2 * half);
        const bool takes = me % (2 * stride) == 0;
        if (takes) {
            other = splits[me + stride];
            if (is_better(other, best)) splits[me] = best = other;
        }
    }
    if (me == 0) thresholds_of(task)[blockIdx.x] = best.level;
}

extern "C" __global__ void __launch_bounds__(THREADS)
filter(const Task task)
{
    for (int y = blockIdx.x; y < task.height; y += task.rows) {
        const sample_t* row = task.source + (y + task.y0) * task.source_pitch;
        sample_t* out = task.out + y * task.out_pitch;
        for (int i = threadIdx.x; i < task.width * CHANNELS; i += THREADS) {
            const int c = i % CHANNELS;
            out[i] = ALPHA && c == COLOURS            ? row[i]
                     : bin_of(row[i]) > thresholds_of(task)[c] ? (sample_t)FULL_SCALE
                                                              : (sample_t)0;
        }
    }
}
