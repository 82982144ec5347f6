// Step 19, canny: thin edges, in whole numbers: blur, gradient, its maxima, and what they touch.
//
// down() and across() blur with whole weights, down in all rows from one above the image to one below
// it, across in all columns likewise. mark() takes the maxima of the gradient: each is a tree of one,
// and strong ones are white already. merge() joins the trees of neighbours, whose root is their least
// sample. reach() makes the root of each strong one white, and filter() all whose root is. Roots only
// sink, so the result does not depend on the order of threads. operations/canny.py is the definition.
// Launch: blocks of THREADS threads for as many samples of a row, blocks in blockIdx.x row by row,
// task.blocks_x side by side. Planned by variants/canny.py. `weights` are both limits, each times
// 2^-20 and the rest, the radius, and the blur's weights, which sum to 2^16. The image is whole: x0 and
// y0 are 0. ALPHA is 2 where the last channel is alpha. There are fewer than 2^31 samples.
#include "levels.cuh"

enum { LOW, LOW_REST, HIGH, HIGH_REST, RADIUS, BLUR };

#define TANGENT 13573  // of 22.5 degrees, times 2^15

typedef unsigned short Level;
typedef unsigned long long Square;

struct Place {
    int x, y, c;
};

// The sample of this thread, in an image of so many columns.
__device__ __forceinline__ Place place_of(const Task& task)
{
    const int i = blockIdx.x % task.blocks_x * THREADS + threadIdx.x;
    return {i / COLOURS, (int)(blockIdx.x / task.blocks_x), i % COLOURS};
}

// Of what down() gives, rows -1..height and columns 0..width - 1, and across(), with one column more on
// each side: where they lie in the scratch memory, and the parents of all samples behind them.
__device__ __forceinline__ Level* blurred_down(const Task& task, int x, int y, int c)
{
    return (Level*)task.scratch + ((size_t)(y + 1) * task.width + x) * COLOURS + c;
}

__device__ __forceinline__ Level* blurred(const Task& task, int x, int y, int c)
{
    return blurred_down(task, 0, task.height + 1, 0) +
           ((size_t)(y + 1) * (task.width + 2) + x + 1) * COLOURS + c;
}

__device__ __forceinline__ volatile int* parents(const Task& task)
{
    const size_t end = (size_t)blurred(task, -1, task.height + 1, 0);
    return (volatile int*)((end + 15) / 16 * 16);
}

__device__ __forceinline__ int index_of(const Task& task, int x, int y, int c)
{
    return (y * task.width + x) * COLOURS + c;
}

__device__ __forceinline__ unsigned level_at(const Task& task, int x, int y, int c)
{
    x = border_index(x, task.source_width, task.border);
    y = border_index(y, task.source_height, task.border);
    const sample_t sample = x < 0 || y < 0 ? (sample_t)task.border_value
                                           : task.source[y * task.source_pitch + (size_t)x * CHANNELS + c];
    return (unsigned)max(0, level_of(sample));
}

extern "C" __global__ void __launch_bounds__(THREADS)
down(const Task task, const float* __restrict__ weights)
{
    const Place at = place_of(task);
    const int y = at.y - 1, radius = (int)weights[RADIUS];
    if (at.x >= task.width) return;
    unsigned sum = 1 << 15;
    for (int i = -radius; i <= radius; ++i)
        sum += (unsigned)weights[BLUR + radius + i] * level_at(task, at.x, y + i, at.c);
    *blurred_down(task, at.x, y, at.c) = (Level)(sum >> 16);
}

extern "C" __global__ void __launch_bounds__(THREADS)
across(const Task task, const float* __restrict__ weights)
{
    const Place at = place_of(task);
    const int x = at.x - 1, y = at.y - 1, radius = (int)weights[RADIUS];
    if (x > task.width) return;
    const unsigned outside = (unsigned)max(0, level_of((sample_t)task.border_value));
    unsigned sum = 1 << 15;
    for (int i = -radius; i <= radius; ++i) {
        const int from = border_index(x + i, task.width, task.border);
        sum += (unsigned)weights[BLUR + radius + i] *
               (from < 0 ? outside : *blurred_down(task, from, y, at.c));
    }
    *blurred(task, x, y, at.c) = (Level)(sum >> 16);
}

struct Gradient {
    int x, y;
};

