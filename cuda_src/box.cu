// Step 6, box: equal weights on integers: running sums, in a time that hardly grows with the kernel.
//
// Column sums move down the image: each new row adds one source row and takes one away. Their
// prefix sums along the row turn any window into one difference. All sums are unsigned integers
// modulo 2^32, so they are exact wherever a window's own sum is below 2^32; no error builds up.
//   1. each lane updates the column sums of its SAMPLES neighbouring samples, 48 bytes of them;
//   2. it sums them up, and the warp (the block) scans these totals, channel by channel;
//   3. the prefix sums go to shared memory. Sample m of the output is prefix[m + right] -
//      prefix[m + left]; neighbouring lanes take neighbouring m.
// A strip whose halo sticks out of the image reads a copy of its rows with the border in place,
// which `edges` makes first: so all strips take the same time, whatever the border.
// The first column sums of a block are those of kernel_height - 1 rows. Where these are many,
// `starts` first sums up each task.piece rows, once for all blocks that need them, and a block adds
// task.starts of these sums and the rows that are left: so tall windows start nearly as fast.
// Compiled for WARPS, which share a strip (LENGTH samples, wide against the halo), NARROW: column
// sums fit 16 bits, and SMALL: window sums are below 2^23, so that floats hold them.
// Launch: edges, EDGE_THREADS threads a row of a strip at the border; starts, where task.starts, and filter,
// 32 * WARPS threads, task.columns output pixels across and task.rows down. Blocks in blockIdx.x
// row by row. In task.scratch: the copies by edges, then the sums by starts. Integers
// without alpha only. Planned by variants/box.py, which sets weights[0] to the weight that all taps
// have. Needs rows that start on 16 bytes.
#include "pixel.cuh"

#define ALIGNED (16 / (int)sizeof(sample_t))  // samples of an aligned read
#define SAMPLES (3 * ALIGNED)                 // a lane; a multiple of each number of channels
#define THREADS (32 * WARPS)
static_assert(LENGTH == THREADS * SAMPLES, "LENGTH is the samples of a strip, with its halo");

// Warps a multiprocessor. With the registers that 16 leave to each, these would spill.
#if (SAMPLE == 0 && !NARROW) || WARPS == 4 || (WARPS == 2 && __CUDA_ARCH__ < 900)
#define RESIDENT 12
#else
#define RESIDENT 16
#endif

__constant__ float weights[1];

// Where a prefix sum lies. Four words of padding put what eight lanes write into different banks.
__device__ __forceinline__ int at(int i) { return i + i / 96 * 4; }

struct Strip {
    int first;  // sample of the source row that it starts with, a multiple of ALIGNED
    int left;   // prefix[left] ends just before the window of its first output sample
};

__device__ __forceinline__ Strip strip_of(const Task& task, int index)
{
    const int tap = (task.x0 + index * task.columns - task.anchor_x - 1) * CHANNELS;
    const int first = tap & -ALIGNED;  // rounds down, below zero too
    return {first, tap - first};
}

extern "C" __global__ void __launch_bounds__(EDGE_THREADS) edges(const Task task)
{
    const int edge = blockIdx.x / task.source_height, y = blockIdx.x % task.source_height;
    const int index = edge < task.edges_left ? edge : task.edges_right + edge - task.edges_left;
    const int first = strip_of(task, index).first, end = task.source_width * CHANNELS;
    const sample_t* from = task.source + y * task.source_pitch;
    sample_t* to = (sample_t*)task.scratch + (size_t)blockIdx.x * LENGTH;
    for (int n = threadIdx.x * ALIGNED; n < LENGTH; n += EDGE_THREADS * ALIGNED) {
        const int s = first + n;
        if (s >= 0 && s + ALIGNED <= end) {
            *(uint4*)(to + n) = *(const uint4*)(from + s);
            continue;
        }
        for (int i = 0; i < ALIGNED; ++i) {
            const int x = (s + i + 2 * LENGTH * CHANNELS) / CHANNELS - 2 * LENGTH;  // rounds down
            const int bordered = border_index(x, task.source_width, task.border);
            to[n + i] = bordered < 0 ? (sample_t)task.border_value
                                     : from[bordered * CHANNELS + s + i - x * CHANNELS];
        }
    }
}

