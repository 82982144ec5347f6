// The few instructions that CUDA C has no plain word for.
#pragma once

// Round half to even and clamp to 0..255, in one conversion.
__device__ __forceinline__ unsigned char to_uint8(float value)
{
    unsigned sample;
    asm("cvt.rni.sat.u8.f32 %0, %1;" : "=r"(sample) : "f"(value));
    return (unsigned char)sample;
}

// The same to 0..65535.
__device__ __forceinline__ unsigned short to_uint16(float value)
{
    unsigned short sample;
    asm("cvt.rni.sat.u16.f32 %0, %1;" : "=h"(sample) : "f"(value));
    return sample;
}

// To within a unit in the last place, in a tenth of the instructions of the exact ones.
__device__ __forceinline__ float fast_root(float value)
{
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(value));
    return root;
}

__device__ __forceinline__ float fast_reciprocal(float value)
{
    float reciprocal;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(value));
    return reciprocal;
}

// Constant memory, read where this stands: a plain read is hoisted out of loops.
__device__ __forceinline__ float read_constant(const float* constant)
{
    float value;
    asm volatile("ld.const.f32 %0, [%1];"
                 : "=f"(value) : "l"(__cvta_generic_to_constant(constant)));
    return value;
}
