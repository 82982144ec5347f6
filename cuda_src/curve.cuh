// The curves of point operations on floats: see operations/point.py.
#pragma once

// CURVE floats each, as variants/point.py lays them out.
enum { KIND, BLACK, BLACK_LOW, SCALE, POWER, SCALE_AFTER, AT, CURVE };
enum { END = -1, LEVELS_KIND = 0, THRESHOLD_KIND = 1 };  // KIND

#ifndef DOUBLE
typedef float number_t;
#endif

// value, of which 1 is white, after one curve. Black is the sum of two floats: near it, a difference
// from one would be too coarse for a power below 1. One scale is 1: the other overflows nowhere.
__device__ __forceinline__ number_t curved(number_t value, const number_t* curve)
{
    if (curve[KIND] == THRESHOLD_KIND) return value >= curve[AT] ? 1 : 0;
    const number_t share = ((value - curve[BLACK]) - curve[BLACK_LOW]) * curve[SCALE];
    const number_t power = curve[POWER];
    if (power == 1) return share;
    return copysign(pow(fabs(share), power) * curve[SCALE_AFTER], share);
}

__device__ __forceinline__ number_t all_curved(number_t value, const number_t* __restrict__ curves)
{
#pragma unroll 1
    for (; curves[KIND] != END; curves += CURVE) value = curved(value, curves);
    return value;
}