struct Row {
    uint4 pieces[3];

    __device__ __forceinline__ unsigned word(int n) const
    {
        const uint4& piece = pieces[n / 4];
        return n % 4 == 0 ? piece.x : n % 4 == 1 ? piece.y : n % 4 == 2 ? piece.z : piece.w;
    }
};

#if NARROW  // two column sums of 16 bits a register: neither overflows, so one addition serves both
#define SUMS (SAMPLES / 2)
__device__ __forceinline__ unsigned samples(const Row& row, int j)
{
    return __byte_perm(row.word(j / 2), 0, j % 2 ? 0x4342 : 0x4140);
}
// before + the column sum of sample n.
__device__ __forceinline__ unsigned plus(unsigned before, const unsigned (&column)[SUMS], int n)
{
    return __dp2a_lo(column[n / 2], n % 2 ? 0x0100u : 0x0001u, before);
}
#else
#define SUMS SAMPLES
__device__ __forceinline__ unsigned samples(const Row& row, int n)
{
#if SAMPLE == 0
    return __byte_perm(row.word(n / 4), 0, 0x4440 + n % 4);
#else
    return __byte_perm(row.word(n / 2), 0, n % 2 ? 0x4432 : 0x4410);
#endif
}
__device__ __forceinline__ unsigned plus(unsigned before, const unsigned (&column)[SUMS], int n)
{
    return before + column[n];
}
#endif

// What one lane reads of its strip: its SAMPLES samples of any row.
struct Rows {
    const sample_t* lane;
    long long pitch;
    int first;         // the source row that y counts from
    unsigned outside;  // the border value, in each sample of a word
    const Task& task;

    // Of strip `index`, from the first row on that output row y0 taps.
    __device__ __forceinline__ Rows(const Task& task, int index, int y0)
        : lane(task.source + strip_of(task, index).first), pitch(task.source_pitch),
          first(y0 + task.y0 - task.anchor_y),
          outside((unsigned)task.border_value * (SAMPLE == 0 ? 0x01010101u : 0x00010001u)),
          task(task)
    {
        if (index < task.edges_left || index >= task.edges_right) {
            const int edge =
                index < task.edges_left ? index : task.edges_left + index - task.edges_right;
            lane = (const sample_t*)task.scratch + (size_t)edge * task.source_height * LENGTH;
            pitch = LENGTH;
        }
        lane += threadIdx.x * SAMPLES;
    }

    __device__ __forceinline__ Row operator()(int y) const
    {
        y = border_index(first + y, task.source_height, task.border);
        Row out;
#pragma unroll
        for (int n = 0; n < 3; ++n)
            out.pieces[n] = y < 0 ? make_uint4(outside, outside, outside, outside)
                                  : ((const uint4*)(lane + y * pitch))[n];
        return out;
    }

    // Add the rows from y on up to `end` to the column sums.
    __device__ __forceinline__ void add(unsigned (&column)[SUMS], int y, int end) const
    {
#pragma unroll 4
        for (; y < end; ++y) {
            const Row in = (*this)(y);
#pragma unroll
            for (int n = 0; n < SUMS; ++n) column[n] += samples(in, n);
        }
    }
};

