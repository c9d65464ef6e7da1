// Median of 3 x 3 and of 5 x 5 values by min/max networks, for neighbouring pixels that share sorted columns.

DEVICE void sort2(float& a, float& b) {
    float low = fminf(a, b);
    b = fmaxf(a, b);
    a = low;
}

DEVICE float median3(float a, float b, float c) {
    sort2(a, b);
    return fmaxf(a, fminf(b, c));
}

DEVICE void sort3(float* v) {
    sort2(v[0], v[1]);
    sort2(v[1], v[2]);
    sort2(v[0], v[1]);
}

// Median of three sorted columns of three values.
DEVICE float median9(const float* p, const float* q, const float* r) {
    float low = fmaxf(fmaxf(p[0], q[0]), r[0]), high = fminf(fminf(p[2], q[2]), r[2]);
    return median3(low, median3(p[1], q[1], r[1]), high);
}

DEVICE void sort5(float* v) {
    sort2(v[0], v[1]);
    sort2(v[3], v[4]);
    sort2(v[2], v[4]);
    sort2(v[2], v[3]);
    sort2(v[1], v[4]);
    sort2(v[0], v[3]);
    sort2(v[0], v[2]);
    sort2(v[1], v[3]);
    sort2(v[1], v[2]);
}

// Four of the five sorted columns of a 5 x 5 window, which two neighbouring pixels share. Of each rank (a to e, smallest
// first) it keeps, in order, those values that can still be the median once the fifth column has come.
struct FourColumns {
    float a3, a4, b2, b3, b4, c0, c1, c2, c3, d0, d1, d2, e0, e1;
};

DEVICE FourColumns four_columns(const float* p, const float* q, const float* r, const float* s) {
    FourColumns kept;
    {
        float low = fmaxf(fminf(p[0], q[0]), fminf(r[0], s[0])), high1 = fmaxf(p[0], q[0]), high2 = fmaxf(r[0], s[0]);
        kept.a4 = fmaxf(high1, high2);
        kept.a3 = fmaxf(fminf(high1, high2), low);
    }
    {
        float low = fmaxf(fminf(p[1], q[1]), fminf(r[1], s[1])), high1 = fmaxf(p[1], q[1]), high2 = fmaxf(r[1], s[1]);
        float high = fminf(high1, high2);
        kept.b4 = fmaxf(high1, high2);
        kept.b3 = fmaxf(high, low);
        kept.b2 = fminf(high, low);
    }
    {
        float low1 = fminf(p[2], q[2]), high1 = fmaxf(p[2], q[2]), low2 = fminf(r[2], s[2]), high2 = fmaxf(r[2], s[2]);
        float low = fmaxf(low1, low2), high = fminf(high1, high2);
        kept.c0 = fminf(low1, low2);
        kept.c1 = fminf(low, high);
        kept.c2 = fmaxf(low, high);
        kept.c3 = fmaxf(high1, high2);
    }
    {
        float high = fminf(fmaxf(p[3], q[3]), fmaxf(r[3], s[3])), low1 = fminf(p[3], q[3]), low2 = fminf(r[3], s[3]);
        float low = fmaxf(low1, low2);
        kept.d0 = fminf(low1, low2);
        kept.d1 = fminf(high, low);
        kept.d2 = fmaxf(high, low);
    }
    {
        float high = fminf(fmaxf(p[4], q[4]), fmaxf(r[4], s[4])), low1 = fminf(p[4], q[4]), low2 = fminf(r[4], s[4]);
        kept.e0 = fminf(low1, low2);
        kept.e1 = fminf(fmaxf(low1, low2), high);
    }
    return kept;
}

// Median of 25 values: four columns and the fifth, sorted, `v`.
DEVICE float median25(const FourColumns& kept, const float* v) {
    float a4 = fmaxf(kept.a4, v[0]), a3 = fmaxf(kept.a3, fminf(kept.a4, v[0]));
    float b4 = fmaxf(kept.b4, v[1]), rest = fminf(kept.b4, v[1]);
    float b3 = fmaxf(kept.b3, rest), b2 = fmaxf(kept.b2, fminf(kept.b3, rest));
    float c1 = fminf(kept.c1, fmaxf(kept.c0, v[2])), c2 = fminf(kept.c2, fmaxf(kept.c1, v[2]));
    float c3 = fminf(kept.c3, fmaxf(kept.c2, v[2]));
    float d0 = fminf(kept.d0, v[3]);
    rest = fmaxf(kept.d0, v[3]);
    float d1 = fminf(kept.d1, rest), d2 = fminf(kept.d2, fmaxf(kept.d1, rest));
    float e0 = fminf(kept.e0, v[4]), e1 = fminf(kept.e1, fmaxf(kept.e0, v[4]));
    // From here on, the comparisons of the CPU engine's `_median_of_candidates`.
    b4 = fmaxf(a3, fminf(fminf(b4, c3), fmaxf(b2, d1)));
    c1 = fmaxf(c1, fminf(fmaxf(b3, d0), e1));
    a4 = fminf(a4, d2);
    sort2(a4, e0);
    sort2(e0, c2);
    sort2(b4, a4);
    float low = fminf(a4, c2), high = fmaxf(b4, c1);
    sort2(low, high);
    return fminf(high, fmaxf(low, e0));
}
