// cuda_src/ptx.cuh in plain C++.
#pragma once

inline float clamped(float value, float most)
{
    return value != value ? 0.0f : fminf(fmaxf(nearbyintf(value), 0.0f), most);
}
inline unsigned char to_uint8(float value) { return (unsigned char)clamped(value, 255.0f); }
inline unsigned short to_uint16(float value) { return (unsigned short)clamped(value, 65535.0f); }
inline float fast_root(float value) { return sqrtf(value); }
inline float fast_reciprocal(float value) { return 1.0f / value; }
inline float read_constant(const float* constant) { return *constant; }
