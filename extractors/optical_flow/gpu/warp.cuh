// The second frame and its gradient at displaced positions: OpenCV's bicubic interpolation in steps of 1/32 pixel.

DEVICE void cubic_weights(int fraction, float* w) {
    const float a = -0.75f, x = fraction * (1.0f / 32), o = 1 - x;
    w[0] = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
    w[1] = ((a + 2) * x - (a + 3)) * x * x + 1;
    w[2] = ((a + 2) * o - (a + 3)) * o * o + 1;
    w[3] = 1 - w[0] - w[1] - w[2];
}

constexpr int PADDED = WIDTH + 2 * MARGIN;

// Sample one padded frame at (x + u1, y + u2). Taps outside the picture count as 0, by a weight of 0. The gradient comes
// from the same 32 loads; the margin gives it central differences at the border.
DEVICE void sample(const float* padded, int x, int y, float u1, float u2, float* value, float* gx, float* gy) {
    int qx = __float2int_rn(((float)x + u1) * 32.0f), qy = __float2int_rn(((float)y + u2) * 32.0f);
    float wx[4], wy[4];
    cubic_weights(qx & 31, wx);
    cubic_weights(qy & 31, wy);
    int x0 = min(max(qx >> 5, -3), WIDTH + 1) - 1, y0 = min(max(qy >> 5, -3), HEIGHT + 1) - 1;
    if (x0 < 0 || x0 > WIDTH - 4 || y0 < 0 || y0 > HEIGHT - 4) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if ((unsigned)(x0 + i) >= (unsigned)WIDTH) wx[i] = 0;
            if ((unsigned)(y0 + i) >= (unsigned)HEIGHT) wy[i] = 0;
        }
    }
    const float* at = padded + (y0 - 1 + MARGIN) * PADDED + (x0 - 1 + MARGIN);
    const float dx[6] = {-wx[0], -wx[1], wx[0] - wx[2], wx[1] - wx[3], wx[2], wx[3]};
    const float dy[6] = {-wy[0], -wy[1], wy[0] - wy[2], wy[1] - wy[3], wy[2], wy[3]};
    float v = 0, slope_x = 0, slope_y = 0;
#pragma unroll
    for (int j = 0; j < 6; ++j) {
        const float* row = at + j * PADDED;
        float t1 = row[1], t2 = row[2], t3 = row[3], t4 = row[4];
        float across = wx[0] * t1 + wx[1] * t2 + wx[2] * t3 + wx[3] * t4;
        slope_y += dy[j] * across;
        if (j >= 1 && j <= 4) {
            v += wy[j - 1] * across;
            float slope = dx[1] * t1 + dx[2] * t2 + dx[3] * t3 + dx[4] * t4 + dx[0] * row[0] + dx[5] * row[5];
            slope_x += wy[j - 1] * slope;
        }
    }
    *value = v;
    *gx = 0.5f * slope_x;
    *gy = 0.5f * slope_y;
}
