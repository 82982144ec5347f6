// Step 8, blocked: large dense kernels: 16 outputs a thread, loops that fit the instruction cache.
//
// tiled.cu reads a tap from shared memory for each multiply-add; stream.cu unrolls the whole
// kernel, which past about 17x17 no longer fits the instruction cache. Here a thread owns RUN
// neighbouring outputs: it reads RUN + SPAN samples of a row and gets SPAN * RUN multiply-adds out
// of them, whose weights come from constant memory, SPAN (a macro of blocked.py) at a time for all threads. The loops over
// the kernel's rows and over SPAN columns of it stay loops: one specialisation serves all sizes,
// and what it repeats fits the instruction cache.
// The kernel is walked in chunks, as in tiled.cu; a sum every SUM_ROWS rows (for uint16, which has no
// unit in the last place to spare, a sum a row, and of those one a chunk), and of those a total, keep
// rounding errors from growing with the number of taps.
// Launch: THREADS threads, a tile of TILE_WIDTH x TILE_HEIGHT output pixels, blocks in blockIdx.x row
// by row. Planned by variants/blocked.py, which fills `weights`: (kernel_height, kernel_width with zeros up to a multiple
// of SPAN). One kernel only.
#include "pixel.cuh"

#define RUN 16  // outputs a thread, side by side
#define LANES (TILE_WIDTH / RUN)  // threads side by side
#define DOWN TILE_HEIGHT          // threads below each other
static_assert(LANES * DOWN == THREADS && TILE_WIDTH % RUN == 0, "a run for each thread");
#define CHUNK_ROWS 31  // as many as 48 KB of shared memory hold
#define CHUNK_COLUMNS 32  // a multiple of SPAN
#define SUM_ROWS 8        // kernel rows of a partial sum, of a chunk's columns

#define HALO_WIDTH (TILE_WIDTH + CHUNK_COLUMNS)
#define HALO_HEIGHT (DOWN + CHUNK_ROWS - 1)

__align__(16) __constant__ float weights[16384];

// Where column x of a tile's line lies: neighbouring lanes read RUN apart, and four floats of
// padding for each RUN put the float4 of eight of them into different banks.
__device__ __forceinline__ int at(int x) { return x + x / RUN * 4; }

#define LINE (HALO_WIDTH / RUN * (RUN + 4) - 4)

// Fill the tile with channel c around the chunk at (i0, j0). True where a sample is not finite.
__device__ __forceinline__ bool fill(const Task& task, float (&tile)[HALO_HEIGHT][LINE], int c,
                                     int x0, int y0, int rows)
{
    const int lane = threadIdx.x % 32;
    const float outside = outside_tap(task, c);
    int columns[HALO_WIDTH / 32];
#pragma unroll
    for (int n = 0; n < HALO_WIDTH / 32; ++n)
        columns[n] = border_index(x0 + lane + 32 * n, task.source_width, task.border);
    bool odd = false;
#pragma unroll 2
    for (int y = threadIdx.x / 32; y < DOWN + rows - 1; y += LANES * DOWN / 32) {
        const int row = border_index(y0 + y, task.source_height, task.border);
        const sample_t* from = task.source + row * task.source_pitch;
#pragma unroll
        for (int n = 0; n < HALO_WIDTH / 32; ++n) {
            const float tap = row < 0 || columns[n] < 0 ? outside
                                                        : tap_of(from + (size_t)columns[n] * CHANNELS, c);
            tile[y][at(lane) + n * at(32)] = tap;
            odd |= SAMPLE == 2 && !(fabsf(tap) < INFINITY);
        }
    }
    return odd;
}

