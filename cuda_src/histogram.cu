// Step 13, histogram: any rank of rectangles on 8 bits, in a time that hardly grows with the window.
//
// A block walks down a strip of 32 * WARPS output columns of one channel and keeps a histogram of
// each column that the strip taps: as many rows as the window has, 256 counts of a byte. For a row
//   1. threads take the row that the window leaves out of their columns, and add the new one;
//   2. a warp has 32 neighbouring outputs. Each lane has eight counts of the window's own
//      histogram, and from output to output adds a column's and takes away another's;
//   3. lanes sum up their counts, and a scan over the warp tells in which lane the sample of this
//      rank is. Two outputs share a scan, 16 bits each. That lane leaves its counts behind;
//   4. when all 32 are done, each lane looks through the counts of one output.
// The window's histogram at a warp's first output goes from row to row by its own changes.
// Macros besides pixel.cuh's: WARPS, SPAN (columns that a strip taps, at most, and one).
// Launch: 32 * WARPS threads; task.blocks_x strips of each channel side by side, then down, task.rows
// rows each. Planned by variants/histogram.py, without weights. SAMPLE and ALPHA are 0; a window has at
// most 255 rows and 65535 samples.
#include "keys.cuh"

#define THREADS (32 * WARPS)
#define BINS 256
#define STRIDE (BINS + 8)                         // bytes a column: equal samples meet in two banks
#define MINE ((SPAN + THREADS - 1) / THREADS)     // columns that a thread updates
#define LANE_BINS (BINS / 32)

struct __align__(16) Shared {
    unsigned char column[SPAN][STRIDE];
    unsigned first[WARPS][BINS / 2];              // the window of a warp's first output
    uint4 counts[WARPS][32];                      // of each output, those of one lane
    unsigned place[WARPS][32];                    // that lane, and above 16 bits what is left of rank
    unsigned char fresh[SPAN], stale[SPAN];       // samples of the row that is added, taken away
};

// Eight counts of 16 bits: bins (0, 2), (1, 3), (4, 6), (5, 7) of a lane, as bytes come apart.
struct Counts {
    unsigned v[4];

    __device__ __forceinline__ static Counts of(const unsigned (&sums)[BINS / 2])
    {
        const uint4 from = ((const uint4*)sums)[threadIdx.x % 32];
        return {from.x, from.y, from.z, from.w};
    }

    __device__ __forceinline__ Counts next(const uint2& in, const uint2& out) const
    {
        return {v[0] + even(in.x) - even(out.x), v[1] + odd(in.x) - odd(out.x),
                v[2] + even(in.y) - even(out.y), v[3] + odd(in.y) - odd(out.y)};
    }

    __device__ __forceinline__ unsigned sum() const
    {
        const unsigned both = v[0] + v[1] + v[2] + v[3];
        return (both & 0xffff) + (both >> 16);
    }

private:
    __device__ __forceinline__ static unsigned even(unsigned bytes) { return bytes & 0x00ff00ff; }
    __device__ __forceinline__ static unsigned odd(unsigned bytes)
    {
        return __byte_perm(bytes, 0, 0x4341);
    }
};

// Where Counts have bin b: add `change` times this to the word at `word`.
__device__ __forceinline__ void count(unsigned (&sums)[BINS / 2], unsigned bin, unsigned change)
{
    const unsigned j = bin % LANE_BINS, word = bin / LANE_BINS * 4 + j / 4 * 2 + j % 2;
    atomicAdd(&sums[word], j / 2 % 2 ? change << 16 : change);
}

