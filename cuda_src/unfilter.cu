// unfilter: the pixels of a PNG from its inflated rows. No variant: it reads pictures.
//
// A byte needs the bytes to the left of it, above, and above to the left, whatever the filters are. So a warp
// has 32 rows, a lane each, and each lane is a pixel behind the one above it, which hands its pixel down. A
// warp waits for the last row of the warp above it, some pixels at a time. The last row's lane is 31 pixels
// behind, so that is two tiles of 32 pixels.
// Launch: begin() by one block, then filter() by blocks of one warp, a block for 32 rows. Blocks take their rows
// in the order in which they start, so a warp waits only for one that runs. Planned by unfilter.py. The
// samples are bytes here: task.source are rows of a number, which is the filter's, and task.width bytes, each
// right behind the last one; task.columns are the bytes of a pixel, 8 at most. Of 16 bits, task.gaps is 1: the
// low byte goes first.
typedef unsigned char sample_t;
#include "task.cuh"

#define LANES 32
#define MOST 8    // bytes of a pixel
#define AHEAD 16  // loads
#define PITCH (LANES * MOST + 4)  // a word more than the pixels: lanes meet other banks

typedef unsigned char Byte;

struct Progress {
    int started;        // blocks
    int pixels[1];      // of the last row of each 32, that are there
};

__device__ __forceinline__ Progress* progress_of(const Task& task) { return (Progress*)task.scratch; }

extern "C" __global__ void begin(const Task task)
{
    for (int i = threadIdx.x; i < 1 + task.piece; i += blockDim.x) ((int*)task.scratch)[i] = 0;
}

__device__ __forceinline__ int predicted(int filter, int a, int b, int c)
{
    if (filter == 1) return a;
    if (filter == 2) return b;
    if (filter == 3) return (a + b) >> 1;
    if (filter != 4) return 0;
    const int to_a = abs(b - c), to_b = abs(a - c), to_c = abs(a + b - 2 * c);
    return to_a <= to_b && to_a <= to_c ? a : to_b <= to_c ? b : c;
}

__device__ __forceinline__ int byte_of(const unsigned (&pixel)[2], int i)
{
    return (i < 4 ? pixel[0] : pixel[1]) >> i % 4 * 8 & 255;
}

extern "C" __global__ void __launch_bounds__(LANES)
filter(const Task task)
{
    __shared__ int mine;
    __shared__ Byte tile[LANES * PITCH], above[PITCH];
    const int lane = threadIdx.x, size = task.columns, width = task.width / size;
    if (lane == 0) mine = atomicAdd(&progress_of(task)->started, 1);
    __syncwarp();
    const int warp = mine, top = warp * LANES, rows = min(LANES, task.height - top);
    const size_t row_bytes = (size_t)task.width + 1;
    const Byte* source = task.source + top * row_bytes;
    Byte* out = task.out + top * task.out_pitch;
    const volatile Byte* last = (const volatile Byte*)(out - task.out_pitch);  // of the warp above
    const int way = lane < rows ? source[lane * row_bytes] : 0;

    unsigned left[2] = {}, up[2] = {}, corner[2] = {};  // 0 until a lane has begun
    for (int first = 0; first < width + LANES - 1; first += LANES) {
        // Of row r the pixels from first - r on. Several loads are under way at a time.
        for (int i = lane; i < LANES * size; i += LANES)
            for (int r = 0; r < LANES; r += AHEAD) {
                Byte got[AHEAD];
#pragma unroll
                for (int k = 0; k < AHEAD; ++k) {
                    const int at = (first - r - k) * size + i;
                    const bool there = r + k < rows && at >= 0 && at < task.width;
                    got[k] = there ? source[(r + k) * row_bytes + 1 + at] : 0;
                }
#pragma unroll
                for (int k = 0; k < AHEAD; ++k) tile[(r + k) * PITCH + i] = got[k];
            }
        if (warp && first < width) {
            const int needed = min(first + LANES, width);
            if (lane == 0)
                while (((volatile int*)progress_of(task)->pixels)[warp - 1] < needed) {}
            __syncwarp();
            __threadfence();
            for (int i = lane; i < (needed - first) * size; i += LANES)
                above[i] = last[(first * size + i) ^ task.gaps];
        }
        __syncwarp();
        for (int step = 0; step < LANES; ++step) {
            const int x = first + step - lane;
#pragma unroll
            for (int w = 0; w < 2; ++w) {
                corner[w] = up[w];
                up[w] = __shfl_up_sync(0xFFFFFFFFu, left[w], 1);
            }
            if (lane == 0) {
                up[0] = up[1] = 0;
                if (warp && x < width)
#pragma unroll
                    for (int i = 0; i < MOST; ++i)
                        if (i < size) up[i / 4] |= (unsigned)above[step * size + i] << i % 4 * 8;
            }
            if (x < 0 || x >= width || lane >= rows) continue;
            Byte* at = tile + lane * PITCH + step * size;
            unsigned made[2] = {};
#pragma unroll
            for (int i = 0; i < MOST; ++i) {
                if (i >= size) break;
                const int found =
                    at[i] + predicted(way, byte_of(left, i), byte_of(up, i), byte_of(corner, i));
                made[i / 4] |= (unsigned)(found & 255) << i % 4 * 8;
                at[i] = (Byte)found;
            }
            left[0] = made[0];
            left[1] = made[1];
        }
        __syncwarp();
        for (int r = 0; r < rows; ++r) {
            const int from = (first - r) * size;
            for (int i = lane; i < LANES * size; i += LANES)
                if (from + i >= 0 && from + i < task.width)
                    out[r * task.out_pitch + ((from + i) ^ task.gaps)] = tile[r * PITCH + i];
        }
        __threadfence();
        __syncwarp();
        if (lane == 0)
            ((volatile int*)progress_of(task)->pixels)[warp] = min(first + 1, width);
    }
    if (lane == 0) ((volatile int*)progress_of(task)->pixels)[warp] = width;
}
