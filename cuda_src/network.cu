// Step 12, network: any rank of squares of 3x3 to 11x11, by sorting networks that neighbours share.
//
// A block loads its tile with the halo into shared memory, one plane a channel. A thread finds RUN
// outputs of DOWN rows, and of bytes and 16 bits twice as many: a register holds two samples, of this
// half of the tile's rows and of the other one, and one instruction compares both pairs.
//   1. It sorts each column that it taps. Where it finds two rows it sorts what both have in common,
//      and inserts the one sample that only this row has.
//   2. Of four outputs the middle columns are in all windows, so it merges these once, and then with
//      the two more that each pair of outputs has.
//   3. Each output's window is such a set and one column more, and of two sorted sets any rank is a
//      maximum of minima.
// Samples that cannot be the answer any more, whatever the rest of the window holds, are left out of
// each merge, and the compiler drops the comparisons that only they needed.
// Macros besides pixel.cuh's: SIDE (odd), RANK (0 to SIDE^2 - 1), RUN (outputs a thread, a
// multiple of 4), DOWN (1 or 2), TILE_WIDTH (32 * RUN), TILE_HEIGHT (pixels of a block), WARPS, BLOCKS (resident
// warps a multiprocessor to compile for).
// Launch: 32 * WARPS threads, blocks in blockIdx.x row by row. Planned by variants/network.py, without
// weights. Needs rows that start on 16 bytes with 64 bytes of slack behind, and x0 % 32 == 0. ALPHA
// is 0.
#include "keys.cuh"

#define THREADS (32 * WARPS)
#define RADIUS (SIDE / 2)
#define TAPS (SIDE * SIDE)
#define HALVES (SAMPLE == 2 ? 1 : 2)                   // samples of a register
#define HALF_ROWS (TILE_HEIGHT / HALVES)
#define TIMES (HALF_ROWS / (DOWN * WARPS))             // that a thread finds outputs
#define PIECE (16 / (int)sizeof(sample_t))             // pixels that are loaded together
#define LEAD ((PIECE - RADIUS % PIECE) % PIECE)        // pixels loaded before the first tap
#define PIECES ((LEAD + TILE_WIDTH + 2 * RADIUS + PIECE - 1) / PIECE)  // of a row
#define LOADED (TILE_HEIGHT + 2 * RADIUS)              // rows
#define COLUMNS (RUN + 2 * RADIUS)                     // that a thread taps
static_assert(TILE_WIDTH == 32 * RUN && TIMES * DOWN * WARPS * HALVES == TILE_HEIGHT, "whole threads");

struct __align__(16) Tile {
    sample_t v[CHANNELS][LOADED][PIECES * PIECE];
};

// ---- networks

__device__ __forceinline__ Key lesser(Key a, Key b)
{
#if SAMPLE == 2
    return min(a, b);
#else
    return __vminu2(a, b);
#endif
}

__device__ __forceinline__ Key larger(Key a, Key b)
{
#if SAMPLE == 2
    return max(a, b);
#else
    return __vmaxu2(a, b);
#endif
}

__device__ __forceinline__ void exchange(Key& a, Key& b)
{
    const Key first = lesser(a, b);
    b = larger(a, b);
    a = first;
}

template <int N>
struct Sorted {
    Key v[N ? N : 1];
};

// Every second one of a set, from the first or the second on.
template <int FIRST, int N>
__device__ __forceinline__ Sorted<(N + 1 - FIRST) / 2> second_of(const Sorted<N>& from)
{
    Sorted<(N + 1 - FIRST) / 2> out;
#pragma unroll
    for (int i = 0; i < (N + 1 - FIRST) / 2; ++i) out.v[i] = from.v[2 * i + FIRST];
    return out;
}

// Batcher's merge, for sets of any two sizes.
template <int A, int B>
__device__ __forceinline__ Sorted<A + B> merged(const Sorted<A>& a, const Sorted<B>& b)
{
    if constexpr (A == 0) {
        return b;
    } else if constexpr (B == 0) {
        return a;
    } else if constexpr (A == 1 && B == 1) {
        return {lesser(a.v[0], b.v[0]), larger(a.v[0], b.v[0])};
    } else {
        Sorted<A + B> out;
        const auto even = merged(second_of<0>(a), second_of<0>(b));
        const auto odd = merged(second_of<1>(a), second_of<1>(b));
        constexpr int EVENS = (A + 1) / 2 + (B + 1) / 2, ODDS = A / 2 + B / 2;
        out.v[0] = even.v[0];
#pragma unroll
        for (int i = 0; i < ODDS; ++i) {
            Key next = odd.v[i];
            if (i + 1 < EVENS) {
                Key other = even.v[i + 1];
                exchange(next, other);
                out.v[2 * i + 2] = other;
            }
            out.v[2 * i + 1] = next;
        }
        if (EVENS == ODDS + 2) out.v[A + B - 1] = even.v[EVENS - 1];
        return out;
    }
}

