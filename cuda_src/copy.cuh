// Rows copied to shared memory in the background, a group of them ahead of the one at work.
//
// On sm_90 and later a lane starts the bulk copy of a whole row and an mbarrier tells when all rows
// of a group have arrived; before that all lanes copy their shares with cp.async. For one warp.
#pragma once

#include "ptx.cuh"

#define BULK (__CUDA_ARCH__ >= 900)

// Two groups of COUNT rows of BYTES each, % 16 == 0, used in turn.
template <int COUNT, int BYTES>
struct Copies {
    alignas(16) unsigned char data[2][COUNT][BYTES];
#if BULK
    unsigned long long arrived[2];
#endif

    // Before the first start(); ends in a warp-level sync.
    __device__ __forceinline__ void init()
    {
#if BULK
        if (threadIdx.x == 0) {
            for (int half = 0; half < 2; ++half)
                asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(address(arrived + half)));
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncwarp();
#endif
    }

    // Start the copies of `rows` rows, 0 to COUNT, of `bytes` each to `at` in their buffers, both
    // % 16 == 0; from(i) tells where row i is in global memory. All lanes are done with the half.
    template <typename From>
    __device__ __forceinline__ void start(int half, int rows, int at, int bytes, From from)
    {
#if BULK
        if (threadIdx.x == 0)
            asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;"
                         ::"r"(address(arrived + half)), "r"(rows * bytes) : "memory");
        if ((int)threadIdx.x < rows)
            asm volatile(
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                " [%0], [%1], %2, [%3];"
                ::"r"(address(data[half][threadIdx.x] + at)), "l"(from(threadIdx.x)), "r"(bytes),
                "r"(address(arrived + half)) : "memory");
#else
#pragma unroll 1
        for (int i = 0; i < rows; ++i) {
            const unsigned char* row = (const unsigned char*)from(i);
            for (int offset = 16 * threadIdx.x; offset < bytes; offset += 512)
                copy_ahead(data[half][i] + at + offset, row + offset);
        }
        end_group();
#endif
    }

    // Wait for the `use`th group in this half, 0, 1, ...; the other half's may be under way.
    __device__ __forceinline__ void wait(int half, int use)
    {
#if BULK
        asm volatile(
            "{\n.reg .pred done;\n"
            "again_%=: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
            "@!done bra again_%=;\n}"
            ::"r"(address(arrived + half)), "r"(use & 1) : "memory");
#else
        wait_for_older_groups();
        __syncwarp();
#endif
    }

    // This lane wrote to a buffer itself: later copies must not be overtaken.
    __device__ static __forceinline__ void wrote()
    {
#if BULK
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
    }

    __device__ static __forceinline__ unsigned address(const void* shared)
    {
        return (unsigned)__cvta_generic_to_shared(shared);
    }
};
