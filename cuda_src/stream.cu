// Step 5, stream: warps walk down strips of the image and keep the sums of unfinished rows in
// registers; compiled for each kernel size.
//
// A warp owns a strip of 32 * OUTPUTS samples, each lane OUTPUTS neighbouring ones, and walks down
// task.rows output rows. For every source row it
//   1. has the raw samples in shared memory already: copies run a few rows ahead (copy.cuh);
//   2. converts (and premultiplies) them into a line of floats, each sample once;
//   3. reads from the line the taps of its outputs;
//   4. adds the row's share to the ROWS output rows that it is a tap of. Those sums live in
//      registers as a transposed FIR: sum[j] = sum[j + 1] + weight[ROWS - 1 - j] * row, so the
//      shift from row to row costs nothing, and sum[0] is complete.
// One warp-level sync a row, no block barrier, no intermediate image, each source byte read once
// (but for halos). Everything is unrolled: kernel size, channels and types are compile-time.
// A kernel of rank 1 adds one horizontal sum times its column; a dense one a horizontal sum for
// each of its rows. Channels are interleaved, so a horizontal tap is a stride of CHANNELS samples.
// Strips that touch a border copy what lies inside and patch the rest, from the copy itself where
// they can; only where they cannot is each sample fetched by itself (strip.cuh).
//
// Macros besides pixel.cuh's: RANK1, ROWS, COLUMNS (the kernel), LEFT (its anchor's column),
// OUTPUTS (samples a lane; whole pixels under ALPHA), SOURCE (whether finish() wants the source),
// SCALE (else gain is 1 and bias 0), MEAN (a result passes the samples by rounding errors only), TAPS
// (which weights are not 0), BLOCKS (resident warps a multiprocessor to compile for).
// Launch: a block is one warp; task.blocks_x blocks side by side, then down, task.rows rows each.
// Needs rows that start on 128 bytes with 64 bytes of slack behind, and x0 % 32 == 0.
// Planned by variants/stream.py, which fills `weights`: rank 1: for each kernel its column (ROWS),
// then its row (COLUMNS); dense: (KERNELS, ROWS, COLUMNS).
#include "pixel.cuh"

#define THREADS 32
#define STRIP (32 * OUTPUTS)                                // samples
#define SPAN (OUTPUTS + (COLUMNS - 1) * CHANNELS)           // samples that a lane's outputs tap
#define ALIGN (32 / (int)sizeof(sample_t))                  // samples of a sector of memory
#define LEAD ((ALIGN - LEFT * CHANNELS % ALIGN) % ALIGN)    // samples copied before the first tap
#define NEEDED (LEAD + STRIP + (COLUMNS - 1) * CHANNELS)    // samples copied before the last tap
#define COPIED ((NEEDED * (int)sizeof(sample_t) + 15) / 16 * 16)  // bytes
#define CONVERT (SAMPLE != 2 || ALPHA)                      // else the line is the copied row
#define GROUP 4                                             // rows copied together

#include "strip.cuh"

#define WEIGHTS (KERNELS * (RANK1 ? ROWS + COLUMNS : ROWS * COLUMNS))

__constant__ float weights[WEIGHTS];

// weights[i], i known when compiled. A plain read is hoisted out of the loop over rows by the
// compiler: all weights then sit in registers, or spill.
__device__ __forceinline__ float weight(int i) { return read_constant(weights + i); }

// Whether weights[i] is not 0: a tap. TAPS has a bit for each, up to 62; of more it says whether all
// are taps (-1) or each is to be looked at (0).
__device__ __forceinline__ bool counts(int i)
{
    return WEIGHTS > 62 ? TAPS != 0 || weight(i) != 0.0f : (long long)TAPS >> i % 62 & 1;
}

// A line is float4s, the quads of a row. Its first one holds the first tap, LEAD % 4 floats in.
#define LINE_QUADS ((NEEDED - LEAD / 4 * 4 + 3) / 4)

// Samples after all full rounds of quads, if they are few.
#define LEFT_OVER (NEEDED - LEAD / 4 * 4 - LINE_QUADS / 32 * 128)
#define REST (!ALPHA && LINE_QUADS % 32 && LEFT_OVER <= 32 ? LEFT_OVER : 0)

