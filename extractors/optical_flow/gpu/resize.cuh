// Bilinear resizing with OpenCV's arithmetic.

// Map pixel `i` to the old picture: returns the first of two neighbours and sets the weight of the second.
DEVICE int resize_position(int i, double scale, int old_size, float* weight) {
    float position = (float)((i + 0.5) * scale - 0.5);
    int low = (int)floorf(position);
    float fraction = position - low;
    if (low < 0) {
        low = 0;
        fraction = 0;
    }
    if (low >= old_size - 1) {
        low = old_size - 1;
        fraction = 0;
    }
    *weight = fraction;
    return low;
}

DEVICE float bilinear(const float* picture, int stride, int y0, int y1, float wy, int x0, int x1, float wx) {
    const float* above = picture + y0 * stride;
    const float* below = picture + y1 * stride;
    float a = above[x0] + wx * (above[x1] - above[x0]);
    float b = below[x0] + wx * (below[x1] - below[x0]);
    return a + wy * (b - a);
}
