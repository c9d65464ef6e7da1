// The image pyramid, and the order in which pairs of frames are solved.
//
// Frames are float [frames][height + 2 MARGIN][width + 2 MARGIN]; the margin repeats the border.

extern "C" __global__ void to_float(const unsigned char* __restrict__ from, float* __restrict__ to, int frames,
                                    int height, int width) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    int columns = width + 2 * MARGIN, rows = height + 2 * MARGIN;
    if (i >= (size_t)frames * rows * columns) return;
    int x = min(max((int)(i % columns) - MARGIN, 0), width - 1);
    int y = min(max((int)(i / columns % rows) - MARGIN, 0), height - 1);
    size_t frame = i / columns / rows;
    to[i] = (float)from[(frame * height + y) * width + x];
}

// Scale every frame down bilinearly, without smoothing.
extern "C" __global__ void shrink(const float* __restrict__ from, float* __restrict__ to, int frames, int old_height,
                                  int old_width, int height, int width, double scale) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    int columns = width + 2 * MARGIN, rows = height + 2 * MARGIN, old_columns = old_width + 2 * MARGIN;
    if (i >= (size_t)frames * rows * columns) return;
    int x = min(max((int)(i % columns) - MARGIN, 0), width - 1);
    int y = min(max((int)(i / columns % rows) - MARGIN, 0), height - 1);
    size_t frame = i / columns / rows;
    const float* picture = from + frame * (old_height + 2 * MARGIN) * old_columns + MARGIN * old_columns + MARGIN;
    float wx, wy;
    int x0 = resize_position(x, scale, old_width, &wx), y0 = resize_position(y, scale, old_height, &wy);
    int x1 = min(x0 + 1, old_width - 1), y1 = min(y0 + 1, old_height - 1);
    to[i] = bilinear(picture, old_columns, y0, y1, wy, x0, x1, wx);
}

// How far the frames of each pair differ: a first guess of the iterations that the pair needs. One warp for each pair.
extern "C" __global__ void difference(const float* __restrict__ frames, const int* __restrict__ first,
                                      float* __restrict__ cost, int height, int width) {
    int pixels = (height + 2 * MARGIN) * (width + 2 * MARGIN);
    const float* one = frames + (size_t)first[blockIdx.x] * pixels;
    const float* other = one + pixels;
    float sum = 0;
    for (int i = threadIdx.x; i < pixels; i += 32) sum += fabsf(one[i] - other[i]);
    for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
    if (threadIdx.x == 0) cost[blockIdx.x] = sum;
}

// Order pairs by falling cost, so that a pair across a scene cut does not start when all others are done.
extern "C" __global__ void longest_first(const float* __restrict__ cost, int* __restrict__ order, int pairs) {
    int pair = blockIdx.x * blockDim.x + threadIdx.x;
    if (pair >= pairs) return;
    int rank = 0;
    for (int i = 0; i < pairs; ++i) rank += cost[i] > cost[pair] || (cost[i] == cost[pair] && i < pair);
    order[rank] = pair;
}
