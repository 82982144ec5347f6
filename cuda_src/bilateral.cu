// Step 15, bilateral: a mean of the pixels around that are alike, tap by tap from shared memory.
//
// A block loads its tile with the halo as floats, one plane a channel. A thread finds RUN pixels side by
// side in each of DOWN rows. Of each row of the window it brings the samples to registers, where each is a
// tap of all its pixels in that row. A tap takes an exponential, and few other instructions: the exponent of
// the distance and that of the change are one multiply-add. What is summed are changes from the own colour,
// so that nothing is lost where all are alike, and the middle is no tap. What bounds it are the exponentials:
// 16 a clock on a multiprocessor.
// Windows of more rows than CHUNK or more columns than COLUMNS are walked chunk by chunk, each with a
// tile of its own. Sums are made of shorter ones, DEPTH deep: taps of rows, and those of chunks.
// Pixels that are not finite are NaN in the tile, in all channels: then a change is the largest float,
// and its weight is 0.
// Macros besides pixel.cuh's: RADIUS (of the window; 0: any), DOWN, WARPS, CHUNK, COLUMNS (a multiple of
// 4; with a RADIUS all that it needs), DEPTH (1 to 3), BLOCKS (resident warps a multiprocessor to compile
// for).
// Launch: 32 * WARPS threads, blocks in blockIdx.x row by row, each for 32 * RUN x DOWN * WARPS pixels.
// Planned by variants/bilateral.py. `weights`: of each row of the window how far it reaches to a side,
// and its exponent; then the exponents of columns, from the radius rounded up to whole fours. task.gain
// is the factor of squared changes. Exponents are of 2. Needs rows that start on 16 bytes with 64 bytes of
// slack behind, and x0 % 4 == 0. ALPHA is 0 or 2.
#include "fours.cuh"

#define ALPHA_UNIT (1.0f / FULL_SCALE)  // alpha is a fraction
#define TILE_WIDTH (32 * RUN)
#define TILE_HEIGHT (DOWN * WARPS)
#define LOADED (TILE_HEIGHT + CHUNK - 1)  // rows
#define PITCH (TILE_WIDTH + COLUMNS)

// Where weights have the exponent of the middle column.
#define ACROSS(radius) ((4 * (radius) + 2 + 3) / 4 * 4 + ((radius) + 3) / 4 * 4)

__constant__ float weights[512];

struct __align__(16) Tile {
    float v[CHANNELS][LOADED][PITCH];
};

// This lane's four samples of row i of the tile, `column` columns on.
__device__ __forceinline__ Four four_of(const Tile& tile, int i, int column)
{
    Four out;
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
        const float4 four = *(const float4*)&tile.v[c][i][RUN * (threadIdx.x % 32) + column];
        out.v[c][0] = four.x, out.v[c][1] = four.y, out.v[c][2] = four.z, out.v[c][3] = four.w;
    }
    return out;
}

// A pixel as a tap of pixel r in row d.
__device__ __forceinline__ void tap(const Task& task, Sums& sums, const Four& own, int d, int r,
                                    const float (&pixel)[CHANNELS], float exponent)
{
    float change[COLOURS], squares = 0.0f;
#pragma unroll
    for (int c = 0; c < COLOURS; ++c) {
        if (ALPHA && SAMPLE == 2) {  // of floats only the halves' difference is sure to fit
            const float half = (0.5f * pixel[c] - 0.5f * own.v[c][r]) * pixel[CHANNELS - 1];
            change[c] = half + half;
        } else {
            change[c] = pixel[c] - own.v[c][r];
            if (ALPHA) change[c] *= pixel[CHANNELS - 1];
        }
        if (SAMPLE == 2) change[c] = fminf(fmaxf(change[c], -LARGEST_FLOAT), LARGEST_FLOAT);
        squares = c ? fmaf(change[c], change[c], squares) : change[c] * change[c];
    }
    const float weight = fast_power_of_two(fmaf(squares, task.gain, exponent));
    sums.weight[d][r] += weight;
#pragma unroll
    for (int c = 0; c < COLOURS; ++c)
        sums.change[d][c][r] = fmaf(weight, change[c], sums.change[d][c][r]);
}

// Sample n of some fours side by side as a tap of pixel r in row d.
template <int COUNT>
__device__ __forceinline__ void tap(const Task& task, Sums& sums, const Four& own, int d, int r,
                                    const Four (&fours)[COUNT], int n, float exponent)
{
    float pixel[CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) pixel[c] = fours[n / RUN].v[c][n % RUN];
    tap(task, sums, own, d, r, pixel, exponent);
}

#if RADIUS

