// deflate: a picture's rows as parts of the zlib stream of a PNG. No variant: it compresses results.
//
// filter() writes the stream: each row behind the number of its row filter, of which it takes the one with
// the least sum of magnitudes, as formats/png_filters.py does. deflate() makes a deflate block of each PART
// bytes of it: matches where they save bits, a Huffman code of the part's own counts, or the bytes as they
// are where that is no longer. Each ends on a whole byte, so that they follow each other as they are.
// place() finds where, and gather() puts them there. Each part is told with its sums for Adler-32.
// Launch: blocks of THREADS threads; filter() one a row, deflate() and gather() one a part, place() one.
// Planned by deflate.py. The samples are bytes here: task.width of them a row, task.columns a pixel, and of
// 16 bits, task.gaps is 1: the low one comes first. Row task.y0 is the first; y0 is 1 where the source has the
// row above it. task.piece are the parts, task.rank is 1 where the last one ends the stream.
// Macros: PART, 64, 128 or 192 for each thread, less than 65536, and MATCH, about the bits of a match's symbols.
typedef unsigned char sample_t;
#include "task.cuh"

#define SHARE (PART / THREADS)  // bytes of a thread; longer matches than 257 have another kind of symbol
#define ROOM (PART + 64)        // bytes for a part, whatever becomes of it
#define LITERALS 286
#define DISTANCES 30
#define SYMBOLS (LITERALS + DISTANCES)
#define LENGTHS 19              // symbols that tell the lengths of the others
#define END 256
#define WINDOW 32768
#define UNIT 8                  // costs are in eighths of a bit
#define ADLER 65521u
#define SEEN 16                 // bytes that are looked for further back
#define PLACES 1024
#define SAMPLED 8               // of so many places one is looked at
#define PAYS (UNIT * 40)        // what a match far back takes, and more than chance finds

typedef unsigned char Byte;
typedef unsigned long long Long;

struct Part {
    unsigned bytes;  // of the block
    unsigned at;     // where it goes
    unsigned low;    // the sum of its bytes, modulo ADLER
    unsigned high;   // and of these sums from byte to byte
    unsigned lost;   // about the bits that repeats further back would save
};

__device__ __forceinline__ Part* parts_of(const Task& task) { return (Part*)task.scratch; }

// task.piece * ROOM bytes. The blocks come here at last.
__device__ __forceinline__ Byte* stream_of(const Task& task)
{
    return (Byte*)(parts_of(task) + task.piece);
}

__device__ __forceinline__ unsigned* block_of(const Task& task, int part)
{
    return (unsigned*)(stream_of(task) + ((size_t)task.piece + part) * ROOM);
}

__device__ __forceinline__ Long stream_bytes(const Task& task)
{
    return (Long)task.height * (task.width + 1);
}

// ---- row filters

// What each filter makes of x, with a to the left of it, b above, and c above to the left.
__device__ __forceinline__ void differences(int x, int a, int b, int c, int (&out)[5])
{
    const int to_a = abs(b - c), to_b = abs(a - c), to_c = abs(a + b - 2 * c);
    const int nearest = to_a <= to_b && to_a <= to_c ? a : to_b <= to_c ? b : c;
    out[0] = x & 255;
    out[1] = (x - a) & 255;
    out[2] = (x - b) & 255;
    out[3] = (x - ((a + b) >> 1)) & 255;
    out[4] = (x - nearest) & 255;
}

__device__ __forceinline__ void differences_at(const Task& task, int y, int i, int (&out)[5])
{
    const Byte* row = task.source + (y + task.y0) * task.source_pitch;
    const Byte* above = row - task.source_pitch;
    const int at = i ^ task.gaps, left = (i - task.columns) ^ task.gaps;
    const bool first = i < task.columns, top = y + task.y0 == 0;
    differences(
        row[at], first ? 0 : row[left], top ? 0 : above[at], first || top ? 0 : above[left], out);
}

extern "C" __global__ void __launch_bounds__(THREADS)
filter(const Task task)
{
    __shared__ Long sums[5];
    const int y = blockIdx.x;
    if (threadIdx.x < 5) sums[threadIdx.x] = 0;
    __syncthreads();
    unsigned sum[5] = {};
    int ways[5];
    for (int i = threadIdx.x; i < task.width; i += THREADS) {
        differences_at(task, y, i, ways);
#pragma unroll
        for (int k = 0; k < 5; ++k) sum[k] += min(ways[k], 256 - ways[k]);
    }
#pragma unroll
    for (int k = 0; k < 5; ++k) atomicAdd(&sums[k], (Long)sum[k]);
    __syncthreads();
    int best = 0;
#pragma unroll
    for (int k = 1; k < 5; ++k)
        if (sums[k] < sums[best]) best = k;
    Byte* out = stream_of(task) + (size_t)y * (task.width + 1);
    if (threadIdx.x == 0) out[0] = (Byte)best;
    for (int i = threadIdx.x; i < task.width; i += THREADS) {
        differences_at(task, y, i, ways);
        int way = ways[0];
#pragma unroll
        for (int k = 1; k < 5; ++k)
            if (k == best) way = ways[k];
        out[1 + i] = (Byte)way;
    }
}

