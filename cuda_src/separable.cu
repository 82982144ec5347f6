// Step 4, separable: kernels of rank 1, a column times a row: both passes in one launch.
//
// rows + columns multiply-adds a sample in place of rows * columns. The horizontal pass over the
// tile and its halo above and below goes to shared memory, from where the vertical pass reads it,
// so no intermediate image is written. Long factors are walked in chunks of CHUNK taps.
// One channel at a time: shared memory stays small enough for many blocks a multiprocessor.
// Launch: a block of TILE_WIDTH x THREAD_ROWS threads for a square of output pixels (four rows a
// thread), blocks in blockIdx.x row by row. Planned by variants/separable.py, which fills `weights`: for each kernel its
// column (kernel_height), then its row (kernel_width), 16384 in all at most.
#include "pixel.cuh"

#define TILE TILE_WIDTH
#define THREAD_ROWS (THREADS / TILE)
static_assert(TILE_HEIGHT == TILE && TILE % THREAD_ROWS == 0, "whole rows of threads cover a square");
#define OUTPUTS (TILE / THREAD_ROWS)
#define CHUNK 16
#define HALO_ROWS (TILE + CHUNK - 1)
#define PASS_ROWS ((HALO_ROWS + THREAD_ROWS - 1) / THREAD_ROWS)  // halo rows a thread

__constant__ float weights[16384];

// The sums of two kernels on colour need more registers than the compiler takes by itself; asked to
// give one kernel as many, it took so many that the others ran 1.3x slower.
#if KERNELS == 2
#define BOUNDS __launch_bounds__(TILE * THREAD_ROWS, 2)
#elif CHANNELS == 4 || (CHANNELS == 3 && __CUDA_ARCH__ < 900)
#define BOUNDS __launch_bounds__(TILE * THREAD_ROWS, 4)  // else the compiler stops at 48 and spills
#else
#define BOUNDS __launch_bounds__(TILE * THREAD_ROWS)
#endif

extern "C" __global__ void BOUNDS filter(const Task task)
{
    __shared__ float tile[PASS_ROWS * THREAD_ROWS][TILE + CHUNK - 1];
    __shared__ float across[PASS_ROWS * THREAD_ROWS][TILE];  // the horizontal pass's results

    const int tile_x = blockIdx.x % task.blocks_x * TILE;
    const int tile_y = blockIdx.x / task.blocks_x * TILE;
    const int thread = threadIdx.y * TILE + threadIdx.x;

    Pixel sum[OUTPUTS][KERNELS] = {};
#pragma unroll
    for (int k = 0; k < KERNELS; ++k) {
        const float* column = weights + k * (task.kernel_height + task.kernel_width);
        const float* row = column + task.kernel_height;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            for (int i0 = 0; i0 < task.kernel_height; i0 += CHUNK) {
                const int rows = min(CHUNK, task.kernel_height - i0);
                const int halo_rows = TILE + rows - 1;

                float pass[PASS_ROWS] = {};
                for (int j0 = 0; j0 < task.kernel_width; j0 += CHUNK) {
                    const int columns = min(CHUNK, task.kernel_width - j0);
                    const int halo_width = TILE + columns - 1;
                    __syncthreads();  // the last chunk's taps are all read
                    for (int n = thread; n < halo_width * halo_rows; n += TILE * THREAD_ROWS) {
                        const int x = n % halo_width, y = n / halo_width;
                        tile[y][x] = load_pixel(task, tile_x + task.x0 + j0 - task.anchor_x + x,
                                                tile_y + task.y0 + i0 - task.anchor_y + y).v[c];
                    }
                    __syncthreads();
                    float part[PASS_ROWS] = {};  // a sum a chunk: errors grow with the chunks only
#pragma unroll 2
                    for (int j = 0; j < columns; ++j) {
                        const float weight = row[j0 + j];
                        if (!is_tap(weight)) continue;
#pragma unroll
                        for (int n = 0; n < PASS_ROWS; ++n)  // rows past the halo go unused
                            part[n] = fmaf(weight, tile[threadIdx.y + n * THREAD_ROWS][threadIdx.x + j],
                                           part[n]);
                    }
#pragma unroll
                    for (int n = 0; n < PASS_ROWS; ++n) pass[n] += part[n];
                }
#pragma unroll
                for (int n = 0; n < PASS_ROWS; ++n)
                    across[threadIdx.y + n * THREAD_ROWS][threadIdx.x] = pass[n];
                __syncthreads();
                float part[OUTPUTS] = {};
#pragma unroll 2
                for (int i = 0; i < rows; ++i) {
                    const float weight = column[i0 + i];
                    if (!is_tap(weight)) continue;
#pragma unroll
                    for (int n = 0; n < OUTPUTS; ++n)
                        part[n] = fmaf(
                            weight, across[threadIdx.y + n * THREAD_ROWS + i][threadIdx.x], part[n]);
                }
#pragma unroll
                for (int n = 0; n < OUTPUTS; ++n) sum[n][k].v[c] += part[n];
            }
        }
    }
    const int x = tile_x + threadIdx.x;
#pragma unroll
    for (int n = 0; n < OUTPUTS; ++n) {
        const int y = tile_y + threadIdx.y + n * THREAD_ROWS;
        if (x < task.width && y < task.height) store_pixel(task, x, y, sum[n]);
    }
}
