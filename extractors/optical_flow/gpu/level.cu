// TV-L1 optical flow at one level of the pyramid.
//
// A group of GROUP blocks solves one pair of frames at a time and takes the next one from a queue. A block holds a band of
// rows, a warp ROWS whole rows, a thread ROWS times C neighbouring pixels. u and p stay in registers from the first warp to
// the last; the data term lies in shared memory. Neighbouring columns are exchanged by shuffles, rows between warps through
// shared memory, and rows between blocks through inboxes in global memory. All blocks must be resident at the same time,
// which a cooperative launch guarantees.
//
// Compile-time constants: HEIGHT, WIDTH, ROWS, WARPS, GROUP, MEDIAN, MARGIN, PITCH.

constexpr int C = (WIDTH + 31) / 32;        // columns of a thread
constexpr int BAND = WARPS * ROWS;          // rows of a block
constexpr int THREADS = WARPS * 32;
constexpr int LINE = C * PITCH;             // floats of a row of the tile: 32 lanes and two more at either side, C times
constexpr int TILE = (BAND + 4) * LINE;     // floats of one plane of the tile, with two more rows at either side
constexpr int ROW = C * 32;                 // float2 of a row that is exchanged
constexpr int SUMMANDS = GROUP * WARPS;     // every warp's sum of squared changes
constexpr int SUMS = (SUMMANDS + 127) / 128 * 128;
constexpr int LAST_C = (WIDTH - 1) % C, LAST_LANE = (WIDTH - 1) / C;
// What an inbox receives, in words: u from below, sums of odd and of even iterations, p from above, tile rows, a pair.
constexpr int IN_U = 0, IN_SUMS = ROW, IN_P = IN_SUMS + 2 * SUMMANDS, IN_TILE = IN_P + ROW, IN_PAIR = IN_TILE + 4 * LINE,
              INBOX = IN_PAIR + 1;
constexpr float FLT_EPSILON = 1.1920929e-07f;

// Where column x, from -2 to WIDTH + 1, lies in a row of the tile.
DEVICE int tile_place(int x) { return (x + C) % C * PITCH + (x + C) / C + 1; }

// Store one row of u, and at either side two columns that repeat the border; `store` takes a place and both components.
template <class Store>
DEVICE void store_row(const float* u1, const float* u2, int lane, Store store) {
#pragma unroll
    for (int c = 0; c < C; ++c) {
        if (C * 32 == WIDTH || lane * C + c < WIDTH) store(c * PITCH + lane + 2, u1[c], u2[c]);
    }
    if (lane == 0) {
        store(tile_place(-1), u1[0], u2[0]);
        store(tile_place(-2), u1[0], u2[0]);
    }
    if (lane == LAST_LANE) {
        store(tile_place(WIDTH), u1[LAST_C], u2[LAST_C]);
        store(tile_place(WIDTH + 1), u1[LAST_C], u2[LAST_C]);
    }
}

// Wait for a word with this tag.
DEVICE float2 collect(const uint4* from, unsigned tag) {
    uint4 word = look(from);
    while (word.y != tag || word.w != tag) {
        give_way();
        word = look(from);
    }
    return make_float2(__uint_as_float(word.x), __uint_as_float(word.z));
}

#if MEDIAN > 1
// Median of this thread's pixels in one row, from the rows of the tile around it; `from` points to the lane's place.
DEVICE void median_of_row(const float* const* from, float* result) {
    constexpr int REACH = MEDIAN / 2;
    // Column j of the strip, from -REACH on, is kept, sorted, in columns[(j + REACH) % (MEDIAN + 1)].
    float columns[MEDIAN + 1][MEDIAN];
#pragma unroll
    for (int j = -REACH; j < C + REACH; ++j) {
        float* v = columns[(j + REACH) % (MEDIAN + 1)];
        const int at = (j + 2 * C) % C * PITCH + (j + 2 * C) / C - 2;
#pragma unroll
        for (int i = 0; i < MEDIAN; ++i) v[i] = from[i][at];
        const int c = j - REACH;  // the pixel whose last column this is
#if MEDIAN == 3
        sort3(v);
        if (c >= 0) result[c] = median9(columns[c % 4], columns[(c + 1) % 4], v);
#else
        sort5(v);
        if (c >= 0 && (c % 2 == 1 || c == C - 1)) {
            // Pixels c - 1 and c share four columns.
            FourColumns shared =
                four_columns(columns[c % 6], columns[(c + 1) % 6], columns[(c + 2) % 6], columns[(c + 3) % 6]);
            if (c % 2 == 1) result[c - 1 < 0 ? 0 : c - 1] = median25(shared, columns[(c + 5) % 6]);
            result[c] = median25(shared, v);
        }
#endif
    }
}
#endif

