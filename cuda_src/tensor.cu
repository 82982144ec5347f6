// Step 9, tensor: kernels of rank 1 on 8 bits: both passes as products of matrices on tensor cores.
//
// A tap row that slides over 16 outputs is a band matrix, so a pass over a tile is a product of two
// matrices. Halves hold a byte exactly, and a weight as the sum of two (high and low); so does what
// is between the passes, whose low part needs no low weights. Sums are float32, so both passes
// together err by less than the 0.001 of a byte's step that the contract allows.
//   across: part(column, row) = sum over k of row_band(column, k) * source(k, row)
//   down:   out(column, row)  = sum over k of part(column, k) * column_band(k, row)
// The first product leaves the registers of a warp just as the second one wants them: nothing goes
// through shared memory but the source. The order of k and of the columns is free; it is such that
// a lane reads 4 neighbouring pixels of a row, and after a transposition stores 4.
// A byte b becomes 1024 + b by a permutation, as the low bits of a half; the first sum starts at
// what takes the 1024 away again.
//
// A block's warps have BESIDE tiles of 16 columns each and walk down task.rows rows, 16 source rows a
// step. A step adds to the TILES tiles of 8 output rows that these are taps of, and completes two.
// Sums live in registers, and a tile's start from those of the tile two further down of the step
// before: the shift costs nothing. Bands are there too (KEPT), or in shared memory.
//
// Macros besides pixel.cuh's: ROWS, COLUMNS, LEFT (the kernel, and its anchor's column), WARPS (of a
// block), BESIDE, KEPT, BLOCKS (resident warps of a multiprocessor to compile for).
// Launch: WARPS warps; task.blocks_x blocks side by side, then down, task.rows rows each.
// Needs rows that start on 128 bytes with 64 bytes of slack behind, and x0 % 32 == 0.
// Planned by variants/tensor.py, which fills `weights`: column (ROWS), then row (COLUMNS), scaled so that
// halves hold them and what they give (scaled()). task.gain makes up for that, task.bias
// comes before the gain, and task.weight_sum[0] is what takes the 1024s of a row's bytes away.
#include "pixel.cuh"

#define THREADS (32 * WARPS)
#define COLUMNS_A_WARP (16 * BESIDE)
#define STRIP (COLUMNS_A_WARP * WARPS * CHANNELS)  // samples
#define FIRST ((32 - LEFT * CHANNELS % 32) % 32)  // bytes before the first tap in its sector
// Pixels before the first tap, so that a lane's 4 pixels start on a word.
#define EARLY (CHANNELS == 3 ? (4 - FIRST % 4) % 4 : FIRST / CHANNELS % 4)
#define LEAD (FIRST >= EARLY * CHANNELS ? FIRST : FIRST + 32)  // samples copied before the first tap
#define NEEDED (LEAD + STRIP + (COLUMNS - 1) * CHANNELS)       // samples copied before the last tap
#define START (LEAD - EARLY * CHANNELS)
#define READ (START + 16 * (BESIDE * WARPS - 1 + ACROSS) * CHANNELS)  // bytes that warps read of a row
// Bytes of a row, 16 * CHANNELS more than a multiple of 128, so that 8 rows lie in all banks.
#define ENOUGH (READ > NEEDED + 16 ? READ : NEEDED + 16)
#define LINE ((ENOUGH - 16 * CHANNELS + 127) / 128 * 128 + 16 * CHANNELS)
#define GROUP 32  // rows that are copied together: two steps, so that warps wait for others less
#define ACROSS ((EARLY + COLUMNS + 30) / 16)  // 16-pixel steps of the first product
#define DEEP ((ROWS + 30) / 16)               // steps that an output row takes part in
#define TILES (2 * DEEP)
#define MARGIN 20  // zeros around the taps

#include "strip.cuh"

__constant__ float weights[ROWS + COLUMNS];

#define DOWN_TAPS (16 * DEEP + 2 * MARGIN)
#define ACROSS_TAPS (16 * ACROSS + 2 * MARGIN)

// A lane's share of the band matrices: of 16 source pixels, and of 8 output rows.
struct RowBand {
    unsigned high[4], low[4];
};
struct __align__(16) ColumnBand {
    unsigned high[2], low[2];
};

struct Shared {
    Copies<GROUP, LINE> rows;
#if !KEPT
    uint4 row_bands[2][ACROSS][32];  // high, low
    ColumnBand column_bands[TILES][32];
#endif
    float down[DOWN_TAPS], across[ACROSS_TAPS];
};

// Two floats as halves, and as halves what these leave.
__device__ __forceinline__ void split(float first, float second, unsigned& high, unsigned& low)
{
    high = to_halves(first, second);
    low = to_halves(first - low_half(high), second - high_half(high));
}

