// Step 11, extreme: the least or the largest sample of rectangles, by doubling: a window of 2n from
// two of n.
//
// A warp owns a strip of 32 * OUTPUTS samples and walks down task.rows output rows. Rows are copied
// to shared memory some ahead (copy.cuh). Of each one
//   1. a lane reads the samples that its OUTPUTS neighbouring outputs tap;
//   2. across, it doubles the window until one more step, of less than its width, ends it. Samples
//      lie two to a register, and one instruction picks from two pairs;
//   3. down, it does the same with what came out some rows before. Up to four rows these are in
//      registers, and further back in a ring in shared memory, of which each lane has its own part.
// Bytes are kept in 16 bits each, those at even places in one register and those at odd ones in
// another, so a step of one byte is mostly a change of names.
// Windows past ROWS or COLUMNS: `filter` makes an image of smaller ones, with what the larger ones
// reach, and `join` doubles them: each pixel becomes the extreme of four.
// Macros besides pixel.cuh's: ROWS, COLUMNS (the window of filter), LEFT (its anchor's column),
// OUTPUTS (samples a lane), LARGEST (else the least), BLOCKS (resident warps a multiprocessor to
// compile for).
// Launch: filter: a block is one warp; task.blocks_x blocks side by side, then down, task.rows rows
// each. join: JOIN_THREADS threads of 16 bytes each, task.blocks_x blocks a row. Planned by
// variants/extreme.py, without weights. Needs rows that start on 128 bytes with 64 bytes of slack
// behind, and x0 % 32 == 0. ALPHA is 0.
#include "keys.cuh"

#define THREADS 32
#define STRIP (32 * OUTPUTS)                                // samples
#define ALIGN (32 / (int)sizeof(sample_t))                  // samples of a sector of memory
#define LEAD ((ALIGN - LEFT * CHANNELS % ALIGN) % ALIGN)    // samples copied before the first tap
#define NEEDED (LEAD + STRIP + (COLUMNS - 1) * CHANNELS)    // samples copied before the last tap
#define COPIED ((NEEDED * (int)sizeof(sample_t) + 15) / 16 * 16)  // bytes
#define GROUP 4                                             // rows copied together

#include "strip.cuh"

#define PIECE (16 / (int)sizeof(sample_t))                  // samples of 16 bytes
#define BEFORE (LEAD % PIECE)                               // samples read before the first tap
#define PIECES ((BEFORE + OUTPUTS + (COLUMNS - 1) * CHANNELS + PIECE - 1) / PIECE)  // a lane reads
#define IN_REGISTERS 4                                      // rows

constexpr int power_below(int n) { return n < 2 ? 1 : 2 * power_below(n / 2); }  // or n itself
constexpr int WIDTH = power_below(COLUMNS), HEIGHT = power_below(ROWS);

// Registers of a span of N samples. They hold samples (s, s + 2) of bytes, with s % 4 < 2, pairs of
// 16 bits, and one key of floats.
#define STREAMS (SAMPLE == 0 ? 2 : 1)
#define WORD (SAMPLE == 2 ? 1 : 4 / (int)sizeof(sample_t))  // samples of a word
template <int N>
struct Span {
    static constexpr int WORDS = N / WORD;
    Key v[WORDS][STREAMS];

    // The register that begins with sample s, known when compiled. One past the end is any.
    __device__ __forceinline__ Key from(int s) const
    {
        if (SAMPLE == 2) return v[min(s, WORDS - 1)][0];
        const int stream = s % STREAMS, half = s / STREAMS;
        const Key first = v[min(half / 2, WORDS - 1)][stream];
        if (half % 2 == 0) return first;
        return __byte_perm(first, v[min(half / 2 + 1, WORDS - 1)][stream], 0x5432);
    }
};

typedef Span<OUTPUTS> Outputs;

__device__ __forceinline__ Key picked(Key a, Key b)
{
#if SAMPLE == 2
    return LARGEST ? max(a, b) : min(a, b);
#else
    return LARGEST ? __vmaxu2(a, b) : __vminu2(a, b);
#endif
}

__device__ __forceinline__ Outputs picked(const Outputs& a, const Outputs& b)
{
    Outputs out;
#pragma unroll
    for (int i = 0; i < Outputs::WORDS; ++i)
#pragma unroll
        for (int stream = 0; stream < STREAMS; ++stream)
            out.v[i][stream] = picked(a.v[i][stream], b.v[i][stream]);
    return out;
}

// Samples to registers and back, word by word.
__device__ __forceinline__ void unpack(Key (&to)[STREAMS], unsigned word)
{
#if SAMPLE == 0
    to[0] = word & 0x00ff00ff;
    to[1] = __byte_perm(word, 0, 0x4341);
#elif SAMPLE == 1
    to[0] = word;
#else
    to[0] = key_of(__uint_as_float(word));
#endif
}

