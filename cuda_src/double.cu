// Step 14, double: any correlation of integers, in double: where float32 cannot tell which is nearest.
// In chains from double to double.
//
// What is summed may be a hundred times as large as the result, such as in unsharp with an amount of 50
// on 16 bits. Float32 then errs by more than a part of a step, in any order of the sums. Else it is
// vanilla.cu, and takes its time: it runs where no other variant may.
// Launch: a block of TILE_WIDTH x TILE_HEIGHT threads for as many output pixels, blocks in blockIdx.x
// row by row. Planned by variants/double.py. `numbers` are doubles: gain, source gain, bias, threshold,
// each of two weight sums, what lies outside, then (KERNELS, kernel_height, kernel_width) weights. SAMPLE is 0, 1 or 3.
#include "pixel.cuh"

#define WEIGHTS_AT 7

struct Samples {
    double v[CHANNELS];
};

// The source's pixel at (x, y), inside it.
__device__ __forceinline__ Samples samples_at(const Task& task, int x, int y)
{
    const sample_t* at = task.source + y * task.source_pitch + (size_t)x * CHANNELS;
    Samples samples;
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) samples.v[c] = at[c];
    return samples;
}

// Round half to even and clamp; doubles pass.
__device__ __forceinline__ sample_t nearest(double value)
{
    if (SAMPLE == 3) return (sample_t)value;
    return (sample_t)fmin(fmax(rint(value), 0.0), (double)FULL_SCALE);
}

extern "C" __global__ void __launch_bounds__(THREADS)
filter(const Task task, const float* __restrict__ numbers)
{
    const int x = blockIdx.x % task.blocks_x * TILE_WIDTH + threadIdx.x;
    const int y = blockIdx.x / task.blocks_x * TILE_HEIGHT + threadIdx.y;
    if (x >= task.width || y >= task.height) return;

    const double* number = (const double*)numbers;
    const double gain = number[0], source_gain = number[1], bias = number[2], threshold = number[3];
    const double* weights = number + WEIGHTS_AT;
    const int taps = task.kernel_width * task.kernel_height;

    double sum[KERNELS][CHANNELS] = {};
    for (int i = 0; i < task.kernel_height; ++i) {
        const int row = border_index(y + task.y0 + i - task.anchor_y, task.source_height, task.border);
        for (int j = 0; j < task.kernel_width; ++j) {
            const int column = border_index(x + task.x0 + j - task.anchor_x, task.source_width, task.border);
            Samples pixel;
            if (row < 0 || column < 0) {
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c) pixel.v[c] = number[6];
            } else {
                pixel = samples_at(task, column, row);
            }
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c) {
                const double tap = ALPHA && c < COLOURS ? pixel.v[c] * pixel.v[COLOURS] : pixel.v[c];
#pragma unroll
                for (int k = 0; k < KERNELS; ++k)
                    sum[k][c] += weights[k * taps + i * task.kernel_width + j] * tap;
            }
        }
    }

    const Samples source = samples_at(task, x + task.x0, y + task.y0);
    sample_t* out = task.out + y * task.out_pitch + (size_t)x * CHANNELS;
    auto combined = [&](int c) {
        return KERNELS == 2 ? sqrt(sum[0][c] * sum[0][c] + sum[KERNELS - 1][c] * sum[KERNELS - 1][c])
                            : sum[0][c];
    };
#if ALPHA == 1
    const double coverage = gain * combined(COLOURS) + source_gain * source.v[COLOURS];
#pragma unroll
    for (int c = 0; c < COLOURS; ++c) {
        const double own = source.v[c] * source.v[COLOURS];
        const double colour = (gain * combined(c) + source_gain * own) / coverage + bias;
        out[c] = coverage > 0.0 ? nearest(colour) : (sample_t)0;
    }
    out[COLOURS] = nearest(coverage);
#else
#if ALPHA == 2
#pragma unroll
    for (int k = 0; k < KERNELS; ++k) {
        const double transparent = number[4 + k] * FULL_SCALE - sum[k][COLOURS];
#pragma unroll
        for (int c = 0; c < COLOURS; ++c)
            sum[k][c] = (sum[k][c] + source.v[c] * transparent) / FULL_SCALE;
    }
    out[COLOURS] = (sample_t)source.v[COLOURS];
#endif
#pragma unroll
    for (int c = 0; c < COLOURS; ++c) {
        double value = gain * combined(c) + source_gain * source.v[c] + bias;
        if (threshold > 0.0) {
            const double change = value - source.v[c];
            value = source.v[c] + (change - fmin(fmax(change, -threshold), threshold));
        }
        out[c] = nearest(value);
    }
#endif
}
