// Four pixels side by side, which a thread reads at once: what bilateral.cu and denoise.cu share.
//
// Rows start on 16 bytes, with 64 bytes of slack behind. Pixels that are not finite become NaN in all
// channels. A lane has RUN pixels side by side in each of DOWN rows.
#pragma once

#include "pixel.cuh"

#define RUN 4
#define THREADS (32 * WARPS)
#define QUAD_BYTES (RUN * CHANNELS * (int)sizeof(sample_t))

struct __align__(QUAD_BYTES % 16 == 0 ? 16 : QUAD_BYTES % 8 == 0 ? 8 : 4) Quad {
    sample_t v[RUN * CHANNELS];
};

// Four neighbours, channel by channel.
struct Four {
    float v[CHANNELS][RUN];
};

// The pixels from column x on in a row of the source, x % 4 == 0, or the border's value where row is -1.
// Alpha is multiplied by `unit`.
__device__ __forceinline__ Four read_four(const Task& task, int x, int row, float unit)
{
    const sample_t* from = task.source + row * task.source_pitch;
    Four out;
    if (row >= 0 && x >= 0 && x + RUN <= task.source_width) {
        const Quad quad = *(const Quad*)(from + (size_t)x * CHANNELS);
#pragma unroll
        for (int r = 0; r < RUN; ++r)
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c) out.v[c][r] = quad.v[r * CHANNELS + c];
    } else {
#pragma unroll
        for (int r = 0; r < RUN; ++r) {
            const int column = border_index(x + r, task.source_width, task.border);
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c)
                out.v[c][r] = row < 0 || column < 0 ? task.border_value
                                                    : (float)from[(size_t)column * CHANNELS + c];
        }
    }
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
#if SAMPLE == 2
        bool finite = true;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) finite &= fabsf(out.v[c][r]) <= LARGEST_FLOAT;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
            if (!finite) out.v[c][r] = INFINITY - INFINITY;
#endif
        if (ALPHA) out.v[CHANNELS - 1][r] *= unit;
    }
    return out;
}

// Of the others of this lane's pixels: their weights, and the changes to them by these.
struct Sums {
    float change[DOWN][COLOURS][RUN], weight[DOWN][RUN];
};

__device__ __forceinline__ void add(Sums& to, const Sums& from)
{
#pragma unroll
    for (int d = 0; d < DOWN; ++d)
#pragma unroll
        for (int r = 0; r < RUN; ++r) {
            to.weight[d][r] += from.weight[d][r];
#pragma unroll
            for (int c = 0; c < COLOURS; ++c) to.change[d][c][r] += from.change[d][c][r];
        }
}

// Rows from y on of the source to a tile, from column x on, so many fours of each; `unit` is read_four()'s.
template <int ROWS, int PITCH>
__device__ __forceinline__ void load(const Task& task, float (&tile)[CHANNELS][ROWS][PITCH], int x, int y,
                                     int rows, int fours, float unit)
{
#pragma unroll 1
    for (int n = threadIdx.x; n < rows * fours; n += THREADS) {
        const int i = n / fours, column = n % fours * RUN;
        const Four four =
            read_four(task, x + column, border_index(y + i, task.source_height, task.border), unit);
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c)
            *(float4*)&tile[c][i][column] =
                make_float4(four.v[c][0], four.v[c][1], four.v[c][2], four.v[c][3]);
    }
}
