// Step 3, tiled: the tile and its halo in shared memory, read from global memory once.
//
// A block reads each source pixel once, converts, borders and premultiplies it once, and all its
// threads take their taps from shared memory. A kernel larger than CHUNK x CHUNK is walked chunk
// by chunk, each with a tile of its own, so that shared memory does not grow with the kernel.
// Planes, not interleaved channels: neighbouring threads then read neighbouring banks.
// Launch: a block of TILE_WIDTH x TILE_HEIGHT threads for as many output pixels, blocks in blockIdx.x
// row by row. Planned by variants/tiled.py, which fills `weights`, (KERNELS, kernel_height, kernel_width).
#include "pixel.cuh"

#define CHUNK 16

__constant__ float weights[16384];

extern "C" __global__ void __launch_bounds__(THREADS) filter(const Task task)
{
    __shared__ float tile[CHANNELS][TILE_HEIGHT + CHUNK - 1][TILE_WIDTH + CHUNK - 1];

    const int tile_x = blockIdx.x % task.blocks_x * TILE_WIDTH;
    const int tile_y = blockIdx.x / task.blocks_x * TILE_HEIGHT;
    const int thread = threadIdx.y * TILE_WIDTH + threadIdx.x;
    const int taps = task.kernel_width * task.kernel_height;

    Pixel sum[KERNELS] = {};
    for (int i0 = 0; i0 < task.kernel_height; i0 += CHUNK) {
        for (int j0 = 0; j0 < task.kernel_width; j0 += CHUNK) {
            const int rows = min(CHUNK, task.kernel_height - i0);
            const int columns = min(CHUNK, task.kernel_width - j0);
            const int halo_width = TILE_WIDTH + columns - 1;
            const int halo_size = halo_width * (TILE_HEIGHT + rows - 1);

            __syncthreads();  // the last chunk's taps are all read
            for (int n = thread; n < halo_size; n += THREADS) {
                const int x = n % halo_width, y = n / halo_width;
                const Pixel pixel = load_pixel(task, tile_x + task.x0 + j0 - task.anchor_x + x,
                                               tile_y + task.y0 + i0 - task.anchor_y + y);
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c) tile[c][y][x] = pixel.v[c];
            }
            __syncthreads();

            // A sum a row, and of those a sum a chunk: rounding errors grow with neither's number.
            Pixel chunk[KERNELS] = {};
            for (int i = 0; i < rows; ++i) {
                Pixel line[KERNELS] = {};
                for (int j = 0; j < columns; ++j) {
#pragma unroll
                    for (int k = 0; k < KERNELS; ++k) {
                        const float weight =
                            weights[k * taps + (i0 + i) * task.kernel_width + j0 + j];
                        if (!is_tap(weight)) continue;
#pragma unroll
                        for (int c = 0; c < CHANNELS; ++c)
                            line[k].v[c] = fmaf(weight, tile[c][threadIdx.y + i][threadIdx.x + j],
                                                line[k].v[c]);
                    }
                }
                add(chunk, line);
            }
            add(sum, chunk);
        }
    }
    const int x = tile_x + threadIdx.x, y = tile_y + threadIdx.y;
    if (x < task.width && y < task.height) store_pixel(task, x, y, sum);
}