// Where this lane's sums of strip `index` and of one piece of rows lie: SUMS / 4 vectors, THREADS
// apart.
__device__ __forceinline__ uint4* sums_of(const Task& task, int index, int piece)
{
    const int edges = task.edges_left + task.blocks_x - task.edges_right;
    const size_t copies = (size_t)edges * task.source_height * LENGTH * sizeof(sample_t) / 16;
    return (uint4*)task.scratch + copies + threadIdx.x +
           ((size_t)piece * task.blocks_x + index) * (SUMS / 4) * THREADS;
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT / WARPS) starts(const Task task)
{
    const int index = blockIdx.x % task.blocks_x, piece = blockIdx.x / task.blocks_x;
    unsigned column[SUMS] = {};
    Rows(task, index, piece * task.piece).add(column, 0, task.piece);
    uint4* to = sums_of(task, index, piece);
#pragma unroll
    for (int n = 0; n < SUMS; n += 4)
        to[n / 4 * THREADS] = make_uint4(column[n], column[n + 1], column[n + 2], column[n + 3]);
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT / WARPS) filter(const Task task)
{
    __align__(16) __shared__ unsigned prefix[LENGTH + LENGTH / 96 * 4];
    __shared__ unsigned totals[WARPS][CHANNELS];  // of each warp

    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int index = blockIdx.x % task.blocks_x;
    const int y0 = blockIdx.x / task.blocks_x * task.rows;
    const int last = min(y0 + task.rows, task.height);
    const Strip strip = strip_of(task, index);
    const Rows row(task, index, y0);

    unsigned column[SUMS] = {};
#pragma unroll 1
    for (int i = 0; i < task.starts; ++i) {
        const uint4* from = sums_of(task, index, y0 / task.piece + i);
#pragma unroll
        for (int n = 0; n < SUMS; n += 4) {
            const uint4 four = from[n / 4 * THREADS];
            column[n] += four.x;
            column[n + 1] += four.y;
            column[n + 2] += four.z;
            column[n + 3] += four.w;
        }
    }
    row.add(column, task.starts * task.piece, task.kernel_height - 1);

    // Output sample m of the strip, m = begin + 96 * i + 32 * w: left[w] and right[w] are where
    // its two prefix sums lie for i = 0, and both lie 100 further for each i.
    const int begin = warp * 32 * SAMPLES + lane;
    const int count = (min((index + 1) * task.columns, task.width) - index * task.columns) * CHANNELS - begin;
    int left[3], right[3];
#pragma unroll
    for (int w = 0; w < 3; ++w) {
        left[w] = at(begin + 32 * w + strip.left);
        right[w] = at(begin + 32 * w + strip.left + task.kernel_width * CHANNELS);
    }
    const float scale = task.gain * weights[0];
    sample_t* to = task.out + y0 * task.out_pitch + (size_t)index * task.columns * CHANNELS + begin;

    Row in = row(task.kernel_height - 1), out = {};
    for (int y = y0; y < last; ++y, to += task.out_pitch) {
#pragma unroll
        for (int n = 0; n < SUMS; ++n) column[n] += samples(in, n) - samples(out, n);

        unsigned sum[SAMPLES], before[CHANNELS];
#pragma unroll
        for (int n = 0; n < SAMPLES; ++n)
            sum[n] = plus(n < CHANNELS ? 0 : sum[n - CHANNELS], column, n);
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            const unsigned mine = sum[SAMPLES - CHANNELS + c];
            unsigned scan = mine;
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const unsigned other = __shfl_up_sync(~0u, scan, step);
                if (lane >= step) scan += other;
            }
            if (WARPS > 1 && lane == 31) totals[warp][c] = scan;
            before[c] = scan - mine;
        }
        if (WARPS > 1) {
            __syncthreads();  // totals are written; prefix is read by all
            for (int w = 0; w < warp; ++w)
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c) before[c] += totals[w][c];
        } else {
            __syncwarp();
        }
#pragma unroll
        for (int n = 0; n < SAMPLES; n += 4)
            *(uint4*)(prefix + at(thread * SAMPLES) + n) = make_uint4(
                sum[n] + before[n % CHANNELS], sum[n + 1] + before[(n + 1) % CHANNELS],
                sum[n + 2] + before[(n + 2) % CHANNELS], sum[n + 3] + before[(n + 3) % CHANNELS]);
        in = row(min(y + 1, last - 1) - y0 + task.kernel_height - 1);  // on their way meanwhile
        out = row(y - y0);
        if (WARPS > 1)
            __syncthreads();  // prefix is written; totals are read by all
        else
            __syncwarp();

#pragma unroll
        for (int i = 0; i < 32 * SAMPLES / 96; ++i)
#pragma unroll
            for (int w = 0; w < 3; ++w) {
                const int m = 96 * i + 32 * w;
                if (m >= count) continue;
                const unsigned window = prefix[right[w] + 100 * i] - prefix[left[w] + 100 * i];
                const float value = SMALL ? __uint_as_float(window + 0x4b000000u) - 8388608.0f
                                          : (float)window;
                to[m] = to_sample(fmaf(scale, value, task.bias));
            }
    }
}