extern "C" __global__ void __launch_bounds__(THREADS) filter(const Task task)
{
    __shared__ Shared shared;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int across = task.blocks_x * CHANNELS;
    const int x0 = blockIdx.x % across / CHANNELS * THREADS, c = blockIdx.x % CHANNELS;
    const int y0 = blockIdx.x / across * task.rows;
    const int last = min(y0 + task.rows, task.height);
    const int height = task.kernel_height, width = task.kernel_width;
    const int top = y0 + task.y0 - task.anchor_y, taps = THREADS + width - 1;

    for (int i = threadIdx.x; i < (int)sizeof(shared.column) / 4; i += THREADS)
        ((unsigned*)shared.column)[i] = 0;
    for (int i = threadIdx.x; i < WARPS * BINS / 2; i += THREADS)
        ((unsigned*)shared.first)[i] = 0;

    int column[MINE];  // of the source, or -1: the border's value
#pragma unroll
    for (int n = 0; n < MINE; ++n)
        column[n] = border_index(x0 + task.x0 - task.anchor_x + (int)threadIdx.x + n * THREADS,
                                 task.source_width, task.border);
    auto fetch = [&](unsigned (&samples)[MINE], int t) {
        const int row = border_index(top + t, task.source_height, task.border);
        const sample_t* from = task.source + row * task.source_pitch + c;
#pragma unroll
        for (int n = 0; n < MINE; ++n)
            samples[n] = row < 0 || column[n] < 0 ? (sample_t)task.border_value
                                                  : from[(size_t)column[n] * CHANNELS];
    };

    const int x = x0 + threadIdx.x;  // this lane's output
    sample_t* out = task.out + y0 * task.out_pitch + (size_t)x * CHANNELS + c;
    unsigned fresh[MINE], stale[MINE] = {};
    fetch(fresh, 0);
    __syncthreads();
#pragma unroll 1
    for (int t = 0; t < last - y0 + height - 1; ++t) {
        const bool full = t >= height;  // a row leaves
#pragma unroll
        for (int n = 0; n < MINE; ++n) {
            const int i = threadIdx.x + n * THREADS;
            if (i >= taps) break;
            if (full) --shared.column[i][stale[n]];
            ++shared.column[i][fresh[n]];
            shared.fresh[i] = fresh[n];
            shared.stale[i] = stale[n];
        }
        fetch(fresh, t + 1);  // on their way meanwhile
        if (t + 1 >= height) fetch(stale, t + 1 - height);
        __syncthreads();
        for (int i = lane; i < width; i += 32) {
            if (full) count(shared.first[warp], shared.stale[32 * warp + i], ~0u);
            count(shared.first[warp], shared.fresh[32 * warp + i], 1);
        }
        __syncwarp();
        if (t >= height - 1) {
            Counts window = Counts::of(shared.first[warp]);
            const unsigned char* leaves = shared.column[32 * warp] + lane * LANE_BINS;
            const unsigned char* enters = leaves + width * STRIDE;
            auto leave = [&](int n, const Counts& counts, unsigned sum, unsigned up_to) {
                const unsigned rank = task.rank, before = up_to - sum;
                if (up_to > rank && before <= rank) {
                    shared.counts[warp][n] =
                        make_uint4(counts.v[0], counts.v[1], counts.v[2], counts.v[3]);
                    shared.place[warp][n] = lane | (rank - before) << 16;
                }
            };
#pragma unroll 4
            for (int n = 0; n < 32; n += 2) {
                const Counts second = window.next(*(const uint2*)(enters + n * STRIDE),
                                                  *(const uint2*)(leaves + n * STRIDE));
                const unsigned sum = window.sum(), second_sum = second.sum();
                unsigned scan = sum | second_sum << 16;
#pragma unroll
                for (int step = 1; step < 32; step *= 2) {
                    const unsigned other = __shfl_up_sync(~0u, scan, step);
                    if (lane >= step) scan += other;
                }
                leave(n, window, sum, scan & 0xffff);
                leave(n + 1, second, second_sum, scan >> 16);
                window = second.next(*(const uint2*)(enters + (n + 1) * STRIDE),
                                     *(const uint2*)(leaves + (n + 1) * STRIDE));
            }
            __syncwarp();
            const uint4 counts = shared.counts[warp][lane];
            const unsigned place = shared.place[warp][lane], rest = place >> 16;
            const unsigned each[LANE_BINS] = {counts.x & 0xffff, counts.y & 0xffff, counts.x >> 16,
                                              counts.y >> 16,    counts.z & 0xffff, counts.w & 0xffff,
                                              counts.z >> 16,    counts.w >> 16};
            unsigned found = place % 32 * LANE_BINS, below = 0;
#pragma unroll
            for (int i = 0; i < LANE_BINS; ++i) {
                below += each[i];
                found += below <= rest;
            }
            if (x < task.width) *out = (sample_t)found;
            out += task.out_pitch;
        }
        __syncthreads();  // columns are read by all
    }
}