// Bytes i and j of words, as the low bits of two halves of 1024.
__device__ __forceinline__ unsigned biased(const unsigned (&words)[CHANNELS], int i, int j)
{
    if (i / 4 == j / 4) return __byte_perm(words[i / 4], 0x64646464, 0x4040 | i % 4 | j % 4 << 8);
    return __byte_perm(words[i / 4], words[j / 4], i % 4 | (4 + j % 4) << 8) & 0x00FF00FF | 0x64006400;
}

// Store 4 pixels from column x on, as far as the image goes; planes[c] holds their bytes of channel c.
__device__ __forceinline__ void store(
    const Task& task, sample_t* to, int x, const unsigned (&planes)[CHANNELS])
{
    unsigned words[CHANNELS] = {};
#pragma unroll
    for (int n = 0; n < 4 * CHANNELS; ++n)
        words[n / 4] |= (planes[n % CHANNELS] >> 8 * (n / CHANNELS) & 255) << 8 * (n % 4);
    if (x + 4 <= task.width) {
#pragma unroll
        for (int w = 0; w < CHANNELS; ++w) ((unsigned*)to)[w] = CHANNELS == 1 ? planes[0] : words[w];
    } else {
#pragma unroll
        for (int n = 0; n < 3 * CHANNELS; ++n)
            if (x + n / CHANNELS < task.width) to[n] = words[n / 4] >> 8 * (n % 4);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS / WARPS) filter(const Task task)
{
    __shared__ Shared shared;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int g = lane / 4, t = lane % 4;  // as PTX's tables of the fragments name them
    const int strip = blockIdx.x % task.blocks_x * STRIP;
    const int y0 = blockIdx.x / task.blocks_x * task.rows;
    const int height = min(task.rows, task.height - y0);
    const int length = height + ROWS - 1;                          // source rows to go through
    const int steps = (height + 16 * DEEP - 16 + 15) / 16;
    const int top = y0 + task.y0 - task.anchor_y;                  // the first of them
    const int first = strip + (task.x0 - LEFT) * CHANNELS - LEAD;  // its first copied sample
    const Edge edge(task, first);
    const bool rows_inside = top >= 0 && top + length <= task.source_height;
    bool copied = edge.left < edge.right && (task.border != CONSTANT || rows_inside);
    if (copied && edge.patches)
        edge.each(task, first, [&](int, int at) {
            copied &= at == OUTSIDE || (at >= edge.left && at < edge.right);
        });
    copied = !__syncthreads_or(!copied);
    const Walk walk = walk_of(task, edge, first, top, length, copied);

    for (int i = threadIdx.x; i < DOWN_TAPS; i += THREADS)
        shared.down[i] = i >= MARGIN && i < MARGIN + ROWS ? weights[i - MARGIN] : 0.0f;
    for (int i = threadIdx.x; i < ACROSS_TAPS; i += THREADS)
        shared.across[i] = i >= MARGIN && i < MARGIN + COLUMNS ? weights[ROWS + i - MARGIN] : 0.0f;
    if (copied) shared.rows.init();
    __syncthreads();
    bring(shared.rows, task, edge, walk, 0, 0);

    // Row bands are of output columns 2g (r even) or 2g + 1, pixels 4t + r / 2 * 2 and the next.
    auto row_band_of = [&](int q) {
        RowBand band;
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const float* tap =
                shared.across + MARGIN + 16 * q + 4 * t + r / 2 * 2 - (2 * g + r % 2) - EARLY;
            split(tap[0], tap[1], band.high[r], band.low[r]);
        }
        return band;
    };
    auto column_band_of = [&](int u) {
        ColumnBand band;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float* tap = shared.down + MARGIN + 2 * t + 8 * r - g - 16 + 8 * TILES - 8 * u;
            split(tap[0], tap[1], band.high[r], band.low[r]);
        }
        return band;
    };
#if KEPT
    RowBand row_bands[ACROSS];
    ColumnBand column_bands[TILES];
#pragma unroll
    for (int q = 0; q < ACROSS; ++q) row_bands[q] = row_band_of(q);
#pragma unroll
    for (int u = 0; u < TILES; ++u) column_bands[u] = column_band_of(u);
    auto row_band = [&](int q) { return row_bands[q]; };
    auto column_band = [&](int u) { return column_bands[u]; };
#else
    for (int q = warp; q < ACROSS; q += WARPS) {
        const RowBand band = row_band_of(q);
        shared.row_bands[0][q][lane] = make_uint4(band.high[0], band.high[1], band.high[2], band.high[3]);
        shared.row_bands[1][q][lane] = make_uint4(band.low[0], band.low[1], band.low[2], band.low[3]);
    }
    for (int u = warp; u < TILES; u += WARPS) shared.column_bands[u][lane] = column_band_of(u);
    auto row_band = [&](int q) {
        const uint4 high = shared.row_bands[0][q][lane], low = shared.row_bands[1][q][lane];
        return RowBand{{high.x, high.y, high.z, high.w}, {low.x, low.y, low.z, low.w}};
    };
    auto column_band = [&](int u) { return shared.column_bands[u][lane]; };