__device__ __forceinline__ Gradient gradient_at(const Task& task, int x, int y, int c)
{
    int v[3][3];
#pragma unroll
    for (int i = 0; i < 3; ++i)
#pragma unroll
        for (int j = 0; j < 3; ++j) v[i][j] = *blurred(task, x + j - 1, y + i - 1, c);
    return {v[0][2] + 2 * v[1][2] + v[2][2] - v[0][0] - 2 * v[1][0] - v[2][0],
            v[2][0] + 2 * v[2][1] + v[2][2] - v[0][0] - 2 * v[0][1] - v[0][2]};
}

__device__ __forceinline__ Square square_of(Gradient gradient)
{
    return (Square)((long long)gradient.x * gradient.x + (long long)gradient.y * gradient.y);
}

__device__ __forceinline__ Square square_at(const Task& task, int x, int y, int c)
{
    if (x < 0 || y < 0 || x >= task.width || y >= task.height) return 0;
    return square_of(gradient_at(task, x, y, c));
}

__device__ __forceinline__ Square limit(const float* from)
{
    return ((Square)from[0] << 20) + (Square)from[1];
}

extern "C" __global__ void __launch_bounds__(THREADS)
mark(const Task task, const float* __restrict__ weights)
{
    const Place at = place_of(task);
    if (at.x >= task.width) return;
    const Gradient own = gradient_at(task, at.x, at.y, at.c);
    const Square size = square_of(own);
    bool edge = size >= limit(weights + LOW);
    if (edge) {
        const long long flat = own.x < 0 ? -own.x : own.x, steep = own.y < 0 ? -own.y : own.y;
        int j = (own.x > 0) == (own.y > 0) ? -1 : 1, i = -1;
        if (steep * 32768 < flat * TANGENT) i = 0, j = -1;
        else if (flat * 32768 < steep * TANGENT) j = 0;
        edge = size > square_at(task, at.x + j, at.y + i, at.c) &&
               size >= square_at(task, at.x - j, at.y - i, at.c);
    }
    const int index = index_of(task, at.x, at.y, at.c);
    parents(task)[index] = edge ? index : -1;
    sample_t* out = task.out + at.y * task.out_pitch + (size_t)at.x * CHANNELS;
    out[at.c] = edge && size >= limit(weights + HIGH) ? (sample_t)FULL_SCALE : (sample_t)0;
    if (ALPHA && at.c == 0)
        out[COLOURS] = task.source[at.y * task.source_pitch + (size_t)at.x * CHANNELS + COLOURS];
}

__device__ __forceinline__ int root_of(volatile int* parents, int index)
{
    for (int parent = parents[index]; parent != index; parent = parents[index]) index = parent;
    return index;
}

__device__ __forceinline__ void join(volatile int* parents, int a, int b)
{
    for (;;) {
        a = root_of(parents, a), b = root_of(parents, b);
        if (a == b) return;
        const int upper = min(a, b), lower = max(a, b);
        const int before = atomicMin((int*)parents + lower, upper);
        if (before == lower) return;
        a = upper, b = before;  // another thread has joined it meanwhile
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
merge(const Task task, const float* __restrict__ weights)
{
    const Place at = place_of(task);
    if (at.x >= task.width) return;
    volatile int* tree = parents(task);
    const int index = index_of(task, at.x, at.y, at.c);
    if (tree[index] < 0) return;
#pragma unroll
    for (int n = 0; n < 4; ++n) {  // the others look at this one
        const int x = at.x + (n < 3 ? n - 1 : -1), y = at.y - (n < 3);
        if (x < 0 || y < 0 || x >= task.width) continue;
        const int other = index_of(task, x, y, at.c);
        if (tree[other] >= 0) join(tree, index, other);
    }
}

__device__ __forceinline__ sample_t* out_of(const Task& task, int index)
{
    const int pixel = index / COLOURS, y = pixel / task.width;
    return task.out + y * task.out_pitch + (size_t)(pixel - y * task.width) * CHANNELS +
           index % COLOURS;
}

extern "C" __global__ void __launch_bounds__(THREADS)
reach(const Task task, const float* __restrict__ weights)
{
    const Place at = place_of(task);
    if (at.x >= task.width) return;
    const int index = index_of(task, at.x, at.y, at.c);
    if (*out_of(task, index) == (sample_t)0) return;
    *out_of(task, root_of(parents(task), index)) = (sample_t)FULL_SCALE;
}

extern "C" __global__ void __launch_bounds__(THREADS)
filter(const Task task, const float* __restrict__ weights)
{
    const Place at = place_of(task);
    if (at.x >= task.width) return;
    const int index = index_of(task, at.x, at.y, at.c);
    volatile int* tree = parents(task);
    if (tree[index] < 0 || tree[index] == index) return;  // roots and others are what they are
    *out_of(task, index) = *out_of(task, root_of(tree, index));
}
