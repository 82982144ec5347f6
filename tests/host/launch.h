// Runs the kernel `filter` that was included before, block by block.
#pragma once

namespace {

Task current;
const float* current_weights;

void one_thread()
{
#ifdef VANILLA
    filter(current, current_weights);
#else
    filter(current);
#endif
}

}  // namespace

extern "C" void launch(const Task* task, const float* values, size_t count, unsigned blocks,
                       unsigned x, unsigned y)
{
    current = *task;
    current_weights = values;
#ifndef VANILLA
    std::memcpy((void*)weights, values, count * sizeof(float));
#endif
    blockDim = {x, y, 1};
    host::fibres.resize(x * y);
    for (unsigned i = 0; i < x * y; ++i) host::fibres[i].index = {i % x, i / x, 0};
    for (blockIdx = {0, 0, 0}; blockIdx.x < blocks; ++blockIdx.x) host::run_block(one_thread);
}
