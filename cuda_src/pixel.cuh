// Load, store, convert, border index: what all variants share, written once.
//
// Each .cu is compiled once per specialisation, given by macros (variants/task.py):
//   SAMPLE    0 uint8, 1 uint16, 2 float32, 3 float64 (double, rank, point: inside a chain)
//   CHANNELS  1..4, interleaved
//   ALPHA     0 none, 1 filtered along, 2 kept; alpha is then the last channel
//   KERNELS   1, or 2 for the magnitude sqrt(a^2 + b^2)
// Kernel size, border and geometry are arguments, so a specialisation serves every filter.
#pragma once

#include "ptx.cuh"

#if SAMPLE == 0
typedef unsigned char sample_t;
#define FULL_SCALE 255.0f
#elif SAMPLE == 1
typedef unsigned short sample_t;
#define FULL_SCALE 65535.0f
#elif SAMPLE == 2
typedef float sample_t;
#define FULL_SCALE 1.0f
#else
typedef double sample_t;
#define FULL_SCALE 1.0f
#endif

#define LARGEST_FLOAT 3.40282347e38f
#ifndef INFINITY  // NVRTC has no headers
#define INFINITY __int_as_float(0x7f800000)
#endif
#define COLOURS (ALPHA ? CHANNELS - 1 : CHANNELS)  // channels that are not alpha; alpha's index

enum Border { EDGE, REFLECT, SYMMETRIC, WRAP, CONSTANT };  // catalogue.BORDERS, in its order

#include "task.cuh"

struct Pixel {
    float v[CHANNELS];
};

// Where position i of an axis of n samples is read from; -1: the border value. n <= 2^30.
__device__ __forceinline__ int border_index(int i, int n, int border)
{
    if (0 <= i && i < n) return i;
    if (border == EDGE) return i < 0 ? 0 : n - 1;
    if (border == CONSTANT) return -1;
    if (border == REFLECT && n == 1) return 0;
    const int period = border == WRAP ? n : border == SYMMETRIC ? 2 * n : 2 * n - 2;
    i %= period;
    if (i < 0) i += period;
    if (i < n) return i;
    return border == SYMMETRIC ? 2 * n - 1 - i : 2 * n - 2 - i;
}

// The source's pixel at (x, y), inside it, in native units.
__device__ __forceinline__ Pixel read_pixel(const Task& task, int x, int y)
{
    const sample_t* at = task.source + y * task.source_pitch + (size_t)x * CHANNELS;
    Pixel pixel;
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) pixel.v[c] = at[c];
    return pixel;
}

// What a tap at (x, y) reads, anywhere: bordered, and premultiplied where there is alpha.
// Colour times alpha stays in native units, 0..FULL_SCALE^2: exact for uint8.
__device__ __forceinline__ Pixel load_pixel(const Task& task, int x, int y)
{
    x = border_index(x, task.source_width, task.border);
    y = border_index(y, task.source_height, task.border);
    Pixel pixel;
    if (x < 0 || y < 0) {
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) pixel.v[c] = task.border_value;
    } else {
        pixel = read_pixel(task, x, y);
    }
#if ALPHA
#pragma unroll
    for (int c = 0; c < COLOURS; ++c) pixel.v[c] *= pixel.v[COLOURS];
#endif
    return pixel;
}

// The same of one channel: c of the pixel at `pixel`, and of the constant border.
__device__ __forceinline__ float tap_of(const sample_t* pixel, int c)
{
    float out = pixel[c];
#if ALPHA
    if (c < COLOURS) out *= pixel[COLOURS];
#endif
    return out;
}

__device__ __forceinline__ float outside_tap(const Task& task, int c)
{
    return ALPHA && c < COLOURS ? task.border_value * task.border_value : task.border_value;
}

__device__ __forceinline__ void add(Pixel (&sum)[KERNELS], const Pixel (&line)[KERNELS])
{
#pragma unroll
    for (int k = 0; k < KERNELS; ++k)
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) sum[k].v[c] += line[k].v[c];
}