// Where quad q of a line lies. With EACH quads a lane, lanes would read every EACHth quad and meet
// in a few banks: quads of equal remainder lie side by side then, in parts whose distance also
// spreads the stores over the banks. A copied row lies as it is.
#define EACH (CONVERT && OUTPUTS % 8 == 0 ? OUTPUTS / 4 : 1)
#define PART_QUADS ((LINE_QUADS + EACH - 1) / EACH)
#define PART (PART_QUADS + (8 / EACH - PART_QUADS % 8 + 8) % 8)  // % 8 == 8 / EACH
__device__ __forceinline__ unsigned place(unsigned q)
{
    return EACH == 1 ? q : q % EACH * PART + q / EACH;
}

struct Shared {
    Copies<GROUP, COPIED> rows;
#if CONVERT
    float4 line[2][EACH == 1 ? LINE_QUADS : EACH * PART];
#endif
};

#define OUT_BYTES (OUTPUTS * sizeof(sample_t))
struct __align__(OUT_BYTES % 16 == 0 ? 16 : OUT_BYTES % 8 == 0 ? 8 : OUT_BYTES % 4 == 0 ? 4 : sizeof(sample_t))
Outputs {
    sample_t v[OUTPUTS];
};

struct __align__(4 * sizeof(sample_t)) Quad {
    sample_t v[4];
};

__device__ __forceinline__ float4 to_floats(const Quad& quad)
{
    // A sample in the low mantissa bits of 2^23 is 2^23 + sample: cheaper than a conversion.
    [[maybe_unused]] const float two23 = 8388608.0f;
#if SAMPLE == 0
    const unsigned word = *(const unsigned*)&quad;
    return {__uint_as_float(__byte_perm(word, 0x4B000000, 0x7440)) - two23,
            __uint_as_float(__byte_perm(word, 0x4B000000, 0x7441)) - two23,
            __uint_as_float(__byte_perm(word, 0x4B000000, 0x7442)) - two23,
            __uint_as_float(__byte_perm(word, 0x4B000000, 0x7443)) - two23};
#elif SAMPLE == 1
    const uint2 words = *(const uint2*)&quad;
    return {__uint_as_float(__byte_perm(words.x, 0x4B000000, 0x7410)) - two23,
            __uint_as_float(__byte_perm(words.x, 0x4B000000, 0x7432)) - two23,
            __uint_as_float(__byte_perm(words.y, 0x4B000000, 0x7410)) - two23,
            __uint_as_float(__byte_perm(words.y, 0x4B000000, 0x7432)) - two23};
#else
    return *(const float4*)&quad;
#endif
}

// A copied row, converted and premultiplied, each lane its share.
__device__ __forceinline__ void convert(const Quad* raw, float4* line)
{
#pragma unroll
    for (int i = 0; i < (REST ? LINE_QUADS / 32 : (LINE_QUADS + 31) / 32); ++i) {
        const unsigned q = threadIdx.x + 32 * i;
        if (32 * i + 32 > LINE_QUADS && q >= LINE_QUADS) break;
        float4 value = to_floats(raw[LEAD / 4 + q]);
#if ALPHA && CHANNELS == 4
        value.x *= value.w, value.y *= value.w, value.z *= value.w;
#elif ALPHA && CHANNELS == 2
        value.x *= value.y, value.z *= value.w;
#endif
        line[place(q)] = value;
    }
    if (REST && (int)threadIdx.x < REST) {  // a sample each costs less than another round of quads
        const unsigned s = LINE_QUADS / 32 * 128 + threadIdx.x;
        ((float*)&line[place(s / 4)])[s % 4] = (float)((const sample_t*)raw)[LEAD / 4 * 4 + s];
    }
}

