// Step 7, wide: kernels of rank 1 with hundreds of taps, or on integers the sum of a few: a pass down
// and a pass across, whose scratch image stays in the L2 cache.
//
// stream.cu keeps one unfinished sum for each row of the kernel, so its registers end at about 128
// rows. Here a thread computes RUN outputs that follow each other along the taps, and each sample
// it reads serves all of them: RUN multiply-adds for a load, and as many registers for 61 taps as
// for 8191. The passes meet in a scratch image of floats that is turned by 90 degrees, so that in
// both of them lanes lie side by side across the taps, and all reads are whole lines.
//   columns: source -> scratch. A lane is a sample column; borders and premultiplication end here,
//            since the scratch image holds the halo to the left and right too.
//   rows:    scratch -> out. A lane is a row; each channel in turn.
// The image goes through in bands of BAND rows, so that the scratch image stays in the L2 cache.
// A dense kernel that is a sum of TERMS such products goes through in one: the first pass makes as
// many scratch images, and the second adds up what it finds in them.
// Launch, per band: columns, then rows; 256 threads: a warp has 32 lanes across and RUN outputs
// along the taps, the block's 8 warps follow each other along them. Blocks in blockIdx.x.
// Macros besides pixel.cuh's: WARPS of a block, RUN outputs of a thread, ALIGNMENT of weights, BAND,
// TERMS. Planned by variants/wide.py, which fills `weights`: of each term the column (kernel_height,
// zeros up to a multiple of ALIGNMENT), then the row (kernel_width). One kernel only.
#include "pixel.cuh"

#define BLOCK 256  // taps of a partial sum, a multiple of RUN
// Of the scratch image: a line for each sample of a row. No power of two, which would put all
// lines into the same sets of the caches.
#define PITCH (BAND + 32)

__align__(16) __constant__ float weights[16384];