// Sums of long kernels: of some taps each, so that what a sum loses is seldom worked out.
#define PIECE_TAPS 32

// A sum, and what its additions have lost.
struct Total {
    float v[CHANNELS], lost[CHANNELS];
};

// Knuth's two-sum (The Art of Computer Programming 2, 4.2.2): what the sum rounds away, exactly. Six
// additions, where double would take the time of 64 on most GPUs.
__device__ __forceinline__ void add(Total (&total)[KERNELS], const Pixel (&piece)[KERNELS])
{
#pragma unroll
    for (int k = 0; k < KERNELS; ++k)
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            const float before = total[k].v[c], added = piece[k].v[c];
            const float after = before + added;
            const float taken = after - before;
            total[k].lost[c] += (before - (after - taken)) + (added - taken);
            total[k].v[c] = after;
        }
}

__device__ __forceinline__ void round_to(Pixel (&sum)[KERNELS], const Total (&total)[KERNELS])
{
#pragma unroll
    for (int k = 0; k < KERNELS; ++k)
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            const float lost = total[k].lost[c];  // NaN where the sum is infinite
            sum[k].v[c] = lost == lost ? total[k].v[c] + lost : total[k].v[c];
        }
}

// Integers: round half to even and clamp, in one conversion. Floats pass.
__device__ __forceinline__ sample_t to_sample(float value)
{
#if SAMPLE == 0
    return to_uint8(value);
#elif SAMPLE == 1
    return to_uint16(value);
#else
    return value;
#endif
}

// sqrt(a^2 + b^2). Of floats as hypot() has it: an infinity beside NaN is one, and squares neither
// overflow nor vanish, since both sides are divided by the larger one's power of two.
__device__ __forceinline__ float magnitude(float a, float b)
{
#if SAMPLE == 2
    const float larger = fmaxf(fabsf(a), fabsf(b));
    if (larger == INFINITY) return larger;
    const int power = min(max(__float_as_int(larger) & 0x7f800000, 0x00800000), 0x7e800000);
    const float inverse = __uint_as_float(0x7f000000 - power);
    a *= inverse, b *= inverse;
    return fast_root(fmaf(a, a, b * b)) * __uint_as_float(power);
#else
    return fast_root(fmaf(a, a, b * b));
#endif
}

// Whether a tap counts: on floats one of weight 0 is none, as 0 times NaN would show.
__device__ __forceinline__ bool is_tap(float weight) { return SAMPLE != 2 || weight != 0.0f; }

// value times a power of two; one that passes the largest float by a rounding error becomes it, where
// |value| <= most.
__device__ __forceinline__ float enlarged(float value, float power, float most)
{
    return fabsf(value) <= most ? times_at_most(value, power) : value * power;
}

// A float result to its size. Weights and gains are scaled such that sums of the largest floats stay
// finite (variants/floats.py).
__device__ __forceinline__ float settle(const Task& task, float value)
{
    return SAMPLE == 2 ? enlarged(value, task.unit, task.most) : value;
}

// What the source adds: nothing where its gain is 0, whatever the source.
__device__ __forceinline__ float source_share(const Task& task, float source)
{
    return SAMPLE == 2 && task.source_gain == 0.0f ? 0.0f : task.source_gain * source;
}

__device__ __forceinline__ float combine(const Pixel (&sum)[KERNELS], int c)
{
#if KERNELS == 2
    return magnitude(sum[0].v[c], sum[1].v[c]);
#else
    return sum[0].v[c];
#endif
}

// gain * combined + source_gain * source + bias, its change from the source shrunk by threshold,
// settled.
__device__ __forceinline__ float finish(const Task& task, float combined, float source)
{
    float out = task.gain * combined;
    if (task.source_gain != 0.0f) out += task.source_gain * source;
    out += task.bias;
    if (task.threshold > 0.0f) {
        if (SAMPLE == 2) source *= task.share;
        const float change = out - source;
        out = source + (change - fminf(fmaxf(change, -task.threshold), task.threshold));
    }
    return settle(task, out);
}