// Read `line` from this lane's first tap on, and call use(p, value) for each tap p of its outputs,
// 0 <= p < SPAN; output n taps p where p - n is a multiple of CHANNELS.
template <typename Use>
__device__ __forceinline__ void each_tap(const float4* line, Use use)
{
    constexpr int lead = LEAD % 4;
#if OUTPUTS % 4 == 0
#pragma unroll
    for (int q = 0; q < (lead + SPAN + 3) / 4; ++q) {
        const float4 value = line[place(threadIdx.x * (OUTPUTS / 4) + q)];
        const float v[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
        for (int e = 0; e < 4; ++e)
            if (4 * q + e >= lead && 4 * q + e - lead < SPAN) use(4 * q + e - lead, v[e]);
    }
#elif OUTPUTS % 2 == 0
    const float2* from = (const float2*)line + threadIdx.x * (OUTPUTS / 2) + lead / 2;
#pragma unroll
    for (int q = 0; q < (lead % 2 + SPAN + 1) / 2; ++q) {
        const float2 value = from[q];
        if (2 * q >= lead % 2) use(2 * q - lead % 2, value.x);
        if (2 * q + 1 - lead % 2 < SPAN) use(2 * q + 1 - lead % 2, value.y);
    }
#else
    const float* from = (const float*)line + threadIdx.x * OUTPUTS + lead;
#pragma unroll
    for (int p = 0; p < SPAN; ++p) use(p, from[p]);
#endif
}

typedef float Sums[KERNELS][ROWS][OUTPUTS];

#if RANK1
__device__ __forceinline__ void accumulate(Sums& sum, const float4* line)
{
    float across[KERNELS][OUTPUTS] = {};
    each_tap(line, [&](int p, float value) {
#pragma unroll
        for (int k = 0; k < KERNELS; ++k)
#pragma unroll
            for (int n = 0; n < OUTPUTS; ++n)
                if (p >= n && (p - n) % CHANNELS == 0 && (p - n) / CHANNELS < COLUMNS) {
                    const int i = k * (ROWS + COLUMNS) + ROWS + (p - n) / CHANNELS;
                    if (counts(i)) across[k][n] = fmaf(weight(i), value, across[k][n]);
                }
    });
#pragma unroll
    for (int k = 0; k < KERNELS; ++k)
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            const int w = k * (ROWS + COLUMNS) + ROWS - 1 - i;
#pragma unroll
            for (int n = 0; n < OUTPUTS; ++n) {
                const float so_far = i + 1 < ROWS ? sum[k][(i + 1) % ROWS][n] : 0.0f;
                sum[k][i][n] = counts(w) ? fmaf(weight(w), across[k][n], so_far) : so_far;
            }
        }
}
#else
__device__ __forceinline__ void accumulate(Sums& sum, const float4* line)
{
    float span[SPAN];
    each_tap(line, [&](int p, float value) { span[p] = value; });
    // A sum a row: rounding errors then grow with the rows' length only, and with their number. For
    // the largest kernels it is faster too.
    constexpr bool by_row = ROWS * COLUMNS > 64;
#pragma unroll
    for (int k = 0; k < KERNELS; ++k)
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            float across[OUTPUTS];
#pragma unroll
            for (int n = 0; n < OUTPUTS; ++n)
                across[n] = by_row || i + 1 == ROWS ? 0.0f : sum[k][(i + 1) % ROWS][n];
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                const int w = (k * ROWS + ROWS - 1 - i) * COLUMNS + j;
#pragma unroll
                for (int n = 0; n < OUTPUTS; ++n)
                    if (counts(w)) across[n] = fmaf(weight(w), span[n + j * CHANNELS], across[n]);
            }
#pragma unroll
            for (int n = 0; n < OUTPUTS; ++n)
                sum[k][i][n] =
                    by_row && i + 1 < ROWS ? across[n] + sum[k][(i + 1) % ROWS][n] : across[n];
        }
}
#endif

// The finished sums to output samples.
__device__ __forceinline__ Outputs finish_outputs(
    const Task& task, const Sums& sum, const Outputs& source)
{
    Outputs out;
#if ALPHA
#pragma unroll
    for (int n = 0; n < OUTPUTS; n += CHANNELS) {
        Pixel pixels[KERNELS], own;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            own.v[c] = source.v[n + c];
#pragma unroll
            for (int k = 0; k < KERNELS; ++k) pixels[k].v[c] = sum[k][0][n + c];
        }
        finish_pixel(task, pixels, own, out.v + n);
    }
#else
#pragma unroll
    for (int n = 0; n < OUTPUTS; ++n) {
        float combined = sum[0][0][n];
#if KERNELS == 2
        combined = magnitude(combined, sum[1][0][n]);
#endif
        if (SOURCE)
            combined = finish(task, combined, source.v[n]);
        else {
            combined = SCALE ? fmaf(task.gain, combined, task.bias) : combined;
            combined = SAMPLE == 2 && MEAN ? times_at_most(combined, task.unit) : settle(task, combined);
        }
        out.v[n] = to_sample(combined);
    }