extern "C" __global__ void solve_level(
    const float* __restrict__ frames,  // [frames][HEIGHT + 2 MARGIN][PADDED]
    const int* __restrict__ first,     // [pairs]: the first frame of each; the second is the next one
    const int* __restrict__ order,     // [pairs]: in which order they are solved
    const float* __restrict__ coarse,  // [pairs][2][coarse_height][coarse_width], or null at the coarsest level
    float* __restrict__ out,           // [pairs][2][HEIGHT][WIDTH], or [pairs][HEIGHT][WIDTH][2] at the finest level
    float* __restrict__ cost,          // [pairs]: iterations that each took
    int coarse_height, int coarse_width, int finest,
    float most_px,                     // at the finest level: clip to +-most_px and divide by it; 0: neither
    float bound, float tau, float tau_by_theta, float limit, float finer, int warps, int outer, int inner, int pairs,
    unsigned* queue,                   // [1], zero
    uint4* inboxes                     // [groups][GROUP][INBOX], zero
) {
    const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5;
    const int rank = blockIdx.x % GROUP;
    const int x0 = lane * C, row0 = warp * ROWS, band0 = rank * BAND, y0 = band0 + row0;
    const bool has_above = rank > 0, has_below = rank < GROUP - 1;

    // Shared memory. Rows of u are exchanged in the tile, while the median filter does not use it.
    float4* all_data = shared_memory();                        // ix, iy, rho, -1 / |gradient|^2: [WARPS][ROWS * C][32]
    float4* data = all_data + warp * (ROWS * C * 32) + lane;
    float* tile = (float*)(all_data + WARPS * ROWS * C * 32);  // u1, u2
    float2* rows_u = (float2*)tile;                            // [WARPS + 1][ROW]; the last from below
    float2* rows_p = (float2*)(tile + 2 * TILE);               // [WARPS + 1][ROW]; the first from above
    float* all_sums = (float*)(rows_p + (WARPS + 1) * ROW);    // [2][SUMS]
    int* pair_here = (int*)(all_sums + 2 * SUMS);
    static_assert((WARPS + 1) * ROW <= TILE, "rows of u fit into the tile");

#define INBOX_OF(block) (inboxes + (size_t)(volatile_block_index() + (block)) * INBOX)
    unsigned clock = 0;  // iterations so far; plus 1, the tag of all that is sent

    for (;;) {
        if (tid == 0) {
            if (rank == 0) {
                int number = (int)take_number(queue);
                int pair = number < pairs ? order[number] : -1;
                for (int i = 0; i < GROUP; ++i) post(INBOX_OF(i) + IN_PAIR, __int_as_float(pair), 0, clock + 1);
            }
            *pair_here = __float_as_int(collect(INBOX_OF(0) + IN_PAIR, clock + 1).x);
        }
        __syncthreads();
        if (*pair_here < 0) return;
        const unsigned clock_before = clock;

        for (int i = tid; i < (WARPS + 1) * ROW; i += THREADS) rows_p[i] = make_float2(0, 0);
        for (int i = tid; i < 2 * SUMS; i += THREADS) all_sums[i] = 0;

        float u1[ROWS][C], u2[ROWS][C], p1x[ROWS][C], p1y[ROWS][C], p2x[ROWS][C], p2y[ROWS][C];
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int c = 0; c < C; ++c) {
                u1[r][c] = u2[r][c] = p1x[r][c] = p1y[r][c] = p2x[r][c] = p2y[r][c] = 0;
                int x = x0 + c, y = y0 + r;
                if (coarse != nullptr && x < WIDTH && y < HEIGHT) {
                    const float* from = coarse + (size_t)*pair_here * 2 * coarse_height * coarse_width;
                    float wx, wy;
                    int left = resize_position(x, (double)coarse_width / WIDTH, coarse_width, &wx);
                    int top = resize_position(y, (double)coarse_height / HEIGHT, coarse_height, &wy);
                    int right = min(left + 1, coarse_width - 1), bottom = min(top + 1, coarse_height - 1);
                    u1[r][c] = bilinear(from, coarse_width, top, bottom, wy, left, right, wx) * finer;
                    from += coarse_height * coarse_width;
                    u2[r][c] = bilinear(from, coarse_width, top, bottom, wy, left, right, wx) * finer;
                }
            }

        for (int w = 0; w < warps; ++w) {
            float sum = 0;
            for (int round = 0; round < outer; ++round) {
                __syncthreads();  // rows_u have been read
                // u goes to the tile; a band's first and last two rows go to the neighbours' tiles, too.
                if (round == 0 || MEDIAN > 1) {
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        uint4* there;
                        auto send = [&](int at, float a, float b) { post(there + at, a, b, clock + 1); };
                        float* to = tile + (row0 + r + 2) * LINE;
                        store_row(u1[r], u2[r], lane, [&](int at, float a, float b) { to[at] = a; to[TILE + at] = b; });
                        if (MEDIAN > 1 && row0 + r < 2 && has_above) {
                            there = INBOX_OF(-1) + IN_TILE + (row0 + r + 2) * LINE;
                            store_row(u1[r], u2[r], lane, send);
                        }
                        if (MEDIAN > 1 && row0 + r >= BAND - 2 && has_below) {
                            there = INBOX_OF(1) + IN_TILE + (row0 + r - BAND + 2) * LINE;
                            store_row(u1[r], u2[r], lane, send);
                        }
                    }
                    __syncthreads();
                }
                if (round == 0) {
                    // Neighbouring threads take neighbouring pixels here, which makes the loads contiguous.
                    const int count = min(BAND, HEIGHT - band0) * WIDTH;
                    const float* frame0 = frames + (size_t)first[*pair_here] * ((HEIGHT + 2 * MARGIN) * PADDED);
                    const float* frame1 = frame0 + (HEIGHT + 2 * MARGIN) * PADDED;
#pragma unroll 1
                    for (int i = tid; i < count; i += THREADS) {
                        int row = i / WIDTH, x = i - row * WIDTH, owner = x / C, c = x - owner * C, y = band0 + row;
                        const float* here = tile + (row + 2) * LINE + c * PITCH + owner + 2;
                        float v1 = here[0], v2 = here[TILE], value;
                        float4 d;
                        sample(frame1, x, y, v1, v2, &value, &d.x, &d.y);
                        float squared = d.x * d.x + d.y * d.y;
                        d.w = squared > FLT_EPSILON ? -fast_reciprocal(squared) : 0.0f;
                        d.z = value - d.x * v1 - d.y * v2 - frame0[(y + MARGIN) * PADDED + x + MARGIN];
                        all_data[row * (C * 32) + c * 32 + owner] = d;
                    }
                    if (w == 0) {
                        // Beyond the picture the data term is 0.
#pragma unroll
                        for (int r = 0; r < ROWS; ++r)
#pragma unroll
                            for (int c = 0; c < C; ++c)
                                if (x0 + c >= WIDTH || y0 + r >= HEIGHT) data[(r * C + c) * 32] = make_float4(0, 0, 0, 0);
                    }
                    __syncthreads();
                }
#if MEDIAN > 1
                if (GROUP > 1) {
                    // Only places that a neighbour fills: the picture's columns, and two at either side.
                    for (int i = tid; i < 4 * (WIDTH + 4); i += THREADS) {
                        int row = i / (WIDTH + 4), at = tile_place(i - row * (WIDTH + 4) - 2);
                        if (row < 2 ? has_above : has_below) {
                            float2 v = collect(INBOX_OF(0) + IN_TILE + row * LINE + at, clock + 1);
                            float* to = tile + (row < 2 ? row : BAND + row) * LINE + at;
                            to[0] = v.x;
                            to[TILE] = v.y;
                        }
                    }
                    __syncthreads();
                }
                const int top = 2 - band0, bottom = HEIGHT + 1 - band0;  // rows of the tile with the picture's border
// Unrolled: u of the first plane would otherwise be kept beside its result, and p be spilled in every iteration.
#pragma unroll
                for (int plane = 0; plane < 2; ++plane) {
                    const float* source = tile + plane * TILE;
                    float result[ROWS][C];
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const float* from[MEDIAN];
#pragma unroll
                        for (int i = 0; i < MEDIAN; ++i)
                            from[i] = source + min(max(row0 + r + i + 2 - MEDIAN / 2, top), bottom) * LINE + lane + 2;
                        median_of_row(from, result[r]);
                    }
#pragma unroll
                    for (int r = 0; r < ROWS; ++r)
#pragma unroll
                        for (int c = 0; c < C; ++c) {
                            // Beyond the picture, u stays 0.
                            float value = x0 + c < WIDTH && y0 + r < HEIGHT ? result[r][c] : 0.0f;
                            if (plane == 0) u1[r][c] = value; else u2[r][c] = value;
                        }
                }
#endif
                for (int iteration = 0; iteration < inner; ++iteration) {
                    float change = 0;
                    const int in_sums = IN_SUMS + (clock & 1) * SUMMANDS;
                    // Thresholding and the divergence of p: new u of one row; `up` is p of the row above.
                    auto primal = [&](int r, const float2* up) {
                        float left1 = __shfl_up_sync(ALL_LANES, p1x[r][C - 1], 1);
                        float left2 = __shfl_up_sync(ALL_LANES, p2x[r][C - 1], 1);
                        if (lane == 0) left1 = left2 = 0;
#pragma unroll
                        for (int c = 0; c < C; ++c) {
                            float4 d = data[(r * C + c) * 32];
                            float divergence1 = (p1x[r][c] - (c ? p1x[r][c ? c - 1 : 0] : left1)) + (p1y[r][c] - up[c].x);
                            float divergence2 = (p2x[r][c] - (c ? p2x[r][c ? c - 1 : 0] : left2)) + (p2y[r][c] - up[c].y);
                            float step = (d.z + d.x * u1[r][c] + d.y * u2[r][c]) * d.w;
                            step = fminf(fmaxf(step, -bound), bound);
                            float change1 = step * d.x + divergence1, change2 = step * d.y + divergence2;
                            u1[r][c] += change1;
                            u2[r][c] += change2;
                            change += change1 * change1;
                            change += change2 * change2;
                        }
                    };
                    // Dual ascent: new p (times theta) of one row; `below` is u of the row below.
                    auto dual = [&](int r, const float2* below) {
                        float right1 = __shfl_down_sync(ALL_LANES, u1[r][0], 1);
                        float right2 = __shfl_down_sync(ALL_LANES, u2[r][0], 1);
#pragma unroll
                        for (int c = 0; c < C; ++c) {
                            float next1 = c < C - 1 ? u1[r][c < C - 1 ? c + 1 : 0] : right1;
                            float next2 = c < C - 1 ? u2[r][c < C - 1 ? c + 1 : 0] : right2;
                            if (c == LAST_C && lane == LAST_LANE) {
                                next1 = u1[r][c];
                                next2 = u2[r][c];
                            }
                            float d1x = next1 - u1[r][c], d2x = next2 - u2[r][c];
                            float d1y = below[c].x - u1[r][c], d2y = below[c].y - u2[r][c];
                            float n1 = 1.0f + tau_by_theta * fast_sqrt(d1x * d1x + d1y * d1y);
                            float n2 = 1.0f + tau_by_theta * fast_sqrt(d2x * d2x + d2y * d2y);
                            float q = fast_reciprocal(n1 * n2), shrink1 = q * n2, shrink2 = q * n1;
                            p1x[r][c] = (p1x[r][c] + tau * d1x) * shrink1;
                            p1y[r][c] = (p1y[r][c] + tau * d1y) * shrink1;
                            p2x[r][c] = (p2x[r][c] + tau * d2x) * shrink2;
                            p2y[r][c] = (p2y[r][c] + tau * d2y) * shrink2;
                        }
                    };
                    // Rows that need no neighbour are computed while the neighbours' rows are on their way.
#pragma unroll
                    for (int r = ROWS - 1; r >= 1; --r) {
                        float2 up[C];
#pragma unroll
                        for (int c = 0; c < C; ++c) up[c] = make_float2(p1y[r - 1][c], p2y[r - 1][c]);
                        primal(r, up);
                    }
                    if (iteration > 0 && has_above) {
                        for (int i = tid; i < ROW; i += THREADS) rows_p[i] = collect(INBOX_OF(0) + IN_P + i, clock);
                    }
                    __syncthreads();
                    {
                        float2 up[C];
#pragma unroll
                        for (int c = 0; c < C; ++c) up[c] = rows_p[warp * ROW + c * 32 + lane];
                        primal(0, up);
                    }
                    if (warp > 0 && y0 < HEIGHT) {
#pragma unroll
                        for (int c = 0; c < C; ++c) rows_u[warp * ROW + c * 32 + lane] = make_float2(u1[0][c], u2[0][c]);
                    } else if (warp == 0 && has_above) {
                        uint4* there = INBOX_OF(-1) + IN_U + lane;
#pragma unroll
                        for (int c = 0; c < C; ++c) post(there + c * 32, u1[0][c], u2[0][c], clock + 1);
                    }
                    // Each warp's sum goes to all blocks, and each warp adds all of them in the same order.
#pragma unroll
                    for (int offset = 16; offset > 0; offset >>= 1) change += __shfl_xor_sync(ALL_LANES, change, offset);
                    float* sums = all_sums + (clock & 1) * SUMS;
                    for (int block = lane; block < GROUP; block += 32) {
                        if (block == rank) sums[rank * WARPS + warp] = change;
                        else post(INBOX_OF(block - rank) + in_sums + rank * WARPS + warp, change, 0, clock + 1);
                    }
                    // The row under the picture repeats the last one, which makes the difference 0.
                    if (HEIGHT % ROWS != 0 && y0 + ROWS > HEIGHT) {
#pragma unroll
                        for (int r = 0; r < ROWS - 1; ++r)
                            if (y0 + r + 1 == HEIGHT) {
#pragma unroll
                                for (int c = 0; c < C; ++c) {
                                    u1[r + 1][c] = u1[r][c];
                                    u2[r + 1][c] = u2[r][c];
                                }
                            }
                    }
#pragma unroll
                    for (int r = 0; r < ROWS - 1; ++r) {
                        float2 below[C];
#pragma unroll
                        for (int c = 0; c < C; ++c) below[c] = make_float2(u1[r + 1][c], u2[r + 1][c]);
                        dual(r, below);
                    }
                    for (int i = tid + (has_below ? 0 : ROW); i < ROW + SUMMANDS; i += THREADS) {
                        if (i < ROW)
                            rows_u[WARPS * ROW + i] = collect(INBOX_OF(0) + IN_U + i, clock + 1);
                        else if ((i - ROW) / WARPS != rank)
                            sums[i - ROW] = collect(INBOX_OF(0) + in_sums + i - ROW, clock + 1).x;
                    }
                    __syncthreads();
                    {
                        float4 s = ((const float4*)sums)[lane];
#pragma unroll
                        for (int i = 1; i < SUMS / 128; ++i) {
                            float4 t = ((const float4*)sums)[i * 32 + lane];
                            s.x += t.x;
                            s.y += t.y;
                            s.z += t.z;
                            s.w += t.w;
                        }
                        sum = (s.x + s.y) + (s.z + s.w);
                    }
#pragma unroll
                    for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
                    {
                        float2 below[C];
                        if (y0 + ROWS >= HEIGHT) {
#pragma unroll
                            for (int c = 0; c < C; ++c)
                                rows_u[(warp + 1) * ROW + c * 32 + lane] = make_float2(u1[ROWS - 1][c], u2[ROWS - 1][c]);
                        }
#pragma unroll
                        for (int c = 0; c < C; ++c) below[c] = rows_u[(warp + 1) * ROW + c * 32 + lane];
                        dual(ROWS - 1, below);
                    }
                    if (HEIGHT % ROWS != 0 && y0 + ROWS > HEIGHT) {
#pragma unroll
                        for (int r = 0; r < ROWS; ++r)
                            if (y0 + r >= HEIGHT) {
#pragma unroll
                                for (int c = 0; c < C; ++c) p1x[r][c] = p1y[r][c] = p2x[r][c] = p2y[r][c] = 0;
                            }
                    }
                    if (warp < WARPS - 1) {
#pragma unroll
                        for (int c = 0; c < C; ++c)
                            rows_p[(warp + 1) * ROW + c * 32 + lane] = make_float2(p1y[ROWS - 1][c], p2y[ROWS - 1][c]);
                    } else if (has_below) {
                        uint4* there = INBOX_OF(1) + IN_P + lane;
#pragma unroll
                        for (int c = 0; c < C; ++c) post(there + c * 32, p1y[ROWS - 1][c], p2y[ROWS - 1][c], clock + 1);
                    }
                    ++clock;
                    if (sum <= limit) break;
                }
                if (has_above) {
                    for (int i = tid; i < ROW; i += THREADS) rows_p[i] = collect(INBOX_OF(0) + IN_P + i, clock);
                }
                if (sum <= limit) break;
            }
        }

        float* to = out + (size_t)*pair_here * 2 * HEIGHT * WIDTH;
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int c = 0; c < C; ++c) {
                int x = x0 + c, y = y0 + r;
                if (x >= WIDTH || y >= HEIGHT) continue;
                if (finest) {
                    float2 v = make_float2(u1[r][c], u2[r][c]);
                    if (most_px > 0) {
                        v.x = fminf(fmaxf(v.x, -most_px), most_px) / most_px;
                        v.y = fminf(fmaxf(v.y, -most_px), most_px) / most_px;
                    }
                    ((float2*)to)[y * WIDTH + x] = v;
                } else {
                    to[y * WIDTH + x] = u1[r][c];
                    to[HEIGHT * WIDTH + y * WIDTH + x] = u2[r][c];
                }
            }
        if (rank == 0 && tid == 0) cost[*pair_here] = (float)(clock - clock_before);
        __syncthreads();
    }
}