template <int N>
__device__ __forceinline__ Sorted<N> sorted(const Key* keys)
{
    Sorted<N> out;
    if constexpr (N == 1)
        out.v[0] = keys[0];
    else
        out = merged(sorted<N / 2>(keys), sorted<N - N / 2>(keys + N / 2));
    return out;
}

// A column from what the rows of a thread have in common and the key that only one of them has.
template <int N>
__device__ __forceinline__ Sorted<SIDE> completed(const Sorted<N>& common, Key key)
{
    if constexpr (N == SIDE) {
        return common;
    } else {
        Sorted<SIDE> out;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            out.v[i] = common.v[i];
            exchange(out.v[i], key);
        }
        out.v[N] = key;
        return out;
    }
}

// Of COUNT columns, sorted together, those from FIRST to LAST may be the window's RANK: fewer than
// RANK + 1 are below them, and no more than the window has above it are above.
template <int COUNT>
struct Kept {
    static constexpr int SIZE = COUNT * SIDE, LEFT_OUT = SIZE - TAPS + RANK;
    static constexpr int FIRST = LEFT_OUT > 0 ? LEFT_OUT : 0;
    static constexpr int LAST = RANK < SIZE - 1 ? RANK : SIZE - 1;
    static constexpr int KEYS = SIZE == 0 ? 0 : LAST - FIRST + 1;
};

template <int COUNT>
struct Columns {
    Sorted<Kept<COUNT>::KEYS> set;
};

template <int A, int B>
__device__ __forceinline__ Columns<A + B> joined(const Columns<A>& a, const Columns<B>& b)
{
    if constexpr (A == 0) {
        return b;
    } else {
        const auto both = merged(a.set, b.set);
        constexpr int skip = Kept<A + B>::FIRST - Kept<A>::FIRST - Kept<B>::FIRST;
        Columns<A + B> out;
#pragma unroll
        for (int i = 0; i < Kept<A + B>::KEYS; ++i) out.set.v[i] = both.v[i + skip];
        return out;
    }
}

// COUNT columns from `at` on.
template <int COUNT>
__device__ __forceinline__ Columns<COUNT> joined(const Columns<1>* at)
{
    if constexpr (COUNT == 0)
        return {};
    else if constexpr (COUNT == 1)
        return at[0];
    else
        return joined(joined<COUNT / 2>(at), joined<COUNT - COUNT / 2>(at + COUNT / 2));
}

// The key of RANK of all columns but one and of that one: of the RANK + 1 least ones some are in
// either set, and the largest of these is least where they are shared out right.
__device__ __forceinline__ Key ranked(const Columns<SIDE - 1>& others, const Columns<1>& one)
{
    constexpr int A = Kept<SIDE - 1>::KEYS, B = Kept<1>::KEYS;
    constexpr int COUNT = RANK + 1 - Kept<SIDE - 1>::FIRST - Kept<1>::FIRST;
    Key out = ~0u;
#pragma unroll
    for (int i = COUNT > B ? COUNT - B : 0; i <= (COUNT < A ? COUNT : A); ++i) {
        const Key last = i == 0       ? one.set.v[COUNT - 1]
                         : i == COUNT ? others.set.v[i - 1]
                                      : larger(others.set.v[i - 1], one.set.v[COUNT - i - 1]);
        out = i == (COUNT > B ? COUNT - B : 0) ? last : lesser(out, last);
    }
    return out;
}

// ---- tiles

// Pixels of the block's tile, from (x, y) of the source on, to planes.
__device__ __forceinline__ void load(const Task& task, Tile& tile, int x, int y)
{
#pragma unroll 1
    for (int n = threadIdx.x; n < LOADED * PIECES; n += THREADS) {
        const int i = n / PIECES, column = n % PIECES * PIECE;
        const int row = border_index(y + i, task.source_height, task.border);
        const sample_t* from = task.source + row * task.source_pitch;
        if (row >= 0 && x + column >= 0 && x + column + PIECE <= task.source_width) {
            alignas(16) sample_t pixels[PIECE * CHANNELS];
            alignas(16) sample_t plane[CHANNELS][PIECE];
#pragma unroll
            for (int p = 0; p < CHANNELS; ++p)
                ((uint4*)pixels)[p] = ((const uint4*)(from + (x + column) * CHANNELS))[p];
#pragma unroll
            for (int s = 0; s < PIECE * CHANNELS; ++s) plane[s % CHANNELS][s / CHANNELS] = pixels[s];
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c)
                *(uint4*)&tile.v[c][i][column] = *(const uint4*)plane[c];
        } else {
#pragma unroll 1
            for (int p = 0; p < PIECE; ++p) {
                const int at = border_index(x + column + p, task.source_width, task.border);
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c)
                    tile.v[c][i][column + p] =
                        row < 0 || at < 0 ? (sample_t)task.border_value : from[at * CHANNELS + c];
            }
        }
    }
}

