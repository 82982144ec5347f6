// Step 20, denoise: a mean of the pixels around whose patches are alike, all shifts from shared memory.
//
// A lane finds RUN pixels side by side in each of DOWN rows. It looks at RUN shifts at a time, whose samples
// overlap. For these it adds up squares of differences down its four columns, and then across, with sums
// that it has from the lanes beside it. So a square is made once for all patches in a column, and a sum down
// once for all patches in a row: a weight takes few instructions, however large its patch is. The first and
// last lanes of a warp only serve those beside them. No sum is running: what is subtracted again would leave
// its rounding errors behind.
// Shared memory has the tile with what patches reach, and the same of the others, for as many shifts as
// there is room for: chunks of CHUNK rows and COLUMNS columns. Weights and changes are added up row by row of
// the window, and these sums to the total.
// Pixels that are not finite are NaN in the tile, in all channels: differences from them count as 0, and
// their weights are 0.
// Macros besides pixel.cuh's: PATCH (side, odd), DOWN (PATCH at most), WARPS, CHUNK, COLUMNS (a multiple of 4),
// BLOCKS (resident warps a multiprocessor to compile for).
// Launch: 32 * WARPS threads, blocks in blockIdx.x row by row, each for TILE_WIDTH x DOWN * WARPS pixels.
// Planned by variants/denoise.py. There are no weights. task.anchor_x is how far others lie to each side,
// task.gain the factor of sums of squares to exponents of 2. Needs what fours.cuh needs, and x0 % 4 == 0.
// ALPHA is 0 or 2.
#include "fours.cuh"

#define MARGIN (PATCH / 2)
#define EDGE ((MARGIN + RUN - 1) / RUN)  // lanes
#define TILE_WIDTH (RUN * (32 - 2 * EDGE))
#define TILE_HEIGHT (DOWN * WARPS)
#define LOADED (TILE_HEIGHT + 2 * MARGIN)  // rows
#define ACROSS (32 * RUN)

struct __align__(16) Tile {
    float own[CHANNELS][LOADED][ACROSS];
    float other[CHANNELS][LOADED + CHUNK - 1][ACROSS + COLUMNS];
};

// Four pixels of this lane, and the four that follow.
template <int COUNT>
struct Row {
    float v[CHANNELS][COUNT];
};

template <int COUNT, int ROWS, int PITCH>
__device__ __forceinline__ Row<COUNT> row_of(const float (&tile)[CHANNELS][ROWS][PITCH], int i, int column)
{
    Row<COUNT> out;
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
        for (int n = 0; n < COUNT; n += RUN) {
            const float4 four = *(const float4*)&tile[c][i][RUN * (threadIdx.x % 32) + column + n];
            out.v[c][n] = four.x, out.v[c][n + 1] = four.y, out.v[c][n + 2] = four.z, out.v[c][n + 3] = four.w;
        }
    return out;
}

// Adds to `sum` what two pixels differ by.
__device__ __forceinline__ void add_square(float& sum, const Row<RUN>& own, int r,
                                           const Row<2 * RUN>& other, int n)
{
    float squares = SAMPLE == 2 || ALPHA ? 0.0f : sum;
#if ALPHA
    const float mine = own.v[CHANNELS - 1][r], its = other.v[CHANNELS - 1][n], change = its - mine;
#pragma unroll
    for (int c = 0; c < COLOURS; ++c) {
        // Of floats, halves fit; and their products with each alpha, where the square does not.
        const float half = 0.5f * other.v[c][n] - 0.5f * own.v[c][r];
        const float first = half * (mine * (2.0f / FULL_SCALE)), second = half * (its * (2.0f / FULL_SCALE));
        squares += fabsf(first * second);
    }
    if (SAMPLE == 2) squares = fmaxf(squares, 0.0f);  // infinity times 0
    squares = fmaf(change, change, squares);
#else
#pragma unroll
    for (int c = 0; c < COLOURS; ++c) {
        const float change = other.v[c][n] - own.v[c][r];
        squares = fmaf(change, change, squares);
    }
#endif
    if (SAMPLE == 2) squares = fmaxf(squares, 0.0f);  // not NaN
    sum = SAMPLE == 2 || ALPHA ? sum + squares : squares;
}