// ---- matches

// The bytes of a part, in shared memory, and those before them. A word more between the shares of two threads:
// then all threads of a warp read another bank where each is as far as the others.
struct Bytes {
    const Byte* staged;
    const Byte* stream;  // where the part begins

    __device__ __forceinline__ int operator[](int i) const
    {
        return i < 0 ? stream[i] : staged[i + i / SHARE * 4];
    }
};

// A symbol, and the number that tells which of its lengths or distances: so many bits.
struct Symbol {
    int code, extra, bits;
};

// Of a length of 3 to SHARE: codes from END + 1 on.
__device__ __forceinline__ Symbol length_symbol(int length)
{
    const int over = length - 3, bits = over < 8 ? 0 : 29 - __clz(over);
    return {END + 1 + 4 * bits + (over >> bits), over & ((1 << bits) - 1), bits};
}

// Of a distance of 1 to WINDOW: codes from 0 on.
__device__ __forceinline__ Symbol distance_symbol(int distance)
{
    const int over = distance - 1, bits = over < 4 ? 0 : 30 - __clz(over);
    return {2 * bits + (over >> bits), over & ((1 << bits) - 1), bits};
}

// Eight times the logarithm of n > 0, nearly, in whole numbers: the same bits everywhere.
__device__ __forceinline__ int logarithm(unsigned n)
{
    const int whole = 31 - __clz(n);
    return UNIT * whole + (int)(((Long)n << 3 >> whole) & 7);
}

// The bytes from *at* to *end* as symbols: visit(symbol, extra, bits, distance). *before* are those of the
// stream before *data*, and *cost* tells what a byte takes.
template <typename Visit>
__device__ __forceinline__ void parse(
    const Task& task, Bytes data, Long before, int at, int end, const Byte* cost, Visit visit)
{
    const int back[3] = {1, task.columns, task.width + 1};
    while (at < end) {
        int longest = 0, distance = 0, saved = 0;
        for (int k = 0; k < 3; ++k) {
            const int from = back[k];
            if (from > WINDOW || from > before + at || (k && from == back[k - 1])) continue;
            int length = 0, spent = 0;
            for (; at + length < end; ++length) {
                const int byte = data[at + length];
                if (byte != data[at + length - from]) break;
                spent += cost[byte];
            }
            if (length < 3) continue;
            const int bits = length_symbol(length).bits + distance_symbol(from).bits;
            const int gain = spent - UNIT * (bits + MATCH);
            if (gain > saved) {
                saved = gain;
                longest = length;
                distance = from;
            }
        }
        if (longest) {
            const Symbol symbol = length_symbol(longest);
            visit(symbol.code, symbol.extra, symbol.bits, distance);
            at += longest;
        } else {
            visit(data[at++], 0, 0, 0);
        }
    }
}

// ---- repeats that parse() does not find

// visit(i) for about one of SAMPLED places whose last SEEN bytes are no repeats of a byte, pixel or row, with
// a number that equal bytes share. Which places these are depends on the bytes only.
template <typename Visit>
__device__ __forceinline__ void sample(
    const Task& task, Bytes data, Long before, int start, int end, Visit visit)
{
    const int back[3] = {1, task.columns, task.width + 1};
    int equal[3] = {};
    Long older = 0, newer = 0;
    for (int i = max(start - SEEN + 1, 0); i < end; ++i) {
        const int byte = data[i];
        older = older >> 8 | newer << 56;
        newer = newer >> 8 | (Long)byte << 56;
        bool repeats = false;
        for (int k = 0; k < 3; ++k) {
            equal[k] = back[k] <= before + i && data[i - back[k]] == byte ? equal[k] + 1 : 0;
            repeats |= equal[k] >= SEEN;
        }
        if (repeats || i < start || i < SEEN - 1) continue;
        const Long key = (older * 0x9E3779B97F4A7C15ull ^ newer) * 0xD6E8FEB86659FD93ull;
        if (key >> 32 & (SAMPLED - 1)) continue;
        visit(i, (int)(key >> 40 & (PLACES - 1)));
    }
}