__device__ __forceinline__ unsigned packed(const Key (&from)[STREAMS])
{
#if SAMPLE == 0
    return __byte_perm(from[0], from[1], 0x6240);
#elif SAMPLE == 1
    return from[0];
#else
    return (unsigned)__float_as_int(value_of(from[0]));
#endif
}

struct Ring {
    uint4 v[OUTPUTS / PIECE][32];

    __device__ __forceinline__ void put(const Outputs& outputs)
    {
#pragma unroll
        for (int i = 0; i < OUTPUTS / PIECE; ++i) {
            unsigned word[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) word[j] = kept(outputs.v[4 * i + j]);
            v[i][threadIdx.x] = make_uint4(word[0], word[1], word[2], word[3]);
        }
    }

    __device__ __forceinline__ Outputs get() const
    {
        Outputs out;
#pragma unroll
        for (int i = 0; i < OUTPUTS / PIECE; ++i) {
            const uint4 word = v[i][threadIdx.x];
            keep(out.v[4 * i], word.x), keep(out.v[4 * i + 1], word.y);
            keep(out.v[4 * i + 2], word.z), keep(out.v[4 * i + 3], word.w);
        }
        return out;
    }

private:
    // As packed() and unpack(), but keys stay keys.
    __device__ __forceinline__ static unsigned kept(const Key (&from)[STREAMS])
    {
        return SAMPLE == 2 ? from[0] : packed(from);
    }
    __device__ __forceinline__ static void keep(Key (&to)[STREAMS], unsigned word)
    {
        if (SAMPLE == 2)
            to[0] = word;
        else
            unpack(to, word);
    }
};

// ---- across

// The extremes of SIDE samples from those of one each.
template <int SIDE, int N>
__device__ __forceinline__ Span<N> doubled(const Span<N>& line)
{
    if constexpr (SIDE == 1) {
        return line;
    } else {
        const Span<N> half = doubled<SIDE / 2>(line);
        Span<N> out;
#pragma unroll
        for (int i = 0; i < Span<N>::WORDS; ++i)
#pragma unroll
            for (int stream = 0; stream < STREAMS; ++stream)
                out.v[i][stream] = picked(half.v[i][stream],
                                          half.from(WORD * i + stream + SIDE / 2 * CHANNELS));
        return out;
    }
}

// The extremes of this lane's outputs in a row whose copy starts at `row`.
__device__ __forceinline__ Outputs across(const sample_t* row)
{
    const uint4* from = (const uint4*)(row + LEAD - BEFORE) + threadIdx.x * (OUTPUTS / PIECE);
    Span<PIECES * PIECE> line;
#pragma unroll
    for (int i = 0; i < PIECES; ++i) {
        const uint4 word = from[i];
        unpack(line.v[4 * i], word.x), unpack(line.v[4 * i + 1], word.y);
        unpack(line.v[4 * i + 2], word.z), unpack(line.v[4 * i + 3], word.w);
    }
    line = doubled<WIDTH>(line);
    Outputs out;
#pragma unroll
    for (int i = 0; i < Outputs::WORDS; ++i)
#pragma unroll
        for (int stream = 0; stream < STREAMS; ++stream) {
            const int s = BEFORE + WORD * i + stream;
            out.v[i][stream] = picked(line.from(s), line.from(s + (COLUMNS - WIDTH) * CHANNELS));
        }
    return out;
}

// ---- down

// Rows that came before, which step d of the doubling keeps: d of them.
template <int D, bool NEAR = (D <= IN_REGISTERS)>
struct Before {
    Outputs rows[D];

    __device__ __forceinline__ Outputs exchanged(const Outputs& row, Ring*)
    {
        const Outputs out = rows[D - 1];
#pragma unroll
        for (int i = D - 1; i > 0; --i) rows[i] = rows[i - 1];
        rows[0] = row;
        return out;
    }
};

template <int D>
struct Before<D, false> {
    int at;

    __device__ __forceinline__ Outputs exchanged(const Outputs& row, Ring* ring)
    {
        const Outputs out = ring[at].get();
        ring[at].put(row);
        at = at + 1 == D ? 0 : at + 1;
        return out;
    }
};

template <>
struct Before<0, true> {
    __device__ __forceinline__ Outputs exchanged(const Outputs& row, Ring*) { return row; }
};

constexpr int ring_rows(int d) { return d > IN_REGISTERS ? d : 0; }