#endif
    const float base = task.weight_sum[0];
    float start[4] = {base, base, base, base}, bias[4] = {task.bias, task.bias, task.bias, task.bias};

    const int x = strip / CHANNELS + COLUMNS_A_WARP * warp + 4 * t;  // of the pixels this lane stores
    sample_t* out = task.out + (ptrdiff_t)(y0 + g) * task.out_pitch + x * CHANNELS;
    const int lane_at = START + (COLUMNS_A_WARP * warp + 4 * t) * CHANNELS;
    float sums[BESIDE][CHANNELS][TILES][4] = {};
#pragma unroll 1
    for (int s = 0; s < steps; ++s) {
        const int half = s / 2 % 2;
        if (s % 2 == 0) {
            if (copied) shared.rows.wait(half, s / 4);
            __syncthreads();  // the other half is read by all
            bring(shared.rows, task, edge, walk, (s / 2 + 1) * GROUP, 1 - half);
            if (copied && edge.patches) {
                patch<GROUP>(shared.rows.data[half], task, edge, walk);
                shared.rows.wrote();
                __syncthreads();
            }
        }
        const unsigned char* lines = shared.rows.data[half][s % 2 * 16 + g] + lane_at;

        float part[BESIDE][CHANNELS][2][4];
        RowBand bands[ACROSS];
#pragma unroll
        for (int q = 0; q < ACROSS + BESIDE - 1; ++q) {
            if (q < ACROSS) bands[q] = row_band(q);
            unsigned pixels[2][CHANNELS][2];
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                unsigned words[CHANNELS];
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c)
                    words[c] = ((const unsigned*)(lines + 8 * j * LINE + 16 * q * CHANNELS))[c];
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
                    for (int i = 0; i < 2; ++i)
                        pixels[j][c][i] = biased(words, 2 * i * CHANNELS + c, (2 * i + 1) * CHANNELS + c);
            }
            auto all = [&](auto use) {
#pragma unroll
                for (int m = 0; m < BESIDE; ++m)
#pragma unroll
                    for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
                        for (int j = 0; j < 2; ++j)
                            if (q >= m && q < m + ACROSS) use(part[m][c][j], pixels[j][c], m);
            };
            all([&](float (&to)[4], auto& pixels, int m) {
                multiply_add(to, bands[q - m].high, pixels, q == m ? start : to);
            });
            all([&](float (&to)[4], auto& pixels, int m) {
                multiply_add(to, bands[q - m].low, pixels, to);
            });
        }
        unsigned high[BESIDE][CHANNELS][4], low[BESIDE][CHANNELS][4];
#pragma unroll
        for (int m = 0; m < BESIDE; ++m)
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
                for (int r = 0; r < 4; ++r) {
                    const float* pair = &part[m][c][r / 2][r % 2 * 2];
                    split(pair[0], pair[1], high[m][c][r], low[m][c][r]);
                }
#pragma unroll
        for (int u = 0; u < TILES; ++u) {
            const ColumnBand band = column_band(u);
            auto all = [&](auto use) {
#pragma unroll
                for (int m = 0; m < BESIDE; ++m)
#pragma unroll
                    for (int c = 0; c < CHANNELS; ++c)
                        use(sums[m][c], high[m][c], low[m][c]);
            };
            all([&](float (&sum)[TILES][4], auto& high, auto&) {
                multiply_add(sum[u], high, band.high, u < TILES - 2 ? sum[u + 2] : bias);
            });
            all([&](float (&sum)[TILES][4], auto&, auto& low) {
                multiply_add(sum[u], low, band.high, sum[u]);
            });
            all([&](float (&sum)[TILES][4], auto& high, auto&) {
                multiply_add(sum[u], high, band.low, sum[u]);
            });
        }
#pragma unroll
        for (int u = 0; u < 2; ++u) {
            const int row = 16 * s + 16 - 8 * TILES + 8 * u;  // and 7 more
            if (row + 7 < 0) continue;
#pragma unroll
            for (int m = 0; m < BESIDE; ++m) {
                unsigned planes[CHANNELS];
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c) {
                    float (&done)[4] = sums[m][c][u];
                    // The low bits of 1.5 * 2^23 + value are the value, rounded half to even.
                    int whole[4];
#pragma unroll
                    for (int r = 0; r < 4; ++r)
                        whole[r] = __float_as_int(fmaf(task.gain, done[r], 12582912.0f)) - 0x4B400000;
                    planes[c] = transposed(to_bytes(whole[0], whole[2], whole[1], whole[3]));
                }
                if (row + g < 0 || row + g >= height) continue;
                store(task, out + row * task.out_pitch + 16 * m * CHANNELS, x + 16 * m, planes);
            }
        }
    }
}