// The eighths of bits of the SEEN bytes up to data[i] if they are those up to data[j] as well and a match pays.
__device__ __forceinline__ int repeated(Bytes data, int i, int j, const Byte* cost)
{
    int spent = 0;
    for (int k = 0; k < SEEN; ++k) {
        if (data[i - k] != data[j - k]) return 0;
        spent += cost[data[i - k]];
    }
    return spent < PAYS ? 0 : spent;
}

// ---- Huffman codes

// The lengths of the best prefix code for *n* > 1 counts, the least first: they take the counts' place.
// By Moffat and Katajainen, "In-place calculation of minimum-redundancy codes", 1995.
__device__ void best_lengths(int* a, int n)
{
    int root = 0, leaf = 0;
    for (int next = 0; next < n - 1; ++next) {  // a tree: where a node was is its parent
        int sum = 0;
        for (int child = 0; child < 2; ++child) {
            if (leaf >= n || (root < next && a[root] < a[leaf])) {
                sum += a[root];
                a[root++] = next;
            } else {
                sum += a[leaf++];
            }
        }
        a[next] = sum;
    }
    a[n - 2] = 0;  // depths of the nodes
    for (int next = n - 3; next >= 0; --next) a[next] = a[a[next]] + 1;
    int free = 1, depth = 0, next = n - 1;  // depths of the leaves
    root = n - 2;
    while (free > 0) {
        int used = 0;
        while (root >= 0 && a[root] == depth) {
            ++used;
            --root;
        }
        while (free > used) {
            a[next--] = depth;
            --free;
        }
        free = 2 * used;
        ++depth;
    }
}

struct Code {
    int ranked[LITERALS];
    short symbols[LITERALS];  // the rarest first
    Byte lengths[LITERALS];   // by symbol
    int of_length[16];
    int used;
};

// A prefix code for *n* symbols by their counts, of at most *most* bits: codes[i] is the code of symbol i, its
// first bit lowest, and its length from bit 16 on; 0 where it does not occur. By all threads of a block.
__device__ void make_code(unsigned* counts, int n, int most, unsigned* codes, Code& own)
{
    if (threadIdx.x == 0) {  // decoders want two symbols at least
        own.used = 0;
        for (int i = 0; i < n; ++i) own.used += counts[i] != 0;
        for (int i = 0; own.used < 2; ++i)
            if (!counts[i]) {
                counts[i] = 1;
                ++own.used;
            }
        for (int i = 0; i < 16; ++i) own.of_length[i] = 0;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += THREADS) {
        own.lengths[i] = 0;
        if (!counts[i]) continue;
        int rank = 0;
        for (int j = 0; j < n; ++j)
            rank += counts[j] && (counts[j] < counts[i] || (counts[j] == counts[i] && j < i));
        own.ranked[rank] = counts[i];
        own.symbols[rank] = (short)i;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        best_lengths(own.ranked, own.used);
        int room = 1 << most;
        for (int i = 0; i < own.used; ++i) {
            const int length = min(own.ranked[i], most);
            ++own.of_length[length];
            room -= 1 << (most - length);
        }
        while (room < 0) {  // of two of the longest one goes below a shorter one
            int length = most - 1;
            while (!own.of_length[length]) --length;
            --own.of_length[length];
            own.of_length[length + 1] += 2;
            --own.of_length[most];
            ++room;
        }
        for (int i = 0, length = most; length; --length)
            for (int k = 0; k < own.of_length[length]; ++k) own.lengths[own.symbols[i++]] = (Byte)length;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += THREADS) {
        const int length = own.lengths[i];
        unsigned code = 0;
        for (int k = 1; k < length; ++k) code = (code + own.of_length[k]) << 1;
        for (int j = 0; j < i; ++j) code += own.lengths[j] == length;
        codes[i] = length ? length << 16 | __brev(code) >> (32 - length) : 0;
    }
    __syncthreads();
}

// ---- bits

struct Writer {
    unsigned* words;
    Long held;
    int count;

    __device__ Writer(unsigned* words, unsigned at) : words(words + at / 32), held(0), count(at % 32) {}

    __device__ void put(unsigned value, int bits)
    {
        held |= (Long)value << count;
        count += bits;
        if (count >= 32) {
            atomicOr(words++, (unsigned)held);  // its first word may have bits of another thread
            held >>= 32;
            count -= 32;
        }
    }

    __device__ void put_code(unsigned code) { put(code & 0xFFFF, code >> 16); }

    __device__ void end()
    {
        if (count) atomicOr(words, (unsigned)held);
    }
};

