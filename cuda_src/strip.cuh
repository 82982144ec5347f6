// The source rows that a strip of the output taps, in shared memory: copied ahead (copy.cuh), and at
// a border patched, from the copy itself where it can be; else each sample is fetched by itself.
//
// Macros: THREADS (of a block), LEAD and NEEDED (samples of a copied row before the first tap and
// before the end of the last one).
#pragma once

#include "copy.cuh"
#include "pixel.cuh"

#define OUTSIDE (-0x7fffffff - 1)  // where a sample of a strip's row is that the border's value is

// What lies left of column 0 or right of the last one in a strip's copied row.
struct Edge {
    int left, right;  // the samples that lie inside: left <= s < right
    bool patches;     // whether a needed one does not

    __device__ __forceinline__ Edge(const Task& task, int first)
        : left(max(0, -first)), right(min(NEEDED, task.source_width * CHANNELS - first)),
          patches(left > LEAD || right < NEEDED)
    {
    }

    // Call use(s, bordered(s)) for this thread's samples s outside. Rows start with sample `first`
    // of the image's.
    template <typename Use>
    __device__ __forceinline__ void each(const Task& task, int first, Use use) const
    {
        const int begin = max(left, LEAD), inside = max(0, right - begin);
#pragma unroll 1
        for (int i = LEAD + threadIdx.x; i < NEEDED - inside; i += THREADS) {
            const int s = i < begin ? i : i + inside;
            use(s, bordered(task, first, s));
        }
    }

    // Where in the strip's row the border reads sample s, or OUTSIDE: its value.
    __device__ __forceinline__ static int bordered(const Task& task, int first, int s)
    {
        const int sample = first + s + (CHANNELS << 20);  // no negative division
        const int x = border_index(sample / CHANNELS - (1 << 20), task.source_width, task.border);
        return x < 0 ? OUTSIDE : x * CHANNELS + sample % CHANNELS - first;
    }
};

// What a strip walks down.
struct Walk {
    int first;             // sample of the image's rows that copied ones begin with, % 32 == 0
    int top, length;       // source rows: the first, and how many
    bool rows_inside;      // whether none of them lies outside
    int bytes;             // of a copy
    sample_t border_value;
    bool copied;           // else each sample is fetched by itself
};

__device__ __forceinline__ Walk walk_of(
    const Task& task, const Edge& edge, int first, int top, int length, bool copied)
{
    const bool rows_inside = top >= 0 && top + length <= task.source_height;
    const int bytes = (edge.right - edge.left) * (int)sizeof(sample_t) + 15 & ~15;
    return {first, top, length, rows_inside, bytes, (sample_t)task.border_value, copied};
}

// Bring up to COUNT rows, from row t of the walk on, to a half of `rows`.
template <int COUNT, int BYTES>
__device__ __forceinline__ void bring(
    Copies<COUNT, BYTES>& rows, const Task& task, const Edge& edge, const Walk& walk, int t, int half)
{
    auto source_row = [&](int i) {
        const int row = walk.top + t + i;
        return walk.rows_inside ? row : border_index(row, task.source_height, task.border);
    };
    const int count = max(0, min(COUNT, walk.length - t));
    if (walk.copied) {
        rows.start(half, count, edge.left * sizeof(sample_t), walk.bytes, [&](int i) {
            return task.source + source_row(i) * task.source_pitch + walk.first + edge.left;
        });
    } else {
#pragma unroll 1
        for (int i = 0; i < count; ++i) {
            const int row = source_row(i);
            const sample_t* from = task.source + row * task.source_pitch + walk.first;
            sample_t* to = (sample_t*)rows.data[half][i];
            for (int s = edge.left + threadIdx.x; s < edge.right; s += THREADS)
                to[s] = row < 0 ? walk.border_value : from[s];
            edge.each(task, walk.first, [&](int s, int at) {
                to[s] = row < 0 || at == OUTSIDE ? walk.border_value : from[at];
            });
        }
    }
}

// Patch what lies outside in COUNT copied rows, BYTES from each to the next one: rows side by side,
// since few of their samples do.
template <int COUNT, int BYTES>
__device__ __forceinline__ void patch(
    unsigned char (*rows)[BYTES], const Task& task, const Edge& edge, const Walk& walk)
{
    const int begin = max(edge.left, LEAD), inside = max(0, edge.right - begin);
#pragma unroll 1
    for (int n = threadIdx.x; n < COUNT * (NEEDED - LEAD - inside); n += THREADS) {
        const int i = LEAD + n / COUNT, s = i < begin ? i : i + inside;
        const int at = edge.bordered(task, walk.first, s);
        sample_t* row = (sample_t*)rows[n % COUNT];
        row[s] = at == OUTSIDE ? walk.border_value : row[at];
    }
}
