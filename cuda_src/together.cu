// Step 18, together: up to four correlations of 3x3 on floats, one after the other, in one launch.
//
// A warp walks down a strip of 128 samples, four a lane. Each row goes through all stages at once: a
// stage adds what the row gives to the two unfinished rows of its own result, which stay in registers,
// and hands on the one that is complete. Neighbours across come from other lanes. So nothing but the
// image and the result passes through memory. A strip reads HALO samples more on each side, and a
// walk STAGES rows, for what stages reach.
// What a stage reads outside the image is made of what the stage before it gave: of columns by
// exchange between lanes; of rows by adding a row's share twice, since the border repeats it.
// Launch: a block of one warp for task.rows rows of a strip; blocks_x strips. Planned by
// variants/together.py. For stage n, An and Bn are the taps of its kernels, a bit each, Bn 0 where it has
// one; MODEn is its border, SOURCEn whether it wants its source, CURVESn how many curves follow it.
// `weights` has EACH floats a stage. Under WRAP all stages have it. ALPHA is 0, task.x0 is 0.
#include "pixel.cuh"

#include "curve.cuh"

#define LANE 4
#define HALO ((CHANNELS * (STAGES + 1) + 3) / 4 * 4)
#define STRIP (32 * LANE)
#define AHEAD 4  // rows that are on their way

// Of a stage's numbers, as variants/together.py lays them out. Both kernels come first.
enum { GAIN = 18, SOURCE_GAIN, BIAS, SHRINK, UNIT, SHARE, MOST, OUTSIDE, CURVES_FROM };

__constant__ float weights[STAGES * EACH];

struct __align__(16) Row {
    float v[LANE];
};

struct Unfinished {
    Row next[2], second[2];  // of each kernel: what lacks one row of the source, and two
    Row before;              // the stage's source, one row up
};

// What is known of stage K.
template <int K>
struct Of {
    static constexpr int A[] = {A0, A1, A2, A3}, B[] = {B0, B1, B2, B3};
    static constexpr int MODES[] = {MODE0, MODE1, MODE2, MODE3};
    static constexpr int SOURCES[] = {SOURCE0, SOURCE1, SOURCE2, SOURCE3};
    static constexpr int COUNTS[] = {CURVES0, CURVES1, CURVES2, CURVES3};
    static constexpr int FIRST = A[K], SECOND = B[K], MODE = MODES[K], CURVES = COUNTS[K];
    static constexpr bool SOURCE = SOURCES[K];
};

struct Walk {
    int start;     // sample of the image where the strip begins; may lie before it
    int samples;   // of a row of the image
    bool inside;   // all of the strip lies in the image
};

__device__ __forceinline__ float of_lane(float value, int lane)
{
    return __shfl_sync(0xffffffffu, value, lane);
}

// sum += row LINE of the kernel at `from`, whose taps are MASK, on a row; around[0] is one pixel left.
template <int MASK, int LINE>
__device__ __forceinline__ void add_line(Row& sum, const float* from,
                                         const float (&around)[LANE + 2 * CHANNELS])
{
#pragma unroll
    for (int j = 0; j < 3; ++j)
        if (MASK >> (3 * LINE + j) & 1)
#pragma unroll
            for (int i = 0; i < LANE; ++i)
                sum.v[i] = fmaf(from[3 * LINE + j], around[i + j * CHANNELS], sum.v[i]);
}

// Where sample x of a row of `task`, which may lie outside, is read from; -1: the border value.
__device__ __forceinline__ int sample_index(const Task& task, int x, int mode)
{
    const int pixel = x >= 0 ? x / CHANNELS : -((CHANNELS - 1 - x) / CHANNELS);
    const int from = border_index(pixel, task.source_width, mode);
    return from < 0 ? -1 : from * CHANNELS + (x - pixel * CHANNELS);
}

// Columns outside the image, as the border of stage K makes them of those inside.
template <int K>
__device__ __forceinline__ void add_columns(const Task& task, const Walk& walk, Row& row)
{
    constexpr int MODE = Of<K>::MODE;
    if (walk.inside || MODE == WRAP) return;  // a stage before it came round, too
    const int first = walk.start + threadIdx.x * LANE;
    Row out = row;
#pragma unroll
    for (int i = 0; i < LANE; ++i) {
        const int x = first + i, from = sample_index(task, x, MODE);
        const int place = max(0, min(STRIP - 1, from - walk.start));
#pragma unroll
        for (int j = 0; j < LANE; ++j) {
            const float value = of_lane(row.v[j], place / LANE);
            if (from != x && place % LANE == j) out.v[i] = value;
        }
        if (from < 0) out.v[i] = weights[K * EACH + OUTSIDE];
    }
    row = out;
}

template <int K>
__device__ __forceinline__ Row finished(const Row (&sum)[2], const Row& source)
{
    const float* of = weights + K * EACH;
    Row out;
#pragma unroll
    for (int i = 0; i < LANE; ++i) {
        float value = Of<K>::SECOND ? magnitude(sum[0].v[i], sum[1].v[i]) : sum[0].v[i];
        value *= of[GAIN];
        if (Of<K>::SOURCE && of[SOURCE_GAIN] != 0.0f) value += of[SOURCE_GAIN] * source.v[i];
        value += of[BIAS];
        if (Of<K>::SOURCE && of[SHRINK] > 0.0f) {
            const float own = source.v[i] * of[SHARE], change = value - own;
            value = own + (change - fminf(fmaxf(change, -of[SHRINK]), of[SHRINK]));
        }
        value = enlarged(value, of[UNIT], of[MOST]);
#pragma unroll
        for (int n = 0; n < Of<K>::CURVES; ++n)
            value = curved(value, of + CURVES_FROM + n * CURVE);
        out.v[i] = value;
    }
    return out;
}