// The kernels' sums of one pixel to its output samples: filter.Filter's formula and its alpha.
// `source` is the pixel's own, not premultiplied.
__device__ __forceinline__ void finish_pixel(
    const Task& task, Pixel (&sum)[KERNELS], const Pixel& source, sample_t* out)
{
#if ALPHA == 1
    const float coverage =
        task.gain * combine(sum, COLOURS) + source_share(task, source.v[COLOURS]);
    // uint16 has no unit in the last place to spare.
    const float reciprocal = SAMPLE == 1 ? 1.0f / coverage : fast_reciprocal(coverage);
#pragma unroll
    for (int c = 0; c < COLOURS; ++c) {
        const float premultiplied = source.v[c] * source.v[COLOURS];
        const float colour = task.gain * combine(sum, c) + source_share(task, premultiplied);
        const float quotient =
            SAMPLE == 2 ? enlarged(0.5f * colour * reciprocal, 2.0f, 0.500002f * LARGEST_FLOAT)
                        : colour * reciprocal;
        out[c] = to_sample(coverage > 0.0f ? quotient + task.bias : 0.0f);
    }
    out[COLOURS] = to_sample(SAMPLE == 2 ? coverage * task.unit : coverage);
#else
#if ALPHA == 2
#pragma unroll
    for (int k = 0; k < KERNELS; ++k) {
        const float transparent = task.weight_sum[k] * FULL_SCALE - sum[k].v[COLOURS];
#pragma unroll
        for (int c = 0; c < COLOURS; ++c)
            sum[k].v[c] = (sum[k].v[c] + source.v[c] * transparent +
                           (SAMPLE == 2 ? source.v[c] - source.v[c] : 0.0f)) / FULL_SCALE;
    }
    out[COLOURS] = (sample_t)source.v[COLOURS];
#endif
#pragma unroll
    for (int c = 0; c < COLOURS; ++c) out[c] = to_sample(finish(task, combine(sum, c), source.v[c]));
#endif
}

// finish_pixel() for output pixel (x, y), stored.
__device__ __forceinline__ void store_pixel(const Task& task, int x, int y, Pixel (&sum)[KERNELS])
{
    const Pixel source = read_pixel(task, x + task.x0, y + task.y0);
    finish_pixel(task, sum, source, task.out + y * task.out_pitch + (size_t)x * CHANNELS);
}

#if KERNELS == 1
struct __align__(16) Piece {
    sample_t v[16 / sizeof(sample_t)];
};

// finish_pixel() for a run of output pixels from (x, y) on, x a multiple of 16: whole pieces are
// stored, since single samples of many rows at a time cost the memory a write each.
template <int COUNT>
__device__ __forceinline__ void store_run(const Task& task, int x, int y,
                                          const float (&sum)[CHANNELS][COUNT])
{
    const bool wants_source = ALPHA || task.source_gain != 0.0f || task.threshold > 0.0f;
    sample_t* to = task.out + y * task.out_pitch + (size_t)x * CHANNELS;
    constexpr int PIECE = 16 / sizeof(sample_t);
    Piece out[COUNT * CHANNELS / PIECE];
#pragma unroll
    for (int r = 0; r < COUNT; ++r) {
        Pixel total[1], source = {};
        if (wants_source && x + r < task.width) source = read_pixel(task, x + r + task.x0, y + task.y0);
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) total[0].v[c] = sum[c][r];
        sample_t pixel[CHANNELS];
        finish_pixel(task, total, source, pixel);
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            const int n = r * CHANNELS + c;
            out[n / PIECE].v[n % PIECE] = pixel[c];
            if (x + COUNT > task.width && x + r < task.width) to[n] = pixel[c];
        }
    }
    if (x + COUNT > task.width) return;
#pragma unroll
    for (int n = 0; n < COUNT * CHANNELS / PIECE; ++n) ((Piece*)to)[n] = out[n];
}
#endif