__device__ __forceinline__ int padded(int taps) { return (taps + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

__device__ __forceinline__ const float* column_of(const Task& task, int term)
{
    return weights + term * (padded(task.kernel_height) + padded(task.kernel_width));
}

// The scratch image of a term. Threads read up to two runs past its halo, and use none of it.
__device__ __forceinline__ float* image_of(const Task& task, int term)
{
    const size_t lines = (size_t)(task.width + task.kernel_width - 1 + 3 * RUN) * CHANNELS;
    return task.scratch + term * lines * PITCH;
}

// sum[r] += weight[t] * in(t + r) for all `taps` t. tap(t, in) reads in(t) to in(t + RUN - 1); what
// lies past in(taps + RUN - 2) is read and not used, so it may be anything. All lanes walk together:
// the weights then come through uniform registers. `gaps` says that some of them are 0. Sums of BLOCK
// taps, and for uint16, which has no unit in the last place to spare, of RUN: rounding errors do not
// grow with a long chain.
template <typename Tap>
__device__ __forceinline__ void correlate(
    const float* weight, int taps, bool gaps, Tap tap, float (&sum)[RUN])
{
    float block[RUN] = {};
    for (int t = 0; t < taps + RUN - 1; t += RUN) {
        float in[RUN], part[RUN];
        tap(t, in);
#pragma unroll
        for (int r = 0; r < RUN; ++r) part[r] = SAMPLE == 1 ? 0.0f : block[r];
        // For any two of in and part there is a tap.
        if (!(SAMPLE == 2 && gaps) && t >= RUN && t + RUN <= taps) {
            float w[2 * RUN];  // w[RUN] is weight[t]
#pragma unroll
            for (int n = 0; n < 2 * RUN; n += 4) {
                const float4 four = *(const float4*)(weight + t - RUN + n);
                w[n] = four.x, w[n + 1] = four.y, w[n + 2] = four.z, w[n + 3] = four.w;
            }
#pragma unroll
            for (int u = 0; u < RUN; ++u)
#pragma unroll
                for (int r = 0; r < RUN; ++r) part[r] = fmaf(w[RUN + u - r], in[u], part[r]);
        } else {
#pragma unroll
            for (int d = 1 - RUN; d < RUN; ++d) {
                // No tap: not even zero times infinity.
                if (t + d < 0 || t + d >= taps || !is_tap(weight[t + d])) continue;
#pragma unroll
                for (int r = 0; r < RUN; ++r)
                    if (0 <= r + d && r + d < RUN) part[r] = fmaf(weight[t + d], in[r + d], part[r]);
            }
        }
#pragma unroll
        for (int r = 0; r < RUN; ++r) block[r] = SAMPLE == 1 ? block[r] + part[r] : part[r];
        if ((t + RUN) % BLOCK) continue;
#pragma unroll
        for (int r = 0; r < RUN; ++r) sum[r] += block[r], block[r] = 0.0f;
    }
#pragma unroll
    for (int r = 0; r < RUN; ++r) sum[r] += block[r];
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, SAMPLE == 1 ? 2 : 3) columns(const Task task)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int s = blockIdx.x % task.blocks_x * 32 + lane;  // sample of a row of the scratch image
    const int y = (blockIdx.x / task.blocks_x * WARPS + warp) * RUN;
    if (y >= task.height) return;  // the whole warp

    const int x = s / CHANNELS + task.x0 - task.anchor_x, c = s % CHANNELS;
    const int first = y + task.y0 - task.anchor_y;  // source row of tap 0 of the first output
    const int column = border_index(x, task.source_width, task.border);
    const sample_t* at = task.source + (size_t)max(column, 0) * CHANNELS;
    const float outside = outside_tap(task, c);
    auto tap = [&](int t, float (&in)[RUN]) {
        const int row = first + t;
        if (column >= 0 && row >= 0 && row + RUN <= task.source_height) {
            const sample_t* from = at + row * task.source_pitch;
#pragma unroll
            for (int u = 0; u < RUN; ++u) in[u] = tap_of(from + u * task.source_pitch, c);
            return;
        }
        for (int u = 0; u < RUN; ++u) {
            const int bordered = border_index(row + u, task.source_height, task.border);
            in[u] = column < 0 || bordered < 0 ? outside : tap_of(at + bordered * task.source_pitch, c);
        }
    };
#pragma unroll 1
    for (int term = 0; term < TERMS; ++term) {
        float sum[RUN] = {};
        correlate(column_of(task, term), task.kernel_height, task.gaps, tap, sum);

        if (s >= (task.width + task.kernel_width - 1) * CHANNELS) continue;
        float4* to = (float4*)(image_of(task, term) + (size_t)s * PITCH + y);
#pragma unroll
        for (int r = 0; r < RUN; r += 4)
            to[r / 4] = make_float4(sum[r], sum[r + 1], sum[r + 2], sum[r + 3]);
    }
}

extern "C" __global__ void __launch_bounds__(32 * WARPS, 2) rows(const Task task)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int blocks_x = (task.width + RUN * WARPS - 1) / (RUN * WARPS);
    const int x = (blockIdx.x % blocks_x * WARPS + warp) * RUN;
    const int y = blockIdx.x / blocks_x * 32 + lane;
    if (x >= task.width) return;  // the whole warp

    float sum[CHANNELS][RUN] = {};
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
#pragma unroll 1
        for (int term = 0; term < TERMS; ++term) {
            const float* from = image_of(task, term) + (size_t)(x * CHANNELS + c) * PITCH + y;
            auto tap = [&](int t, float (&in)[RUN]) {
                const float* at = from + (size_t)t * CHANNELS * PITCH;
#pragma unroll
                for (int u = 0; u < RUN; ++u) in[u] = at[u * CHANNELS * PITCH];
            };
            const float* row = column_of(task, term) + padded(task.kernel_height);
            correlate(row, task.kernel_width, task.gaps, tap, sum[c]);
        }
    if (y >= task.height) return;

    store_run(task, x, y, sum);
}
