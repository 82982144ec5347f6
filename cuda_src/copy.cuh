// Rows copied to shared memory in the background, some rows ahead of the one at work.
//
// On sm_90 and later one lane starts a bulk copy of the whole row and an mbarrier tells when it
// has arrived; before that each lane copies its share with cp.async. Both are for one warp.
#pragma once

#include <cuda_pipeline.h>

#define BULK (__CUDA_ARCH__ >= 900)

// STAGES buffers of BYTES each, % 16 == 0, used in turn: stage t % STAGES for row t.
template <int STAGES, int BYTES>
struct Copies {
    alignas(16) unsigned char data[STAGES][BYTES];
#if BULK
    unsigned long long arrived[STAGES];
#endif

    // Before the first start(); ends in a warp-level sync.
    __device__ __forceinline__ void init()
    {
#if BULK
        if (threadIdx.x == 0) {
            for (int stage = 0; stage < STAGES; ++stage)
                asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(address(arrived + stage)));
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncwarp();
#endif
    }

    // Start the copy of `bytes` from global memory to `at` in a stage, all % 16 == 0. All lanes are
    // done with the stage.
    __device__ __forceinline__ void start(int stage, int at, const void* from, int bytes)
    {
#if BULK
        if (threadIdx.x == 0)
            asm volatile(
                "mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;\n"
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                " [%2], [%3], %1, [%0];"
                ::"r"(address(arrived + stage)), "r"(bytes), "r"(address(data[stage] + at)),
                "l"(from) : "memory");
#else
#pragma unroll
        for (int i = 0; i < BYTES; i += 512) {
            const int offset = 16 * threadIdx.x + i;
            if (offset < bytes)
                __pipeline_memcpy_async(data[stage] + at + offset,
                                        (const unsigned char*)from + offset, 16);
        }
#endif
    }

    // Close the group of row t, started or not. No-op with bulk copies.
    __device__ __forceinline__ void commit()
    {
#if !BULK
        __pipeline_commit();
#endif
    }

    // Wait for row t = round * STAGES + stage, when the rows up to t + AHEAD are committed.
    template <int AHEAD>
    __device__ __forceinline__ void wait(int stage, int round)
    {
#if BULK
        asm volatile(
            "{\n.reg .pred done;\n"
            "again_%=: mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
            "@!done bra again_%=;\n}"
            ::"r"(address(arrived + stage)), "r"(round & 1) : "memory");
#else
        __pipeline_wait_prior(AHEAD);
        __syncwarp();
#endif
    }

    // A stage was written to by this lane: later copies must not be overtaken.
    __device__ static __forceinline__ void patched()
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
