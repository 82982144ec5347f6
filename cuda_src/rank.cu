// Step 10, rank: any rank of any window: each sample is found bit by bit, by counting what is below.
//
// A thread finds the sample of its pixel channel by channel, alpha like the others. It goes through
// the window once for two bits of the sample's key and counts how many keys lie below each of the
// three next candidates; that decides the bits. The least and the largest are found in one go (PICK).
// The window comes as runs, neighbours in a row that count: so the border is looked at once a run
// where that lies inside the image.
// Launch: a block of TILE_WIDTH x TILE_HEIGHT threads for as many output pixels, blocks in blockIdx.x
// row by row. Planned by variants/rank.py. `weights` are the runs in global memory, three floats each,
// row, first column and end, and a row of -1 behind the last; of doubles behind what lies outside, one
// more. ALPHA is 0; task.rank is below 2^26.
#include "keys.cuh"

enum { ANY, LEAST, LARGEST };  // PICK

// Call use(key, count) for the keys of channel c in the window around output pixel (x, y).
template <typename Use>
__device__ __forceinline__ void each_key(
    const Task& task, const float* __restrict__ runs, int x, int y, int c, Use use)
{
    const int left = x + task.x0 - task.anchor_x, top = y + task.y0 - task.anchor_y;
#if SAMPLE == 3
    const Key outside = key_of(*(const double*)runs);
    runs += 2;
#else
    const Key outside = key_of((sample_t)task.border_value);
#endif
#pragma unroll 1
    for (; runs[0] >= 0.0f; runs += 3) {
        const int row = border_index(top + (int)runs[0], task.source_height, task.border);
        const int begin = left + (int)runs[1], end = left + (int)runs[2];
        if (row < 0) {
            use(outside, end - begin);
            continue;
        }
        const sample_t* from = task.source + row * task.source_pitch + c;
        if (begin >= 0 && end <= task.source_width) {
#pragma unroll 4
            for (int i = begin; i < end; ++i) use(key_of(from[(size_t)i * CHANNELS]), 1);
        } else {
#pragma unroll 1
            for (int i = begin; i < end; ++i) {
                const int column = border_index(i, task.source_width, task.border);
                use(column < 0 ? outside : key_of(from[(size_t)column * CHANNELS]), 1);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
filter(const Task task, const float* __restrict__ weights)
{
    const int x = blockIdx.x % task.blocks_x * TILE_WIDTH + threadIdx.x;
    const int y = blockIdx.x / task.blocks_x * TILE_HEIGHT + threadIdx.y;
    if (x >= task.width || y >= task.height) return;

    sample_t* out = task.out + y * task.out_pitch + (size_t)x * CHANNELS;
#pragma unroll 1
    for (int c = 0; c < CHANNELS; ++c) {
        Key found = PICK == LEAST ? ~(Key)0 : 0;
        if (PICK == ANY) {
#pragma unroll 1
            for (int shift = KEY_BITS - 2; shift >= 0; shift -= 2) {
                const Key one = (Key)1 << shift, first = found + one, second = first + one,
                          third = second + one;
                int below[3] = {};
                each_key(task, weights, x, y, c, [&](Key key, int count) {
                    below[0] += key < first ? count : 0;
                    below[1] += key < second ? count : 0;
                    below[2] += key < third ? count : 0;
                });
#pragma unroll
                for (int i = 0; i < 3; ++i) found += below[i] <= task.rank ? one : 0;
            }
        } else {
            each_key(task, weights, x, y, c, [&](Key key, int) {
                found = PICK == LEAST ? min(found, key) : max(found, key);
            });
        }
        out[c] = value_of(found);
    }
}
