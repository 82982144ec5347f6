// Step 1, vanilla: one thread per output pixel, source and weights in global memory.
//
// Every thread reads all its taps and all weights by itself; only the caches help it.
// Launch: a block of TILE_WIDTH x TILE_HEIGHT threads for as many output pixels, blocks in blockIdx.x
// row by row. Planned by variants/vanilla.py. `weights` is (KERNELS, kernel_height, kernel_width), any size.
#include "pixel.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 4)
filter(const Task task, const float* __restrict__ weights)
{
    const int x = blockIdx.x % task.blocks_x * TILE_WIDTH + threadIdx.x;
    const int y = blockIdx.x / task.blocks_x * TILE_HEIGHT + threadIdx.y;
    if (x >= task.width || y >= task.height) return;

    Total total[KERNELS] = {};
    const int taps = task.kernel_width * task.kernel_height;
    for (int i = 0; i < task.kernel_height; ++i) {
        for (int j0 = 0; j0 < task.kernel_width; j0 += PIECE_TAPS) {
            Pixel piece[KERNELS] = {};
            for (int j = j0; j < min(j0 + PIECE_TAPS, task.kernel_width); ++j) {
                const Pixel pixel = load_pixel(
                    task, x + task.x0 + j - task.anchor_x, y + task.y0 + i - task.anchor_y);
#pragma unroll
                for (int k = 0; k < KERNELS; ++k) {
                    const float weight = weights[k * taps + i * task.kernel_width + j];
                    if (!is_tap(weight)) continue;
#pragma unroll
                    for (int c = 0; c < CHANNELS; ++c)
                        piece[k].v[c] = fmaf(weight, pixel.v[c], piece[k].v[c]);
                }
            }
            add(total, piece);
        }
    }
    Pixel sum[KERNELS];
    round_to(sum, total);
    store_pixel(task, x, y, sum);
}