// The doubling down to windows of SIDE rows; RINGS rows of the ring are its own.
template <int SIDE>
struct Down {
    static constexpr int RINGS = ring_rows(SIDE / 2) + Down<SIDE / 2>::RINGS;
    Down<SIDE / 2> half;
    Before<SIDE / 2> before;

    __device__ __forceinline__ Outputs operator()(const Outputs& row, Ring* ring)
    {
        const Outputs out = half(row, ring);
        return picked(out, before.exchanged(out, ring + Down<SIDE / 2>::RINGS));
    }
};

template <>
struct Down<1> {
    static constexpr int RINGS = 0;
    __device__ __forceinline__ Outputs operator()(const Outputs& row, Ring*) { return row; }
};

constexpr int RINGS = Down<HEIGHT>::RINGS, ALL_RINGS = RINGS + ring_rows(ROWS - HEIGHT);

struct Shared {
    Copies<GROUP, COPIED> rows;
    Ring ring[ALL_RINGS ? ALL_RINGS : 1];
};

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
    Down<HEIGHT> down = {};
    Before<ROWS - HEIGHT> before = {};
#pragma unroll 1
    for (int t0 = 0; t0 < steps; t0 += GROUP) {
        const int half = t0 / GROUP % 2;
        if (copied) shared.rows.wait(half, t0 / GROUP / 2);
        __syncwarp();
        if (copied && edge.patches) {
            patch<GROUP>(shared.rows.data[half], task, edge, walk);
            shared.rows.wrote();
            __syncwarp();
        }
#pragma unroll
        for (int u = 0; u < GROUP; ++u) {
            // Past the last row too: a way out of here would cost moves of all that is kept.
            const int t = t0 + u;
            const Outputs tall =
                down(across((const sample_t*)shared.rows.data[half][u]), shared.ring);
            const Outputs outputs = picked(tall, before.exchanged(tall, shared.ring + RINGS));
            if (t >= ROWS - 1 && t < steps && writes) {
#pragma unroll
                for (int i = 0; i < OUTPUTS / PIECE; ++i)
                    __stcs((uint4*)out + i, make_uint4(packed(outputs.v[4 * i]),
                                                       packed(outputs.v[4 * i + 1]),
                                                       packed(outputs.v[4 * i + 2]),
                                                       packed(outputs.v[4 * i + 3])));
            }
            out += task.out_pitch;
        }
        __syncwarp();  // this half is read by all
        copy(t0 + 2 * GROUP, half);
    }
}

// ---- windows joined with themselves

// The 16 bytes from sample s of a row on, which starts on 16 bytes.
__device__ __forceinline__ uint4 bytes_from(const sample_t* row, int s)
{
    const size_t at = s * sizeof(sample_t);
    const unsigned* from = (const unsigned*)row + at / 4;
    const int shift = at % 4 * 8;
    if (shift == 0) return make_uint4(from[0], from[1], from[2], from[3]);
    const unsigned v[5] = {from[0], from[1], from[2], from[3], from[4]};
    return make_uint4(__funnelshift_r(v[0], v[1], shift), __funnelshift_r(v[1], v[2], shift),
                      __funnelshift_r(v[2], v[3], shift), __funnelshift_r(v[3], v[4], shift));
}

__device__ __forceinline__ unsigned picked_word(unsigned a, unsigned b)
{
    Key first[STREAMS], second[STREAMS];
    unpack(first, a), unpack(second, b);
#pragma unroll
    for (int stream = 0; stream < STREAMS; ++stream)
        first[stream] = picked(first[stream], second[stream]);
    return packed(first);
}

__device__ __forceinline__ uint4 picked_piece(const uint4& a, const uint4& b)
{
    return make_uint4(picked_word(a.x, b.x), picked_word(a.y, b.y), picked_word(a.z, b.z),
                      picked_word(a.w, b.w));
}

// Each pixel with the one task.columns to the right and those task.rows below the two.
extern "C" __global__ void __launch_bounds__(JOIN_THREADS) join(const Task task)
{
    const int s = (blockIdx.x % task.blocks_x * JOIN_THREADS + threadIdx.x) * PIECE;
    const int y = blockIdx.x / task.blocks_x;
    if (s >= task.width * CHANNELS) return;

    const sample_t* upper = task.source + y * task.source_pitch;
    const sample_t* lower = upper + task.rows * task.source_pitch;
    const int right = s + task.columns * CHANNELS;
    uint4 out = *(const uint4*)(upper + s);
    if (task.columns) out = picked_piece(out, bytes_from(upper, right));
    if (task.rows) {
        out = picked_piece(out, *(const uint4*)(lower + s));
        if (task.columns) out = picked_piece(out, bytes_from(lower, right));
    }
    *(uint4*)(task.out + y * task.out_pitch + s) = out;
}