// The sums of PATCH parts each, from the n-th on.
template <int COUNT>
__device__ __forceinline__ void sum_windows(float (&sums)[COUNT], const float (&parts)[COUNT + PATCH - 1])
{
    if (PATCH < COUNT) {
#pragma unroll
        for (int n = 0; n < COUNT; ++n) {
            sums[n] = parts[n];
#pragma unroll
            for (int i = 1; i < PATCH; ++i) sums[n] += parts[n + i];
        }
        return;
    }
    float sum = 0.0f;
#pragma unroll
    for (int n = COUNT - 2; n >= 0; --n) sums[n] = sum += parts[n];
    sum = 0.0f;  // of what all have
#pragma unroll
    for (int n = COUNT - 1; n < PATCH; ++n) sum += parts[n];
    sums[0] += sum;
#pragma unroll
    for (int n = 1; n < COUNT; ++n) {
        sum += parts[PATCH + n - 1];
        sums[n] = n < COUNT - 1 ? sums[n] + sum : sum;
    }
}

// The sums down the columns of this lane's pixels, for RUN shifts that begin with `column` of the tile.
__device__ __forceinline__ void sum_down(float (&sums)[RUN][DOWN][RUN], const Tile& tile, int own, int other,
                                         int column)
{
    float sum[RUN][RUN] = {};
    auto add_row = [&](int n) {
        const Row<RUN> mine = row_of<RUN>(tile.own, own + n, 0);
        const Row<2 * RUN> its = row_of<2 * RUN>(tile.other, other + n, column);
#pragma unroll
        for (int k = 0; k < RUN; ++k)
#pragma unroll
            for (int r = 0; r < RUN; ++r) add_square(sum[k][r], mine, r, its, k + r);
    };
    auto keep = [&](int n, bool more) {
#pragma unroll
        for (int k = 0; k < RUN; ++k)
#pragma unroll
            for (int r = 0; r < RUN; ++r) sums[k][n][r] = more ? sums[k][n][r] + sum[k][r] : sum[k][r];
    };
    // As sum_windows() has it, rows one after the other.
#pragma unroll
    for (int n = DOWN - 2; n >= 0; --n) {
        add_row(n);
        keep(n, false);
    }
#pragma unroll
    for (int k = 0; k < RUN; ++k)
#pragma unroll
        for (int r = 0; r < RUN; ++r) sum[k][r] = 0.0f;
#pragma unroll(CHANNELS > 2 ? 1 : 2)  // rows loaded ahead take registers
    for (int n = DOWN - 1; n < PATCH; ++n) add_row(n);
    keep(0, DOWN > 1);
#pragma unroll
    for (int n = 1; n < DOWN; ++n) {
        add_row(PATCH + n - 1);
        keep(n, n < DOWN - 1);
    }
}