// Row `row` of the window, which the tile has in row `first` for this thread's upper pixels. All samples
// that it may tap are in registers.
__device__ __forceinline__ void add_row(const Task& task, const Tile& tile, Sums& sums,
                                        const Four (&own)[DOWN], int row, int first, int)
{
    constexpr int FOURS = (RADIUS + 3) / 4;  // to each side
    const int reach = (int)weights[2 * row];
    const float down = weights[2 * row + 1];
    Four fours[DOWN][2 * FOURS + 1];
#pragma unroll
    for (int d = 0; d < DOWN; ++d)
#pragma unroll
        for (int n = 0; n < 2 * FOURS + 1; ++n) fours[d][n] = four_of(tile, first + d, RUN * n);
    auto add_tap = [&](int x, float exponent) {
#pragma unroll
        for (int d = 0; d < DOWN; ++d)
#pragma unroll
            for (int r = 0; r < RUN; ++r)
                tap(task, sums, own[d], d, r, fours[d], RUN * FOURS + x + r, exponent);
    };
    if (row != RADIUS) add_tap(0, down);
#pragma unroll
    for (int x = 1; x <= RADIUS; ++x) {
        if (x > reach) break;
        const float exponent = down + weights[ACROSS(RADIUS) + x];
        add_tap(-x, exponent);
        add_tap(x, exponent);
    }
}

#else

// Row `row` of the window, which the tile has in row `first` for this thread's upper pixels, as far as
// the tile goes, which begins with columns `left` of the middle.
__device__ __forceinline__ void add_row(const Task& task, const Tile& tile, Sums& sums,
                                        const Four (&own)[DOWN], int row, int first, int left)
{
    const int radius = task.anchor_x, reach = (int)weights[2 * row];
    const float down = weights[2 * row + 1], *across = weights + ACROSS(radius);
    const int last = min(reach, left + COLUMNS - 1);
    int x = max(-((reach + 3) / 4 * 4), left);
    Four fours[DOWN][2];
#pragma unroll
    for (int d = 0; d < DOWN; ++d) fours[d][0] = four_of(tile, first + d, x - left);
#pragma unroll 1
    for (; x <= last; x += 4) {
#pragma unroll
        for (int d = 0; d < DOWN; ++d) fours[d][1] = four_of(tile, first + d, x - left + 4);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (x + k < -reach || x + k > reach || (x + k == 0 && row == radius)) continue;
            const float exponent = down + across[x + k];
#pragma unroll
            for (int d = 0; d < DOWN; ++d)
#pragma unroll
                for (int r = 0; r < RUN; ++r)
                    tap(task, sums, own[d], d, r, fours[d], k + r, exponent);
        }
#pragma unroll
        for (int d = 0; d < DOWN; ++d) fours[d][0] = fours[d][1];
    }
}

#endif

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS / WARPS) filter(const Task task)
{
    __shared__ Tile tile;
    const int tile_x = blockIdx.x % task.blocks_x * TILE_WIDTH + task.x0;
    const int tile_y = blockIdx.x / task.blocks_x * TILE_HEIGHT + task.y0;
    const int radius = RADIUS ? RADIUS : task.anchor_x, side = 2 * radius + 1;
    const int chunks = (side + CHUNK - 1) / CHUNK, rows = (side + chunks - 1) / chunks;
    const int upper = threadIdx.x / 32 * DOWN;  // this thread's upper row of the tile
    const int x = tile_x + RUN * (threadIdx.x % 32), y = tile_y + upper;

    Four own[DOWN];
#pragma unroll
    for (int d = 0; d < DOWN; ++d) own[d] = read_four(task, x, min(y + d, task.source_height - 1), ALPHA_UNIT);
    Sums total = {};
#pragma unroll 1
    for (int top = 0; top < side; top += rows) {
        const int count = min(rows, side - top);
#pragma unroll 1
        for (int left = -((radius + 3) / 4 * 4); left <= radius; left += COLUMNS) {
            __syncthreads();  // the last chunk's taps are all read
            load(task, tile.v, tile_x + left, tile_y + top - radius, TILE_HEIGHT + count - 1,
                 min(PITCH, TILE_WIDTH + radius - left + 3) / 4, ALPHA_UNIT);
            __syncthreads();
            Sums chunk = {};
#pragma unroll 1
            for (int i = 0; i < count; ++i) {
                if (DEPTH == 1) {
                    add_row(task, tile, total, own, top + i, upper + i, left);
                } else {
                    Sums line = {};
                    add_row(task, tile, line, own, top + i, upper + i, left);
                    add(DEPTH == 2 ? total : chunk, line);
                }
            }
            if (DEPTH == 3) add(total, chunk);
        }
    }

    if (x - task.x0 >= task.width) return;
#pragma unroll
    for (int d = 0; d < DOWN; ++d) {
        if (y + d - task.y0 >= task.height) break;
        Quad out;
#pragma unroll
        for (int r = 0; r < RUN; ++r) {
            Pixel source = {};
            // As it was: a float that is not finite is something else here, and alpha a fraction.
            if ((SAMPLE == 2 || ALPHA) && x + r - task.x0 < task.width)
                source = read_pixel(task, x + r, y + d);
            const float reciprocal = fast_reciprocal(1.0f + total.weight[d][r]);
#pragma unroll
            for (int c = 0; c < COLOURS; ++c)
                out.v[r * CHANNELS + c] =
                    to_sample(fmaf(total.change[d][c][r], reciprocal,
                                   SAMPLE == 2 ? source.v[c] : own[d].v[c][r]));
            if (ALPHA) out.v[r * CHANNELS + CHANNELS - 1] = (sample_t)source.v[CHANNELS - 1];
        }
        *(Quad*)(task.out + (y + d - task.y0) * task.out_pitch + (size_t)(x - task.x0) * CHANNELS) = out;
    }
}