#endif
    return out;
}

// Results are not read again: as the first to leave the L2 cache they make room for rows that are.
// That takes 4 to 6 % off the time, but for small kernels on float32, where it adds 1 %.
#define STREAMED (SAMPLE < 2 || ROWS > 7)
__device__ __forceinline__ void store(Outputs* to, const Outputs& outputs)
{
    if constexpr (STREAMED && sizeof(Outputs) % 16 == 0) {
#pragma unroll
        for (int i = 0; i < (int)sizeof(Outputs) / 16; ++i)
            __stcs((uint4*)to + i, ((const uint4*)&outputs)[i]);
    } else if constexpr (STREAMED && sizeof(Outputs) == 8) {
        __stcs((uint2*)to, *(const uint2*)&outputs);
    } else {
        *to = outputs;
    }
}

extern "C" __global__ void __launch_bounds__(32, BLOCKS) filter(const Task task)
{
    __shared__ Shared shared;
    const int strip = blockIdx.x % task.blocks_x * STRIP;
    const int y0 = blockIdx.x / task.blocks_x * task.rows;
    const int steps = min(task.rows, task.height - y0) + ROWS - 1;  // source rows to go through
    const int top = y0 + task.y0 - task.anchor_y;                   // the first of them
    const int first = strip + (task.x0 - LEFT) * CHANNELS - LEAD;   // its first copied sample

    // Rows are copied, and patched, unless a border reads from elsewhere; then each sample is
    // fetched by itself.
    const Edge edge(task, first);
    bool copied = edge.left < edge.right &&
                  (task.border != CONSTANT || (top >= 0 && top + steps <= task.source_height));
    if (copied && edge.patches) {
        edge.each(task, first, [&](int, int at) {
            copied &= at == OUTSIDE || (at >= edge.left && at < edge.right);
        });
        copied = __all_sync(~0u, copied);
    }
    const Walk walk = walk_of(task, edge, first, top, steps, copied);
    auto copy = [&](int t, int half) { bring(shared.rows, task, edge, walk, t, half); };
    if (copied) shared.rows.init();
    copy(0, 0);
    copy(GROUP, 1);

    const int sample = strip + threadIdx.x * OUTPUTS;  // this lane's first output
    const bool writes = sample < task.width * CHANNELS;
    sample_t* out = task.out + (y0 - (ROWS - 1)) * task.out_pitch + sample;
    const sample_t* own = task.source + (y0 - (ROWS - 1) + task.y0) * task.source_pitch +
                          task.x0 * CHANNELS + sample;
    // Unrolled, rows have fixed addresses in their group; too much code for large kernels.
    constexpr int unroll = OUTPUTS * WEIGHTS <= (OUTPUTS == 16 ? 256 : 128) ? GROUP : 1;
    Sums sum = {};
#pragma unroll 1
    for (int t0 = 0; t0 < steps; t0 += GROUP) {
        const int half = t0 / GROUP % 2;
        if (copied) shared.rows.wait(half, t0 / GROUP / 2);
        __syncwarp();
#pragma unroll unroll
        for (int u = 0; u < GROUP; ++u) {
            const int t = t0 + u;
            if (t >= steps) break;
            const bool completes = t >= ROWS - 1 && writes;  // this source row, an output row
            Outputs source = {};
            if (SOURCE && completes) source = *(const Outputs*)own;

            sample_t* row = (sample_t*)shared.rows.data[half][u];
            if (copied && edge.patches) {
                edge.each(task, first, [&](int s, int at) {
                    row[s] = at == OUTSIDE ? walk.border_value : row[at];
                });
                shared.rows.wrote();
                __syncwarp();
            }
#if CONVERT
            float4* line = shared.line[u % 2];
            convert((const Quad*)row, line);
            __syncwarp();
#else
            const float4* line = (const float4*)row + LEAD / 4;
#endif
            accumulate(sum, line);
            if (completes) store((Outputs*)out, finish_outputs(task, sum, source));
            out += task.out_pitch;
            own += task.source_pitch;
        }
        __syncwarp();  // this half is read by all
        copy(t0 + 2 * GROUP, half);
    }
}
