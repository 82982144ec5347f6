// Step 16, point: each sample by itself: curves on floats, tables on integers; to another type, too.
//
// A thread takes 16 bytes of a row and stores what they become in whole pieces, past the width too,
// where rows have room for it. Alpha is kept.
// Launch: a block of THREADS threads for as many pieces of a row, blocks in blockIdx.x row by row.
// Planned by variants/point.py. TO is the type of the result, as SAMPLE. `weights` are the curves
// (curve.cuh), one with KIND END behind the last, or, of integers, what each sample becomes. From
// and to floats, 1 is full scale; where one of both is double, `weights` are doubles. task.x0 is 0.
#include "pixel.cuh"

#define DOUBLE (SAMPLE == 3 || TO == 3)
#if DOUBLE
typedef double number_t;
#define WHITE (double)FULL_SCALE
#else
typedef float number_t;
#define WHITE FULL_SCALE
#endif

#include "curve.cuh"

#if TO == 0
typedef unsigned char out_t;
#elif TO == 1
typedef unsigned short out_t;
#elif TO == 2
typedef float out_t;
#else
typedef double out_t;
#endif

#define PIECE (16 / (int)sizeof(sample_t))
#define STORED (PIECE * (int)sizeof(out_t) < 16 ? PIECE * (int)sizeof(out_t) : 16)

struct __align__(16) In {
    sample_t v[PIECE];
};
struct __align__(STORED) Out {
    out_t v[STORED / sizeof(out_t)];
};

__device__ __forceinline__ out_t stored(number_t value)
{
#if SAMPLE == 3 && TO < 2
    constexpr double full = TO == 0 ? 255.0 : 65535.0;
    return (out_t)fmin(fmax(rint(value * full), 0.0), full);
#elif TO == 0
    return to_uint8(SAMPLE == 2 ? value * 255.0f : value);
#elif TO == 1
    return to_uint16(SAMPLE == 2 ? value * 65535.0f : value);
#else
    return value;
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS)
filter(const Task task, const float* __restrict__ weights)
{
    const number_t* numbers = (const number_t*)weights;
    const int first = (blockIdx.x % task.blocks_x * THREADS + threadIdx.x) * PIECE;
    const int y = blockIdx.x / task.blocks_x;
    if (first >= task.width * CHANNELS) return;
    const In in = *(const In*)(task.source + (y + task.y0) * task.source_pitch + first);
    out_t out[PIECE];
#pragma unroll
    for (int i = 0; i < PIECE; ++i) {
        const bool kept = ALPHA && (first + i) % CHANNELS == COLOURS;
#if SAMPLE >= 2
        out[i] = stored(kept ? in.v[i] : all_curved(in.v[i], numbers));
#else
        out[i] = kept ? (out_t)(TO >= 2 ? in.v[i] / WHITE : in.v[i])
                      : stored(numbers[in.v[i]]);
#endif
    }
    constexpr int EACH = STORED / sizeof(out_t);
    Out* to = (Out*)((out_t*)task.out + y * task.out_pitch + first);
#pragma unroll
    for (int n = 0; n < PIECE / EACH; ++n) {
        if (TO == 3 && first + n * EACH >= task.width * CHANNELS) break;  // 16 doubles have no room
        Out piece;
#pragma unroll
        for (int i = 0; i < EACH; ++i) piece.v[i] = out[n * EACH + i];
        to[n] = piece;
    }
}
