// One launch. Written by tools/make_task.py from variants/task.py: change it there.
#pragma once

struct Task {
    const sample_t* source;   // (source_height, source_width, CHANNELS), rows source_pitch apart
    sample_t* out;            // (height, width, CHANNELS), rows out_pitch apart
    float* scratch;           // of launches that need scratch_bytes
    long long source_pitch;   // samples
    long long out_pitch;      // samples
    int width;                // of the output, in pixels as all sizes
    int height;
    int source_width;
    int source_height;
    int x0;                   // where output pixel (0, 0) lies in the source
    int y0;
    int kernel_width;
    int kernel_height;
    int anchor_x;
    int anchor_y;
    int border;               // of pixel.cuh's enum
    int blocks_x;             // blocks side by side; blockIdx.x counts on through all rows
    int rows;                 // output pixels a block, down (stream, box, tensor), or a band (proof)
    int columns;              // output pixels a block, across (box)
    int edges_left;           // strips below this one are at the border (box)
    int edges_right;          // strips from this one on are at the border (box)
    float border_value;       // native units, as bias and threshold
    float gain;
    float source_gain;
    float bias;
    float threshold;
    float unit;               // of float32: see settle()
    float share;              // 1 / unit
    float most;               // before unit; what passes the largest float32 up to here becomes it
    float weight_sum[2];      // of each kernel
    int gaps;                 // whether weights of 0 lie among the taps (wide)
    int starts;               // sums that a block begins with (box)
    int piece;                // rows of each of these sums (box); length of the list (proof)
    int rank;                 // of the sample in its window, from 0 on (ranks)
};

static_assert(sizeof(Task) == 160, "as Python lays it out");
