// proof: the exact value of each sample in float64, beside the sample that a result has. For --check.
//
// It is no variant, and shares with them the task only: not the border's index, not load, not rounding.
// So no fault is in both. It does what the definition does (operations/correlation.py), operation by
// operation, in its order, and none of them fused. So values have the definition's bits; only hypot() is
// a root here, which `bound` covers.
// A sample is right if the value, less and more the bound, rounds to it. All others go to a list, up to
// task.piece of them; `listed` counts on. `right` counts pixels of which all samples are right.
// Launch: begin() by one block. Then band by band, each output row of it y0 rows down the source: down(),
// if FACTORED, leaves the sums of columns in the scratch memory, and compare() does the rest. A block of
// TILE_WIDTH x TILE_HEIGHT threads for as many pixels, blocks in blockIdx.x row by row. Planned by
// screen.py. `numbers` are doubles: gain, source gain, bias, threshold, bound, each of two weight sums, then
// of each kernel column and row if FACTORED, else weights (KERNELS, kernel_height, kernel_width).
// SAMPLE is 0 or 1; the other macros are those of pixel.cuh.
#if SAMPLE == 0
typedef unsigned char sample_t;
#define WHITE 255.0
#else
typedef unsigned short sample_t;
#define WHITE 65535.0
#endif

#include "task.cuh"

#define COLOURS (ALPHA ? CHANNELS - 1 : CHANNELS)
#define WEIGHTS_AT 7

struct Entry {
    unsigned long long index;  // in (height, width, CHANNELS), counted through
    double value;
    double got;
};

struct Found {
    unsigned long long listed;
    unsigned long long right;
};

__device__ Found* found_of(const Task& task) { return (Found*)task.scratch; }

__device__ Entry* list_of(const Task& task) { return (Entry*)(found_of(task) + 1); }

// The sums of columns, (KERNELS, task.rows, source_width + 1, CHANNELS); the last column is of what lies
// outside.
__device__ double* sums_of(const Task& task) { return (double*)(list_of(task) + task.piece); }

__device__ size_t sum_at(const Task& task, int k, int y, int x)
{
    return (((size_t)k * task.rows + y) * (task.source_width + 1) + x) * CHANNELS;
}

// Where a position of an axis of n samples is, or -1: outside. In numpy.pad's words, by number.
__device__ int placed(long long position, long long n, int border)
{
    if (position >= 0 && position < n) return (int)position;
    long long period, phase;
    switch (border) {
    case 0:  // edge
        return position < 0 ? 0 : (int)(n - 1);
    case 1:  // reflect
        if (n == 1) return 0;
        period = 2 * (n - 1);
        phase = (position % period + period) % period;
        return (int)(phase < period - phase ? phase : period - phase);
    case 2:  // symmetric
        period = 2 * n;
        phase = (position % period + period) % period;
        return (int)(phase < n ? phase : period - 1 - phase);
    case 3:  // wrap
        return (int)((position % n + n) % n);
    default:  // constant
        return -1;
    }
}

// The samples at a place as the definition sums them: of alpha, its share of white, and colours times it.
__device__ void read(const Task& task, int column, int row, double (&tap)[CHANNELS])
{
    const bool outside = column < 0 || row < 0;
    const sample_t* at =
        outside ? task.source : task.source + row * task.source_pitch + (long long)column * CHANNELS;
    for (int c = 0; c < CHANNELS; ++c) tap[c] = outside ? (double)task.border_value : (double)at[c];
#if ALPHA
    tap[COLOURS] = __ddiv_rn(tap[COLOURS], WHITE);
    for (int c = 0; c < COLOURS; ++c) tap[c] = __dmul_rn(tap[c], tap[COLOURS]);
#endif
}

__device__ double plus_product(double sum, double weight, double tap)
{
    return __dadd_rn(sum, __dmul_rn(weight, tap));
}