// Adds the others of one shift, those in columns `shift` on of the row, for this lane's pixels of row d.
__device__ __forceinline__ void add_others(const Task& task, Sums& sums, int d, const float (&down)[RUN],
                                           const Row<RUN>& own, const Row<2 * RUN>& other, int shift)
{
    float parts[RUN + PATCH - 1], squares[RUN];
#pragma unroll
    for (int n = 0; n < RUN + PATCH - 1; ++n) {
        const int from = n - MARGIN + RUN * EDGE;  // so that it is not negative
        const int lanes = from / RUN - EDGE;
        parts[n] = lanes ? __shfl_sync(0xffffffffu, down[from % RUN], (threadIdx.x + lanes) % 32)
                         : down[from % RUN];
    }
    sum_windows<RUN>(squares, parts);
#pragma unroll
    for (int r = 0; r < RUN; ++r) {
        float weight = fast_power_of_two(squares[r] * task.gain);
        const float first = other.v[0][shift + r];
        if (SAMPLE == 2 && first != first) weight = 0.0f;
        sums.weight[d][r] += weight;
#pragma unroll
        for (int c = 0; c < COLOURS; ++c) {
            float change;
            if (ALPHA && SAMPLE == 2) {  // of floats only the halves' difference is sure to fit
                const float half =
                    (0.5f * other.v[c][shift + r] - 0.5f * own.v[c][r]) * other.v[CHANNELS - 1][shift + r];
                change = half + half;
            } else {
                change = other.v[c][shift + r] - own.v[c][r];
                if (ALPHA) change *= other.v[CHANNELS - 1][shift + r] * (1.0f / FULL_SCALE);
            }
            if (SAMPLE == 2) change = fminf(fmaxf(change, -LARGEST_FLOAT), LARGEST_FLOAT);
            sums.change[d][c][r] = fmaf(weight, change, sums.change[d][c][r]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS / WARPS) filter(const Task task)
{
    __shared__ Tile tile;
    const int tile_x = blockIdx.x % task.blocks_x * TILE_WIDTH + task.x0 - RUN * EDGE;
    const int tile_y = blockIdx.x / task.blocks_x * TILE_HEIGHT + task.y0;
    const int reach = task.anchor_x, side = 2 * reach + 1;
    const int chunks = (side + CHUNK - 1) / CHUNK, rows = (side + chunks - 1) / chunks;
    const int lane = threadIdx.x % 32, upper = threadIdx.x / 32 * DOWN;  // this lane's upper row

    load(task, tile.own, tile_x, tile_y - MARGIN, LOADED, 32, 1.0f);
    Sums total = {};
#pragma unroll 1
    for (int top = 0; top < side; top += rows) {
        const int count = min(rows, side - top);
#pragma unroll 1
        for (int left = -((reach + RUN - 1) / RUN * RUN); left <= reach; left += COLUMNS) {
            __syncthreads();  // the last chunk's samples are all read
            load(task, tile.other, tile_x + left, tile_y - MARGIN + top - reach, LOADED + count - 1,
                 (ACROSS + COLUMNS) / RUN, 1.0f);
            __syncthreads();
#pragma unroll 1
            for (int i = 0; i < count; ++i) {
                Sums line = {};
#pragma unroll 1
                for (int column = 0; column < min(COLUMNS, reach - left + 1); column += RUN) {
                    float sums[RUN][DOWN][RUN];
                    sum_down(sums, tile, upper, upper + i, column);
#pragma unroll
                    for (int d = 0; d < DOWN; ++d) {
                        const Row<RUN> own = row_of<RUN>(tile.own, upper + MARGIN + d, 0);
                        const Row<2 * RUN> other =
                            row_of<2 * RUN>(tile.other, upper + i + MARGIN + d, column);
#pragma unroll
                        for (int k = 0; k < RUN; ++k) {
                            const int x = left + column + k;
                            if (x >= -reach && x <= reach)
                                add_others(task, line, d, sums[k][d], own, other, k);
                        }
                    }
                }
                add(total, line);
            }
        }
    }

    const int x = tile_x + RUN * lane, y = tile_y + upper;
    if (lane < EDGE || lane >= 32 - EDGE || x - task.x0 >= task.width) return;
#pragma unroll
    for (int d = 0; d < DOWN; ++d) {
        if (y + d - task.y0 >= task.height) break;
        Quad out;
#pragma unroll
        for (int r = 0; r < RUN; ++r) {
            Pixel source = {};
            if (x + r - task.x0 < task.width) source = read_pixel(task, x + r, y + d);
            bool finite = true;
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c) finite &= fabsf(source.v[c]) <= LARGEST_FLOAT;
            const float reciprocal = fast_reciprocal(total.weight[d][r]);
#pragma unroll
            for (int c = 0; c < COLOURS; ++c) {
                const float value = fmaf(total.change[d][c][r], reciprocal, source.v[c]);
                out.v[r * CHANNELS + c] = to_sample(SAMPLE == 2 && !finite ? source.v[c] : value);
            }
            if (ALPHA) out.v[r * CHANNELS + CHANNELS - 1] = (sample_t)source.v[CHANNELS - 1];
        }
        *(Quad*)(task.out + (y + d - task.y0) * task.out_pitch + (size_t)(x - task.x0) * CHANNELS) = out;
    }
}
