// What ranks compare: keys, unsigned integers in the order of the samples they stand for.
//
// Floats go as integers of the same order, since minimum and maximum of floats drop NaN, and here it
// comes last. Integers are their own keys.
#pragma once

#include "pixel.cuh"

#if SAMPLE == 2
typedef unsigned Key;

__device__ __forceinline__ Key key_of(float value)
{
    if (value != value) return 0xffffffffu;
    const unsigned bits = __float_as_int(value);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

__device__ __forceinline__ float value_of(Key key)
{
    return __uint_as_float(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu));
}
#elif SAMPLE == 3
typedef unsigned long long Key;

__device__ __forceinline__ Key key_of(double value)
{
    const Key bits = __double_as_longlong(value);  // a chain on integers has no NaN
    return bits ^ (bits >> 63 ? ~0ull : 1ull << 63);
}

__device__ __forceinline__ double value_of(Key key)
{
    return __longlong_as_double(key ^ (key >> 63 ? 1ull << 63 : ~0ull));
}
#else
typedef unsigned Key;

__device__ __forceinline__ Key key_of(sample_t value) { return value; }
__device__ __forceinline__ sample_t value_of(Key key) { return (sample_t)key; }
#endif

#define KEY_BITS (8 * (int)sizeof(sample_t))
