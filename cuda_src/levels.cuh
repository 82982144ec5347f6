// Samples as whole numbers, where full scale is 65535: what histograms and canny count in.
#pragma once

#include "pixel.cuh"

// Floats are clamped to 0..1 and rounded half to even, in double, where the product is exact. NaN
// has none: -1.
__device__ __forceinline__ int level_of(sample_t sample)
{
#if SAMPLE == 0
    return sample * 257;
#elif SAMPLE == 1
    return sample;
#else
    if (sample != sample) return -1;
    return (int)rint((double)fminf(fmaxf(sample, 0.0f), 1.0f) * 65535.0);
#endif
}
