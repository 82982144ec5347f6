// Step 10, rank: the median, the least or any other rank of 3x3 windows, sorted in registers.
//
// A thread sorts the nine values around its pixel, channel by channel, alpha like the others: nine rounds
// in which neighbours are exchanged. The compiler leaves out what RANK does not need.
// Launch: a block of TILE_WIDTH x TILE_HEIGHT threads for as many output pixels, blocks in blockIdx.x
// row by row. Planned by variants/rank.py, without weights. RANK is 0, the least, to 8; ALPHA is 0.
#include "pixel.cuh"

#define TAPS 9

// What is sorted. Floats go as integers of the same order, since minimum and maximum of floats drop
// NaN, and here it comes last.
#if SAMPLE == 2
typedef unsigned Key;

__device__ __forceinline__ Key key_of(float value)
{
    if (value != value) return 0xffffffffu;
    const unsigned bits = __float_as_int(value);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

__device__ __forceinline__ float value_of(Key key)
{
    return __uint_as_float(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu));
}

__device__ __forceinline__ Key lesser(Key a, Key b) { return min(a, b); }
__device__ __forceinline__ Key larger(Key a, Key b) { return max(a, b); }
#else
typedef float Key;  // whole numbers up to 65535

__device__ __forceinline__ Key key_of(float value) { return value; }
__device__ __forceinline__ float value_of(Key key) { return key; }
__device__ __forceinline__ Key lesser(Key a, Key b) { return fminf(a, b); }
__device__ __forceinline__ Key larger(Key a, Key b) { return fmaxf(a, b); }
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
filter(const Task task)
{
    const int x = blockIdx.x % task.blocks_x * TILE_WIDTH + threadIdx.x;
    const int y = blockIdx.x / task.blocks_x * TILE_HEIGHT + threadIdx.y;
    if (x >= task.width || y >= task.height) return;

    Key keys[CHANNELS][TAPS];
#pragma unroll
    for (int tap = 0; tap < TAPS; ++tap) {
        const Pixel pixel = load_pixel(task, x + task.x0 + tap % 3 - 1, y + task.y0 + tap / 3 - 1);
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) keys[c][tap] = key_of(pixel.v[c]);
    }
    sample_t* out = task.out + y * task.out_pitch + (size_t)x * CHANNELS;
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
        Key(&key)[TAPS] = keys[c];
#pragma unroll
        for (int round = 0; round < TAPS; ++round)
#pragma unroll
            for (int i = round % 2; i + 1 < TAPS; i += 2) {
                const Key first = lesser(key[i], key[i + 1]);
                key[i + 1] = larger(key[i], key[i + 1]);
                key[i] = first;
            }
        out[c] = to_sample(value_of(key[RANK]));
    }
}
