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

// 2 to the power of `exponent`; 0 below the normal numbers.
__device__ __forceinline__ float fast_power_of_two(float exponent)
{
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
    return power;
}

// value * power, a power of two; the largest float in place of an infinity that only it makes.
__device__ __forceinline__ float times_at_most(float value, float power)
{
    return __fmul_rz(value, power);
}

// Constant memory, read where this stands: a plain read is hoisted out of loops.
__device__ __forceinline__ float read_constant(const float* constant)
{
    float value;
    asm volatile("ld.const.f32 %0, [%1];"
                 : "=f"(value) : "l"(__cvta_generic_to_constant(constant)));
    return value;
}

// Copy 16 bytes from global to shared memory, both aligned to it, with others of this thread's group.
__device__ __forceinline__ void copy_ahead(void* to, const void* from)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 ::"r"((unsigned)__cvta_generic_to_shared(to)), "l"(from) : "memory");
#else
    *(uint4*)to = *(const uint4*)from;
#endif
}

__device__ __forceinline__ void end_group()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// All of this thread's groups but the last one have arrived.
__device__ __forceinline__ void wait_for_older_groups()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
}

// Two floats, rounded to halves: the first one in the lower 16 bits.
__device__ __forceinline__ unsigned to_halves(float first, float second)
{
    unsigned halves;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(halves) : "f"(second), "f"(first));
#else
    asm("{\n.reg .b16 low, high;\n"
        "cvt.rn.f16.f32 low, %1;\ncvt.rn.f16.f32 high, %2;\nmov.b32 %0, {low, high};\n}"
        : "=r"(halves) : "f"(first), "f"(second));
#endif
    return halves;
}

__device__ __forceinline__ float low_half(unsigned halves)
{
    float value;
    asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.f32.f16 %0, low;\n}"
        : "=f"(value) : "r"(halves));
    return value;
}

__device__ __forceinline__ float high_half(unsigned halves)
{
    float value;
    asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %1;\ncvt.f32.f16 %0, high;\n}"
        : "=f"(value) : "r"(halves));
    return value;
}

// out = a * b + c by a warp: 16x16 halves times 16x8, in the fragments of PTX's mma.m16n8k16.
__device__ __forceinline__ void multiply_add(
    float (&out)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4])
{
#if __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
        " {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(out[0]), "=f"(out[1]), "=f"(out[2]), "=f"(out[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]),
          "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
#else
    const float* sum = c;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6},"
            " {%7, %8, %9, %10};"
            : "=f"(out[0]), "=f"(out[1]), "=f"(out[2]), "=f"(out[3])
            : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]),
              "f"(sum[0]), "f"(sum[1]), "f"(sum[2]), "f"(sum[3]));
        sum = out;
    }
#endif
}

// An 8x8 matrix of 16 bits each, transposed by a warp: lane l has two neighbours of row l / 4.
__device__ __forceinline__ unsigned transposed(unsigned pair)
{
    unsigned out;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
    return out;
}

// Four integers, clamped, as the bytes of a word.
__device__ __forceinline__ unsigned to_bytes(int first, int second, int third, int fourth)
{
    unsigned upper, word;
    asm("cvt.pack.sat.u8.s32.b32 %0, %1, %2, 0;" : "=r"(upper) : "r"(fourth), "r"(third));
    asm("cvt.pack.sat.u8.s32.b32 %0, %1, %2, %3;"
        : "=r"(word) : "r"(second), "r"(first), "r"(upper));
    return word;
}