// The keys of the columns that this thread taps in row i, and in the other half of the tile.
__device__ __forceinline__ void read(
    const sample_t (&plane)[LOADED][PIECES * PIECE], int i, Key (&keys)[COLUMNS])
{
    constexpr int WORD = 4 / (int)sizeof(sample_t), BEFORE = LEAD % WORD;
    constexpr int WORDS = (BEFORE + COLUMNS + WORD - 1) / WORD;
    const int first = LEAD - BEFORE + threadIdx.x % 32 * RUN;
    unsigned word[HALVES][WORDS];
#pragma unroll
    for (int half = 0; half < HALVES; ++half)
#pragma unroll
        for (int w = 0; w < WORDS; ++w)
            word[half][w] = ((const unsigned*)&plane[i + half * HALF_ROWS][first])[w];
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
        const int w = (BEFORE + j) / WORD;
        [[maybe_unused]] const int s = (BEFORE + j) % WORD;
        // A byte is there twice: that orders as it does.
#if SAMPLE == 0
        keys[j] = __byte_perm(word[0][w], word[1][w], 0x4400 + 0x1111 * s);
#elif SAMPLE == 1
        keys[j] = __byte_perm(word[0][w], word[1][w], s ? 0x7632 : 0x5410);
#else
        keys[j] = key_of(__uint_as_float(word[0][w]));
#endif
    }
}

__device__ __forceinline__ sample_t sample_of(Key key, int half)
{
#if SAMPLE == 2
    return value_of(key);
#else
    return (sample_t)(key >> 16 * half);
#endif
}

#define OUT_BYTES (RUN * CHANNELS * (int)sizeof(sample_t))
struct __align__(OUT_BYTES % 16 == 0 ? 16 : OUT_BYTES % 8 == 0 ? 8 : 4) Outputs {
    sample_t v[RUN * CHANNELS];
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS / WARPS) filter(const Task task)
{
    __shared__ Tile tile;
    const int x = blockIdx.x % task.blocks_x * TILE_WIDTH, y = blockIdx.x / task.blocks_x * TILE_HEIGHT;
    load(task, tile, x + task.x0 - RADIUS - LEAD, y + task.y0 - RADIUS);
    __syncthreads();

    const int column = x + threadIdx.x % 32 * RUN;
    if (column >= task.width) return;
#pragma unroll 1
    for (int time = 0; time < TIMES; ++time) {
        const int first = DOWN * (threadIdx.x / 32 * TIMES + time);  // the upper row in its half
        Outputs out[DOWN][HALVES];
#pragma unroll 1
        for (int c = 0; c < CHANNELS; ++c) {
            constexpr int COMMON = SIDE + 1 - DOWN;
            Key keys[SIDE + DOWN - 1][COLUMNS];
#pragma unroll
            for (int i = 0; i < SIDE + DOWN - 1; ++i) read(tile.v[c], first + i, keys[i]);
            Sorted<COMMON> common[COLUMNS];
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                Key column[COMMON];
#pragma unroll
                for (int i = 0; i < COMMON; ++i) column[i] = keys[i + DOWN - 1][j];
                common[j] = sorted<COMMON>(column);
            }
#pragma unroll
            for (int row = 0; row < DOWN; ++row) {
                Columns<1> column[COLUMNS];
#pragma unroll
                for (int j = 0; j < COLUMNS; ++j) {
                    const auto all = completed(common[j], keys[row ? SIDE : 0][j]);
#pragma unroll
                    for (int i = 0; i < Kept<1>::KEYS; ++i)
                        column[j].set.v[i] = all.v[i + Kept<1>::FIRST];
                }
                Key found[RUN];
#pragma unroll
                for (int n = 0; n < RUN; n += 4) {
                    const Columns<1>* at = column + n;
                    const auto middle = joined<SIDE - 3>(at + 3);
                    const auto left = joined(middle, joined<2>(at + 1));
                    const auto right = joined(middle, joined<2>(at + SIDE));
                    found[n] = ranked(left, at[0]);
                    found[n + 1] = ranked(left, at[SIDE]);
                    found[n + 2] = ranked(right, at[2]);
                    found[n + 3] = ranked(right, at[SIDE + 2]);
                }
#pragma unroll
                for (int half = 0; half < HALVES; ++half)
#pragma unroll
                    for (int s = 0; s < RUN * CHANNELS; ++s)
                        if (s % CHANNELS == c)
                            out[row][half].v[s] = sample_of(found[s / CHANNELS], half);
            }
        }
#pragma unroll
        for (int row = 0; row < DOWN; ++row)
#pragma unroll
            for (int half = 0; half < HALVES; ++half) {
                const int down = y + first + row + half * HALF_ROWS;
                if (down < task.height)
                    *(Outputs*)(task.out + down * task.out_pitch + column * CHANNELS) =
                        out[row][half];
            }
    }
}