extern "C" __global__ void begin(const Task task, const float* __restrict__ numbers)
{
    if (threadIdx.x) return;
    found_of(task)->listed = 0;
    found_of(task)->right = 0;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
down(const Task task, const float* __restrict__ numbers)
{
    const int x = blockIdx.x % task.blocks_x * TILE_WIDTH + threadIdx.x;
    const int y = blockIdx.x / task.blocks_x * TILE_HEIGHT + threadIdx.y;
    if (x > task.source_width || y >= task.height) return;

    const double* weights = (const double*)numbers + WEIGHTS_AT;
    const int sides = task.kernel_height + task.kernel_width;
    double sum[KERNELS][CHANNELS] = {};
    for (int i = 0; i < task.kernel_height; ++i) {
        const long long position = (long long)y + task.y0 + i - task.anchor_y;
        double tap[CHANNELS];
        read(task, x < task.source_width ? x : -1, placed(position, task.source_height, task.border), tap);
        for (int k = 0; k < KERNELS; ++k)
            for (int c = 0; c < CHANNELS; ++c)
                sum[k][c] = plus_product(sum[k][c], weights[k * sides + i], tap[c]);
    }
    for (int k = 0; k < KERNELS; ++k)
        for (int c = 0; c < CHANNELS; ++c) sums_of(task)[sum_at(task, k, y, x) + c] = sum[k][c];
}

// The kernels' sums for pixel (x, y) of the output.
__device__ void sums_at(
    const Task& task, const double* weights, int x, int y, double (&sum)[KERNELS][CHANNELS])
{
#if FACTORED
    const int sides = task.kernel_height + task.kernel_width;
    for (int j = 0; j < task.kernel_width; ++j) {
        const int column =
            placed((long long)x + task.x0 + j - task.anchor_x, task.source_width, task.border);
        for (int k = 0; k < KERNELS; ++k) {
            const double weight = weights[k * sides + task.kernel_height + j];
            const double* of = sums_of(task) + sum_at(task, k, y, column < 0 ? task.source_width : column);
            for (int c = 0; c < CHANNELS; ++c) sum[k][c] = plus_product(sum[k][c], weight, of[c]);
        }
    }
#else
    for (int i = 0; i < task.kernel_height; ++i) {
        const int row =
            placed((long long)y + task.y0 + i - task.anchor_y, task.source_height, task.border);
        for (int j = 0; j < task.kernel_width; ++j) {
            const int column =
                placed((long long)x + task.x0 + j - task.anchor_x, task.source_width, task.border);
            double tap[CHANNELS];
            read(task, column, row, tap);
            for (int k = 0; k < KERNELS; ++k) {
                const double weight = weights[(k * task.kernel_height + i) * task.kernel_width + j];
                for (int c = 0; c < CHANNELS; ++c) sum[k][c] = plus_product(sum[k][c], weight, tap[c]);
            }
        }
    }
#endif
}

__device__ double combined(const double (&sum)[KERNELS][CHANNELS], int c)
{
#if KERNELS == 2
    return __dsqrt_rn(__dadd_rn(__dmul_rn(sum[0][c], sum[0][c]), __dmul_rn(sum[1][c], sum[1][c])));
#else
    return sum[0][c];
#endif
}

// gain * of + source_gain * source + bias, its change from the source shrunk.
__device__ double finished(const double* number, double of, double source)
{
    const double gain = number[0], source_gain = number[1], bias = number[2], threshold = number[3];
    const double share = source_gain != 0.0 ? __dmul_rn(source_gain, source) : 0.0;
    double out = __dadd_rn(__dadd_rn(__dmul_rn(gain, of), share), bias);
    if (threshold != 0.0) {
        const double change = __dsub_rn(out, source);
        const double size = fmax(__dsub_rn(fabs(change), threshold), 0.0);
        out = __dadd_rn(source, change < 0.0 ? -size : change > 0.0 ? size : 0.0);
    }
    return out;
}

// The exact values of pixel (x, y).
__device__ void values_at(
    const Task& task, const double* number, int x, int y, double (&value)[CHANNELS])
{
    double sum[KERNELS][CHANNELS] = {};
    sums_at(task, number + WEIGHTS_AT, x, y, sum);
    const sample_t* own =
        task.source + (y + task.y0) * task.source_pitch + (long long)(x + task.x0) * CHANNELS;
#if ALPHA == 1
    const double source_gain = number[1], bias = number[2];
    const double alpha = __ddiv_rn((double)own[COLOURS], WHITE);
    const double of_alpha = source_gain != 0.0 ? __dmul_rn(source_gain, alpha) : 0.0;
    const double below = __dadd_rn(__dmul_rn(number[0], combined(sum, COLOURS)), of_alpha);
    for (int c = 0; c < COLOURS; ++c) {
        const double of_colour =
            source_gain != 0.0 ? __dmul_rn(source_gain, __dmul_rn((double)own[c], alpha)) : 0.0;
        const double above = __dadd_rn(__dmul_rn(number[0], combined(sum, c)), of_colour);
        value[c] = below > 0.0 ? __dadd_rn(__ddiv_rn(above, below), bias) : 0.0;
    }
    value[COLOURS] = __dmul_rn(below, WHITE);
#else
#if ALPHA == 2
    for (int k = 0; k < KERNELS; ++k) {
        const double transparent = __dsub_rn(number[5 + k], sum[k][COLOURS]);
        for (int c = 0; c < COLOURS; ++c)
            sum[k][c] = __dadd_rn(sum[k][c], __dmul_rn((double)own[c], transparent));
    }
    value[COLOURS] = own[COLOURS];
#endif
    for (int c = 0; c < COLOURS; ++c) value[c] = finished(number, combined(sum, c), (double)own[c]);
#endif
}

// Half to even, and clamped.
__device__ double rounded(double value) { return fmin(fmax(rint(value), 0.0), WHITE); }

extern "C" __global__ void __launch_bounds__(THREADS, 2)
compare(const Task task, const float* __restrict__ numbers)
{
    const int x = blockIdx.x % task.blocks_x * TILE_WIDTH + threadIdx.x;
    const int y = blockIdx.x / task.blocks_x * TILE_HEIGHT + threadIdx.y;
    bool right = x < task.width && y < task.height;
    if (right) {
        const double* number = (const double*)numbers;
        const double bound = number[4];
        const sample_t* out = task.out + y * task.out_pitch + (long long)x * CHANNELS;
        const unsigned long long pixel = (unsigned long long)(y + task.y0) * task.width + x;
        double value[CHANNELS];
        values_at(task, number, x, y, value);
        for (int c = 0; c < CHANNELS; ++c) {
            const double got = out[c];
            if (rounded(__dsub_rn(value[c], bound)) == got && rounded(__dadd_rn(value[c], bound)) == got)
                continue;
            right = false;
            const unsigned long long n = atomicAdd(&found_of(task)->listed, 1ull);
            if (n < task.piece) list_of(task)[n] = {pixel * CHANNELS + c, value[c], got};
        }
    }
    const int count = __syncthreads_count(right);
    if (threadIdx.x == 0 && threadIdx.y == 0)
        atomicAdd(&found_of(task)->right, (unsigned long long)count);
}
