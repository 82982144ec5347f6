// The box: a mean over a rectangle, in a time that does not grow with it.
//
// Column sums move down the image: each new row adds one source row and takes one away. Their
// prefix sums along the row turn any window into one difference. All sums are unsigned integers
// modulo 2^32, so they are exact wherever a window's own sum is below 2^32; no error builds up.
//   1. each thread updates the column sums of its SAMPLES neighbouring samples (registers);
//   2. the block scans them, channel by channel: within the thread, the warp, the block;
//   3. the prefix sums go to shared memory; output sample s is prefix[s + width] - prefix[s - 1],
//      in steps of CHANNELS.
// Launch: 256 threads, task.columns output pixels across and task.rows down, blocks in blockIdx.x
// row by row. Integers without alpha only. Loaded by engines/cuda.py, which sets weights[0] to
// the weight that all taps have. Needs x0 % 4 == 0 and rows that start on 16 bytes.
#include "pixel.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)
#define PIXELS (CHANNELS == 1 ? 8 : 4)  // a thread
#define SAMPLES (PIXELS * CHANNELS)

__constant__ float weights[1];

struct __align__(4 * sizeof(sample_t)) Quad {
    sample_t v[4];
};

struct Row {
    Quad quads[SAMPLES / 4];
};

// This thread's samples of a source row; x is its first pixel, anywhere; row < 0 is border.
__device__ __forceinline__ Row load(const Task& task, int x, int row)
{
    Row out;
    const sample_t* from = task.source + row * task.source_pitch;
    if (row >= 0 && x >= 0 && x + PIXELS <= task.source_width) {
#pragma unroll
        for (int q = 0; q < SAMPLES / 4; ++q) out.quads[q] = ((const Quad*)(from + x * CHANNELS))[q];
        return out;
    }
#pragma unroll
    for (int p = 0; p < PIXELS; ++p) {
        const int at = border_index(x + p, task.source_width, task.border);
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            const int n = p * CHANNELS + c;
            out.quads[n / 4].v[n % 4] = row < 0 || at < 0 ? (sample_t)task.border_value
                                                          : from[at * CHANNELS + c];
        }
    }
    return out;
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) filter(const Task task)
{
    __shared__ unsigned prefix[THREADS * SAMPLES];
    __shared__ unsigned totals[WARPS][CHANNELS];  // of each warp

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int x0 = blockIdx.x % task.blocks_x * task.columns;
    const int y0 = blockIdx.x / task.blocks_x * task.rows;
    const int last = min(y0 + task.rows, task.height);

    // The block's prefix sums start 1 to 4 pixels before its first tap, at a multiple of 4.
    const int tapped = x0 + task.x0 - task.anchor_x;
    const int lead = (tapped - 1 & 3) + 1;
    const int x = tapped - lead + (int)threadIdx.x * PIXELS;
    auto row = [&](int y) {  // of the source, y counted from the block's first tapped row
        y += y0 + task.y0 - task.anchor_y;
        return load(task, x, border_index(y, task.source_height, task.border));
    };

    unsigned column[SAMPLES] = {};
#pragma unroll 4
    for (int i = 0; i < task.kernel_height - 1; ++i) {
        const Row in = row(i);
#pragma unroll
        for (int n = 0; n < SAMPLES; ++n) column[n] += in.quads[n / 4].v[n % 4];
    }

    const float scale = task.gain * weights[0];
    Row in = row(task.kernel_height - 1), out = row(0);
    for (int y = y0; y < last; ++y) {
        const int next = min(y + 1, last - 1) - y0;
        unsigned mine[CHANNELS] = {};  // sums of this thread's column sums, then of all before it
#pragma unroll
        for (int n = 0; n < SAMPLES; ++n) {
            column[n] += in.quads[n / 4].v[n % 4];
            mine[n % CHANNELS] += column[n];
        }
        in = row(next + task.kernel_height - 1);  // long before it is needed
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            unsigned sum = mine[c];
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const unsigned before = __shfl_up_sync(~0u, sum, step);
                if (lane >= step) sum += before;
            }
            if (lane == 31) totals[warp][c] = sum;
            mine[c] = sum - mine[c];
        }
        __syncthreads();  // totals are written; prefix is read by all
        for (int w = 0; w < warp; ++w)
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c) mine[c] += totals[w][c];
#pragma unroll
        for (int q = 0; q < SAMPLES / 4; ++q) {
            unsigned sums[4];
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int n = 4 * q + e;
                sums[e] = mine[n % CHANNELS] += column[n];
                column[n] -= out.quads[q].v[e];
            }
            ((uint4*)prefix)[threadIdx.x * (SAMPLES / 4) + q] =
                make_uint4(sums[0], sums[1], sums[2], sums[3]);
        }
        out = row(next);
        __syncthreads();  // prefix is written; totals are read by all

        sample_t* to = task.out + y * task.out_pitch + (size_t)x0 * CHANNELS;
        const int samples = min(task.columns, task.width - x0) * CHANNELS;
        const unsigned* from = prefix + lead * CHANNELS;
#pragma unroll 4
        for (int s = threadIdx.x; s < samples; s += THREADS) {
            const unsigned sum = from[s + (task.kernel_width - 1) * CHANNELS] - from[s - CHANNELS];
            to[s] = to_sample(fmaf(scale, (float)sum, task.bias));
        }
    }
}
