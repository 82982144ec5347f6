// LAUNCH(f) makes launch_f, which runs the kernel f that was included before, block by block.
#pragma once

namespace {

Task current;
const float* current_weights;

void run_grid(void (*one_thread)(), const Task* task, const float* values, size_t count,
              unsigned blocks, unsigned x, unsigned y)
{
    current = *task;
    current_weights = values;
#if !defined VANILLA && !defined NO_WEIGHTS
    std::memcpy((void*)weights, values, count * sizeof(float));
#endif
    blockDim = {x, y, 1};
    for (blockIdx = {0, 0, 0}; blockIdx.x < blocks; ++blockIdx.x)
        host::run_block(one_thread, x, y);
}

}  // namespace

#ifdef VANILLA
#define RUN_ONE(function) function(current, current_weights)
#else
#define RUN_ONE(function) function(current)
#endif

#define LAUNCH(function)                                                                         \
    static void one_##function() { RUN_ONE(function); }                                          \
    extern "C" void launch_##function(const Task* task, const float* values, size_t count,       \
                                      unsigned blocks, unsigned x, unsigned y)                   \
    {                                                                                            \
        run_grid(one_##function, task, values, count, blocks, x, y);                             \
    }
