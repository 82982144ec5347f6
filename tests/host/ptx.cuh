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
inline float fast_power_of_two(float exponent)
{
    return exponent < -126.0f ? 0.0f : exp2f(exponent);
}
inline float times_at_most(float value, float power)
{
    const float out = value * power;
    return std::isinf(out) && !std::isinf(value) ? copysignf(FLT_MAX, value) : out;
}
inline float read_constant(const float* constant) { return *constant; }

// Copies ahead are done at once.
inline void copy_ahead(void* to, const void* from) { std::memcpy(to, from, 16); }
inline void end_group() {}
inline void wait_for_older_groups() {}

inline unsigned to_halves(float first, float second)
{
    const _Float16 both[2] = {(_Float16)first, (_Float16)second};
    return std::bit_cast<unsigned>(both);
}
inline float low_half(unsigned halves) { return std::bit_cast<_Float16>((unsigned short)halves); }
inline float high_half(unsigned halves) { return low_half(halves >> 16); }

inline void multiply_add(
    float (&out)[4], const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4])
{
    static float all[32 * 32][12];  // each thread's halves of a and b
    const unsigned me = host::thread(), warp = me / 32 * 32, lane = me % 32;
    for (int i = 0; i < 6; ++i) {
        const unsigned pair = i < 4 ? a[i] : b[i - 4];
        all[me][2 * i] = low_half(pair);
        all[me][2 * i + 1] = high_half(pair);
    }
    host::barrier();
    for (int i = 0; i < 4; ++i) {
        out[i] = c[i];
        const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; ++k) {
            const float* of_a = all[warp + row % 8 * 4 + k % 8 / 2];
            const float* of_b = all[warp + column * 4 + k % 8 / 2];
            out[i] += of_a[2 * (row / 8 + k / 8 * 2) + k % 2] * of_b[8 + 2 * (k / 8) + k % 2];
        }
    }
    host::barrier();
}

inline unsigned transposed(unsigned pair)
{
    const unsigned me = host::thread(), warp = me / 32 * 32, lane = me % 32;
    host::exchange[me] = pair;
    host::barrier();
    unsigned out = 0;
    for (unsigned i = 0; i < 2; ++i) {
        const unsigned row = lane % 4 * 2 + i, column = lane / 4;
        out |= (host::exchange[warp + row * 4 + column / 2] >> 16 * (column % 2) & 0xFFFF) << 16 * i;
    }
    host::barrier();
    return out;
}

inline unsigned to_bytes(int first, int second, int third, int fourth)
{
    auto byte = [](int value) { return (unsigned)min(max(value, 0), 255); };
    return byte(first) | byte(second) << 8 | byte(third) << 16 | byte(fourth) << 24;
}