// sum[r] += weight[j] * line[x + r + j] for SPAN columns j; in[0..RUN) holds line[x..x + RUN), and
// afterwards what the next call wants.
__device__ __forceinline__ void span(const float* weight, const float* line, int x,
                                     float (&in)[RUN + SPAN], float (&sum)[RUN])
{
    float w[SPAN];
#pragma unroll
    for (int n = 0; n < SPAN; n += 4) {
        const float4 four = *(const float4*)(line + at(x + RUN + n));
        in[RUN + n] = four.x, in[RUN + n + 1] = four.y;
        in[RUN + n + 2] = four.z, in[RUN + n + 3] = four.w;
        const float4 some = *(const float4*)(weight + n);
        w[n] = some.x, w[n + 1] = some.y, w[n + 2] = some.z, w[n + 3] = some.w;
    }
#pragma unroll
    for (int j = 0; j < SPAN; ++j)
#pragma unroll
        for (int r = 0; r < RUN; ++r) sum[r] = fmaf(w[j], in[r + j], sum[r]);
#pragma unroll
    for (int n = 0; n < RUN; ++n) in[n] = in[n + SPAN];
}

extern "C" __global__ void __launch_bounds__(LANES * DOWN, CHANNELS == 1 ? 3 : 2) filter(const Task task)
{
    __align__(16) __shared__ float tile[HALO_HEIGHT][LINE];

    const int tile_x = blockIdx.x % task.blocks_x * TILE_WIDTH;
    const int tile_y = blockIdx.x / task.blocks_x * DOWN;
    const int tx = threadIdx.x % LANES * RUN, ty = threadIdx.x / LANES;
    const int pitch = (task.kernel_width + SPAN - 1) / SPAN * SPAN;  // of the weights

    float total[CHANNELS][RUN] = {};
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
        for (int i0 = 0; i0 < task.kernel_height; i0 += CHUNK_ROWS) {
            for (int j0 = 0; j0 < task.kernel_width; j0 += CHUNK_COLUMNS) {
                const int rows = min(CHUNK_ROWS, task.kernel_height - i0);
                __syncthreads();  // the last chunk's taps are all read
                const bool odd = fill(task, tile, c, tile_x + task.x0 + j0 - task.anchor_x,
                                      tile_y + task.y0 + i0 - task.anchor_y, rows);
                const float* weight = weights + i0 * pitch + j0;

                float sum[RUN] = {};
                auto row_is_done = [&](int i) {  // the same either way, and so are the bits
                    if (SAMPLE == 1 || (i + 1) % SUM_ROWS) return;
#pragma unroll
                    for (int r = 0; r < RUN; ++r) total[c][r] += sum[r], sum[r] = 0.0f;
                };
                if (!__syncthreads_or(odd)) {
                    const int columns = min(CHUNK_COLUMNS, pitch - j0);
                    for (int i = 0; i < rows; ++i, weight += pitch) {
                        const float* line = tile[ty + i];
                        float in[RUN + SPAN], part[RUN];
#pragma unroll
                        for (int r = 0; r < RUN; ++r) part[r] = SAMPLE == 1 ? 0.0f : sum[r];
#pragma unroll
                        for (int n = 0; n < RUN; n += 4) {
                            const float4 four = *(const float4*)(line + at(tx) + n);
                            in[n] = four.x, in[n + 1] = four.y, in[n + 2] = four.z, in[n + 3] = four.w;
                        }
#pragma unroll 2
                        for (int j = 0; j < columns; j += SPAN) span(weight + j, line, tx + j, in, part);
#pragma unroll
                        for (int r = 0; r < RUN; ++r) sum[r] = SAMPLE == 1 ? sum[r] + part[r] : part[r];
                        row_is_done(i);
                    }
                } else {  // zero times infinity is no zero: only the kernel's taps, one by one
                    const int columns = min(CHUNK_COLUMNS, task.kernel_width - j0);
                    for (int i = 0; i < rows; ++i, weight += pitch) {
                        for (int j = 0; j < columns; ++j) {
                            if (!is_tap(weight[j])) continue;
#pragma unroll
                            for (int r = 0; r < RUN; ++r)
                                sum[r] = fmaf(weight[j], tile[ty + i][at(tx + r + j)], sum[r]);
                        }
                        row_is_done(i);
                    }
                }
#pragma unroll
                for (int r = 0; r < RUN; ++r) total[c][r] += sum[r];
            }
        }
    }
    const int x = tile_x + tx, y = tile_y + ty;
    if (x < task.width && y < task.height) store_run(task, x, y, total);
}