// The lengths of both codes as symbols of LENGTHS, and how often each occurs.
struct Head {
    unsigned counts[LENGTHS], codes[LENGTHS];
    unsigned char symbols[SYMBOLS], extras[SYMBOLS];
    int used, literals, distances, lengths;
};

__device__ __constant__ const unsigned char length_order[LENGTHS] = {
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

__device__ __forceinline__ int extra_bits(int symbol)
{
    return symbol < 16 ? 0 : symbol == 16 ? 2 : symbol == 17 ? 3 : 7;
}

__device__ void make_head(const unsigned* codes, Head& head)
{
    head.literals = LITERALS;
    while (!codes[head.literals - 1]) --head.literals;
    head.distances = DISTANCES;
    while (!codes[LITERALS + head.distances - 1]) --head.distances;
    head.used = 0;
    for (int i = 0; i < LENGTHS; ++i) head.counts[i] = 0;
    const int all = head.literals + head.distances;
    auto length_at = [&](int i) {
        return (int)(codes[i < head.literals ? i : LITERALS + i - head.literals] >> 16);
    };
    for (int i = 0; i < all;) {
        const int length = length_at(i);
        int run = 1;
        while (i + run < all && length_at(i + run) == length) ++run;
        int symbol = length, extra = 0, took = 1;
        if (length == 0 && run >= 3) {
            took = min(run, 138);
            symbol = took < 11 ? 17 : 18;
            extra = took - (took < 11 ? 3 : 11);
        } else if (length && i && length_at(i - 1) == length && run >= 3) {
            took = min(run, 6);
            symbol = 16;
            extra = took - 3;
        }
        ++head.counts[symbol];
        head.symbols[head.used] = (unsigned char)symbol;
        head.extras[head.used++] = (unsigned char)extra;
        i += took;
    }
}

__device__ unsigned head_bits(Head& head)
{
    head.lengths = LENGTHS;
    while (head.lengths > 4 && !head.codes[length_order[head.lengths - 1]]) --head.lengths;
    unsigned bits = 3 + 14 + 3 * head.lengths;
    for (int i = 0; i < head.used; ++i)
        bits += (head.codes[head.symbols[i]] >> 16) + extra_bits(head.symbols[i]);
    return bits;
}

__device__ void write_head(const Head& head, bool last, Writer out)
{
    out.put(last | 2 << 1, 3);
    out.put(head.literals - 257, 5);
    out.put(head.distances - 1, 5);
    out.put(head.lengths - 4, 4);
    for (int i = 0; i < head.lengths; ++i) out.put(head.codes[length_order[i]] >> 16, 3);
    for (int i = 0; i < head.used; ++i) {
        out.put_code(head.codes[head.symbols[i]]);
        out.put(head.extras[i], extra_bits(head.symbols[i]));
    }
    out.end();
}

// ---- parts

// The sum of the values of the threads before this one; *all* has room for each, and the sum of all at its end.
__device__ unsigned sum_before(unsigned value, unsigned* all)
{
    const int me = threadIdx.x;
    all[me] = value;
    __syncthreads();
    for (int step = 1; step < THREADS; step *= 2) {
        const unsigned more = me >= step ? all[me - step] : 0;
        __syncthreads();
        all[me] += more;
        __syncthreads();
    }
    return all[me] - value;
}

extern "C" __global__ void __launch_bounds__(THREADS)
deflate(const Task task)
{
    __shared__ unsigned counts[SYMBOLS], codes[SYMBOLS], sums[THREADS];
    __shared__ Byte cost[256];
    __shared__ Long low, high, lost;
    __shared__ int places[PLACES];
    __shared__ unsigned staged[PART / 4 + THREADS];
    __shared__ Code code;
    __shared__ Head head;
    __shared__ unsigned before_data;
    const int me = threadIdx.x, part = blockIdx.x;
    const Long before = (Long)part * PART;
    const int size = (int)min((Long)PART, stream_bytes(task) - before);
    const Bytes data = {(const Byte*)staged, stream_of(task) + before};
    const int start = min(me * SHARE, size), end = min(start + SHARE, size);

    for (int i = me; i < SYMBOLS; i += THREADS) counts[i] = 0;
    for (int i = me; i < PLACES; i += THREADS) places[i] = PART;
    if (me == 0) low = high = lost = 0;
    for (int i = 4 * me; i < size; i += 4 * THREADS)
        staged[i / 4 + i / SHARE] = *(const unsigned*)(data.stream + i);
    __syncthreads();
    unsigned sum = 0, sums_of_sums = 0;  // of a share they fit
    for (int i = start; i < end; ++i) {
        const int byte = data[i];
        sum += byte;
        sums_of_sums += sum;
        atomicAdd(&counts[byte], 1u);
    }
    atomicAdd(&low, (Long)sum);
    atomicAdd(&high, sums_of_sums + (Long)(size - end) * sum);
    sample(task, data, before, start, end, [&](int i, int place) { atomicMin(&places[place], i); });
    __syncthreads();
    for (int i = me; i < 256; i += THREADS) {
        const int bits = counts[i] ? logarithm(size) - logarithm(counts[i]) : 0;
        cost[i] = (Byte)min(max(bits, UNIT), 15 * UNIT);
    }
    __syncthreads();
    for (int i = me; i < SYMBOLS; i += THREADS) counts[i] = 0;
    Long my_lost = 0;
    sample(task, data, before, start, end, [&](int i, int place) {
        if (places[place] < i) my_lost += repeated(data, i, places[place], cost);
    });
    atomicAdd(&lost, my_lost);
    __syncthreads();

    parse(task, data, before, start, end, cost, [&](int symbol, int, int, int distance) {
        atomicAdd(&counts[symbol], 1u);
        if (distance) atomicAdd(&counts[LITERALS + distance_symbol(distance).code], 1u);
    });
    if (me == 0) counts[END] = 1;
    __syncthreads();
    make_code(counts, LITERALS, 15, codes, code);
    make_code(counts + LITERALS, DISTANCES, 15, codes + LITERALS, code);
    if (me == 0) make_head(codes, head);
    __syncthreads();
    make_code(head.counts, LENGTHS, 7, head.codes, code);
    if (me == 0) before_data = head_bits(head);

    unsigned bits = 0;
    parse(task, data, before, start, end, cost, [&](int symbol, int, int more, int distance) {
        bits += (codes[symbol] >> 16) + more;
        if (distance) {
            const Symbol told = distance_symbol(distance);
            bits += (codes[LITERALS + told.code] >> 16) + told.bits;
        }
    });
    const unsigned at = sum_before(bits, sums) + before_data;
    const bool last = task.rank && part == task.piece - 1;
    const unsigned coded = before_data + sums[THREADS - 1] + (codes[END] >> 16);
    const unsigned needed = last ? (coded + 7) / 8 : (coded + 3 + 7) / 8 + 4;  // an empty stored block
    unsigned* words = block_of(task, part);
    Byte* bytes = (Byte*)words;
    const bool stored = needed >= (unsigned)size + 5;
    if (me == 0) {
        parts_of(task)[part] = {stored ? size + 5 : needed, 0, (unsigned)(low % ADLER),
                                (unsigned)(high % ADLER),
                                (unsigned)(lost * SAMPLED / SEEN / UNIT)};
    }
    if (stored) {
        const int head_of[5] = {last, size & 255, size >> 8, ~size & 255, ~size >> 8 & 255};
        if (me < 5) bytes[me] = (Byte)head_of[me];
        for (int i = me; i < size; i += THREADS) bytes[5 + i] = (Byte)data[i];
        return;
    }
    for (unsigned i = me; i < needed / 4 + 1; i += THREADS) words[i] = 0;
    __syncthreads();
    if (me == 0) write_head(head, last, Writer(words, 0));
    Writer out(words, at);
    parse(task, data, before, start, end, cost, [&](int symbol, int extra, int more, int distance) {
        out.put_code(codes[symbol]);
        if (distance) {
            out.put(extra, more);
            const Symbol told = distance_symbol(distance);
            out.put_code(codes[LITERALS + told.code]);
            out.put(told.extra, told.bits);
        }
    });
    if (me == THREADS - 1) out.put_code(codes[END]);
    out.end();
    __syncthreads();
    if (me < 2 && !last) bytes[needed - 1 - me] = 255;
}

extern "C" __global__ void __launch_bounds__(THREADS)
place(const Task task)
{
    __shared__ unsigned sums[THREADS];
    unsigned before = 0;
    for (int first = 0; first < task.piece; first += THREADS) {
        const int part = first + threadIdx.x;
        const unsigned bytes = part < task.piece ? parts_of(task)[part].bytes : 0;
        const unsigned at = before + sum_before(bytes, sums);
        if (part < task.piece) parts_of(task)[part].at = at;
        before += sums[THREADS - 1];
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
gather(const Task task)
{
    const Part part = parts_of(task)[blockIdx.x];
    const Byte* from = (const Byte*)block_of(task, blockIdx.x);
    Byte* to = stream_of(task) + part.at;
    for (unsigned i = threadIdx.x; i < part.bytes; i += THREADS) to[i] = from[i];
}