__device__ __forceinline__ void store(const Task& task, const Walk& walk, const Row& row, int y)
{
    const int place = threadIdx.x * LANE, x = walk.start + place;
    if (place < HALO || place >= STRIP - HALO || x >= walk.samples) return;
    float* to = task.out + y * task.out_pitch + x;
    if (x + LANE <= walk.samples) {
        *(Row*)to = row;
        return;
    }
    for (int i = 0; x + i < walk.samples; ++i) to[i] = row.v[i];
}

// Row y of the source of stage K to that stage and those behind it. Rows first to end - 1 of the
// last one's result are stored.
template <int K>
__device__ __forceinline__ void pass(const Task& task, const Walk& walk, Unfinished (&all)[STAGES],
                                     Row row, int y, int first, int end)
{
    constexpr int MODE = Of<K>::MODE;
    const int n = task.source_height;
    Unfinished& own = all[K];
    bool counts = true;
    if (MODE != WRAP && (y < 0 || y >= n)) {
        counts = MODE == CONSTANT;
#pragma unroll
        for (int i = 0; i < LANE; ++i) row.v[i] = MODE == CONSTANT ? weights[K * EACH + OUTSIDE] : 0.0f;
    }
    // Which row outside repeats this one: above the image, or below it, and how far from it.
    const bool near = MODE == EDGE || MODE == SYMMETRIC || (MODE == REFLECT && n == 1);
    const bool far = MODE == REFLECT && n > 1;

    float around[LANE + 2 * CHANNELS];
#pragma unroll
    for (int j = 0; j < CHANNELS; ++j) {
        around[j] = of_lane(row.v[LANE - CHANNELS + j], (threadIdx.x + 31) % 32);
        around[CHANNELS + LANE + j] = of_lane(row.v[j], (threadIdx.x + 1) % 32);
    }
#pragma unroll
    for (int i = 0; i < LANE; ++i) around[CHANNELS + i] = row.v[i];

    Row done[2];
#define EACH_KERNEL(N, MASK)                                                                     \
    {                                                                                            \
        const float* from = weights + K * EACH + 9 * N;                                          \
        done[N] = own.next[N], own.next[N] = own.second[N], own.second[N] = Row{};               \
        if (counts) {                                                                            \
            add_line<MASK, 2>(done[N], from, around);                                            \
            add_line<MASK, 1>(own.next[N], from, around);                                        \
            add_line<MASK, 0>(own.second[N], from, around);                                      \
            if (far && y == 1) add_line<MASK, 0>(done[N], from, around);                         \
            if (near && y == 0) add_line<MASK, 0>(own.next[N], from, around);                    \
            if (near && y == n - 1) add_line<MASK, 2>(own.next[N], from, around);                \
            if (far && y == n - 2) add_line<MASK, 2>(own.second[N], from, around);               \
        }                                                                                        \
    }
    EACH_KERNEL(0, Of<K>::FIRST)
    if (Of<K>::SECOND) EACH_KERNEL(1, Of<K>::SECOND)
#undef EACH_KERNEL
    Row out = finished<K>(done, own.before);
    own.before = row;
    if constexpr (K + 1 < STAGES) {
        add_columns<K + 1>(task, walk, out);
        pass<K + 1>(task, walk, all, out, y - 1, first, end);
    } else if (first <= y - 1 && y - 1 < end) {
        store(task, walk, out, y - 1 - task.y0);
    }
}

// Row y of the image, with its border; zeros where no stage looks.
__device__ __forceinline__ Row load(const Task& task, const Walk& walk, int y)
{
    constexpr int MODE = Of<0>::MODE;
    Row row = {};
    if (MODE == WRAP) y = border_index(y, task.source_height, MODE);
    if (y < 0 || y >= task.source_height) return row;
    const float* from = task.source + y * task.source_pitch;
    const int first = walk.start + threadIdx.x * LANE;
    if (walk.inside) return *(const Row*)(from + first);
#pragma unroll
    for (int i = 0; i < LANE; ++i) {
        const int x = sample_index(task, first + i, MODE);
        row.v[i] = x < 0 ? weights[OUTSIDE] : from[x];
    }
    return row;
}

extern "C" __global__ void __launch_bounds__(32)
filter(const Task task)
{
    Walk walk;
    walk.start = blockIdx.x % task.blocks_x * (STRIP - 2 * HALO) - HALO;
    walk.samples = task.source_width * CHANNELS;
    walk.inside = walk.start >= 0 && walk.start + STRIP <= walk.samples;
    const int first = blockIdx.x / task.blocks_x * task.rows + task.y0;
    const int end = min(first + task.rows, task.height + task.y0);

    Unfinished all[STAGES] = {};
    Row ahead[AHEAD];
    const int begin = first - STAGES, stop = end + STAGES;
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) ahead[i] = load(task, walk, begin + i);
    for (int y = begin; y < stop; y += AHEAD)
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const Row row = ahead[i];
            if (y + i + AHEAD < stop) ahead[i] = load(task, walk, y + i + AHEAD);
            pass<0>(task, walk, all, row, y + i, first, end);
        }
}
