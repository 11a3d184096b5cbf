/* The general matrix product: packed blocks and panels, and the loops over them. */
#ifndef MATMUL_BLOCKED_H
#define MATMUL_BLOCKED_H

#include "matmul_tile.h"

/* --- packing -------------------------------------------------------------------------- */

#if defined(__has_builtin) && LANES == 16
#if __has_builtin(__builtin_shufflevector)
#define SQUARE 16
#define PICK(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
/* transposes 16 by 16 floats by exchanging blocks of 8, 4, 2 and 1 */
static inline void transpose(const float *from, int64_t ld, float *to)
{
    vec r[16], u[16];
    UNROLL(i, 16) r[i] = load(from + i * ld);
    UNROLL(i, 8) {
        u[i] = PICK(r[i], r[i + 8], 0,1,2,3,4,5,6,7,16,17,18,19,20,21,22,23);
        u[i + 8] = PICK(r[i], r[i + 8], 8,9,10,11,12,13,14,15,24,25,26,27,28,29,30,31);
    }
    for (int h = 0; h < 16; h += 8) for (int i = h; i < h + 4; i++) {
        r[i] = PICK(u[i], u[i + 4], 0,1,2,3,16,17,18,19,8,9,10,11,24,25,26,27);
        r[i + 4] = PICK(u[i], u[i + 4], 4,5,6,7,20,21,22,23,12,13,14,15,28,29,30,31);
    }
    for (int h = 0; h < 16; h += 4) for (int i = h; i < h + 2; i++) {
        u[i] = PICK(r[i], r[i + 2], 0,1,16,17,4,5,20,21,8,9,24,25,12,13,28,29);
        u[i + 2] = PICK(r[i], r[i + 2], 2,3,18,19,6,7,22,23,10,11,26,27,14,15,30,31);
    }
    for (int i = 0; i < 16; i += 2) {
        r[i] = PICK(u[i], u[i + 1], 0,16,2,18,4,20,6,22,8,24,10,26,12,28,14,30);
        r[i + 1] = PICK(u[i], u[i + 1], 1,17,3,19,5,21,7,23,9,25,11,27,13,29,15,31);
    }
    UNROLL(i, 16) store(to + i * NR, r[i]);
}
#endif
#endif

/* Packs depth rows of the right factor, padded with zeros from cols to width columns. */
static void pack_panel(const float *b, int64_t ld, int transposed, int64_t depth, int64_t cols,
                       int64_t width, float *to)
{
    int64_t k = 0;
    if (!transposed && cols == width) {
        for (; k < depth; k++)
            for (int64_t j = 0; j < width; j += LANES)
                store(to + k * width + j, load(b + k * ld + j));
        return;
    }
#ifdef SQUARE
    if (cols == NR)
        for (; k + SQUARE <= depth; k += SQUARE)
            for (int64_t j = 0; j < NR; j += SQUARE) transpose(b + j * ld + k, ld, to + k * NR + j);
#endif
    const int64_t down = transposed ? 1 : ld, right = transposed ? ld : 1;
    for (; k < depth; k++) {
        for (int64_t j = 0; j < width; j += LANES) store(to + k * width + j, splat(0));
        for (int64_t j = 0; j < cols; j++) to[k * width + j] = b[k * down + j * right];
    }
}

/* Packs rows of the left factor: by rows, or by columns if it is transposed. */
static void pack_block(const float *a, int64_t ld, int transposed, int64_t rows, int64_t depth,
                       float *to)
{
    if (!transposed) {
        int64_t i = 0;
        for (; i < rows && (rows - 1 - i) * ld >= LANES; i++)
            for (int64_t k = 0; k < depth; k += LANES)
                store(to + i * ROW_DISTANCE + k, load(a + i * ld + k));
        for (; i < rows; i++) memcpy(to + i * ROW_DISTANCE, a + i * ld, 4 * depth);
        return;
    }
    /* copy STEP_DISTANCE floats of each row, unless that could read beyond the end of the matrix */
    int64_t k = 0;
    for (; k < depth && (depth - 1 - k) * ld + rows >= STEP_DISTANCE; k++)
        for (int64_t i = 0; i < STEP_DISTANCE; i += LANES)
            store(to + k * STEP_DISTANCE + i, load(a + k * ld + i));
    for (; k < depth; k++) memcpy(to + k * STEP_DISTANCE, a + k * ld, 4 * rows);
}

/* Sums a panel's columns in four partial sums, which makes the error bound four times smaller. */
static void sum_panel(const float *panel, int64_t step, int64_t depth, int64_t cols, int add,
                      float *sums)
{
    for (int64_t j = 0; j < cols; j += LANES) {
        vec run[4];
        float total[LANES];
        UNROLL(r, 4) run[r] = splat(0);
        int64_t k = 0;
        for (; k + 4 <= depth; k += 4) UNROLL(r, 4) run[r] += load(panel + (k + r) * step + j);
        for (; k < depth; k++) run[0] += load(panel + k * step + j);
        store(total, (run[0] + run[1]) + (run[2] + run[3]));
        for (int64_t i = 0; i < smaller(LANES, cols - j); i++)
            sums[j + i] = total[i] + (add ? sums[j + i] : 0);
    }
}

/* Applies bias, relu and gate to results that are already in memory: incomplete tiles, vectors. */
static void apply_epilogue(epilogue e, float *c, int64_t ldc, int64_t rows, int64_t cols,
                           int64_t row, int64_t column)
{
    for (int64_t i = 0; i < rows; i++) {
        float *x = c + i * ldc;
        if (e.bias) {
            const float *bias = e.bias + column;
            for (int64_t j = 0; j < cols; j++) x[j] += bias[j];
        }
        if (e.relu)
            for (int64_t j = 0; j < cols; j++) x[j] = x[j] <= 0 ? 0 : x[j]; /* NaN is kept */
        if (e.gate) {
            const float *gate = e.gate + (row + i) * ldc + column;
            for (int64_t j = 0; j < cols; j++) x[j] = gate[j] <= 0 ? 0 : x[j];
        }
    }
}

/* --- a rectangle of the result --------------------------------------------------------- */

/* a matrix; ld: the distance of its stored rows */
typedef struct { const float *at; int64_t ld; int transposed; } factor;

/* the address of an element */
static const float *element(factor f, int64_t row, int64_t column)
{
    return f.transposed ? f.at + column * f.ld + row : f.at + row * f.ld + column;
}

/* Computes rows m0 to m1 and columns n0 to n1 of the result. */
static void rectangle(factor a, factor b, float *c, int64_t ldc, int64_t m0, int64_t m1,
                      int64_t n0, int64_t n1, int64_t k, epilogue e, float *sums, float *workspace)
{
    float *panel = workspace + (MC / MR + 2) * BLOCK, *other = panel + KC * NR, part_tile[MR * NR];
    const int64_t row_groups = (m1 - m0 + MC - 1) / MC, panels = (n1 - n0 + NR - 1) / NR;
    const int64_t steps = (k + KC - 1) / KC * row_groups * panels;
    const int unpacked = !b.transposed && m1 - m0 <= 2 * MR; /* packing would cost more */
    lookahead later[2] = {{0}};
    for (int64_t step = 0; step < steps; step++) {
        const int64_t n = n0 + step % panels * NR, row_group = step / panels % row_groups;
        const int64_t k0 = step / panels / row_groups * KC, depth = smaller(KC, k - k0);
        const int64_t top = m0 + part_start(m1 - m0, row_groups, row_group);
        const int64_t rows = m0 + part_start(m1 - m0, row_groups, row_group + 1) - top;
        const int64_t blocks = (rows + MR - 1) / MR, chunks = depth < CHUNK ? 1 : depth / CHUNK;
        const int64_t cols = smaller(NR, n1 - n), width = cols > LANES ? NR : LANES;
        const float *right = unpacked && cols == NR ? element(b, k0, n) : panel;
        const int64_t right_step = right == panel ? width : b.ld;
        if (later[0].to) advance(later, later[0].stop); /* pack the rest of the panel */
        else if (right == panel)
            pack_panel(element(b, k0, n), b.ld, b.transposed, depth, cols, width, panel);
        if (sums && row_group == 0)
            sum_panel(right, right_step, depth, cols, k0 > 0, sums + n);
        later[0] = (lookahead){0};
        if (step + 1 < steps) {
            const int64_t n_next = n0 + (step + 1) % panels * NR;
            const int64_t k_next = (step + 1) / panels / row_groups * KC;
            const int64_t deep = smaller(KC, k - k_next);
            const float *from = element(b, k_next, n_next);
            if (b.transposed)
                later[0] = (lookahead){from, 0, LINE, b.ld, NR_BITS, (deep + LINE - 1) / LINE * NR};
            else if (unpacked)
                later[0] = (lookahead){from, 0, b.ld, LINE, NR_BITS - 4, deep * (NR / LINE)};
            else if (n_next + NR <= n1) later[0] = (lookahead){from, other, b.ld, 0, 0, deep};
            later[0].quota = (later[0].stop + blocks * chunks - 1) / (blocks * chunks);
        }
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t row = top + part_start(rows, blocks, block);
            const int64_t after = top + part_start(rows, blocks, block + 1), height = after - row;
            float *packed = workspace + block * BLOCK, *to = c + row * ldc + n;
            later[1].stop = 0;
            if (n == n0) {
                pack_block(element(a, row, k0), a.ld, a.transposed, height, depth, packed);
                if (block + 1 < blocks) {
                    const float *from = element(a, after, k0);
                    const int64_t lines = (depth + LINE - 1) / LINE;
                    if (a.transposed) later[1] = (lookahead){from, 0, a.ld, MR - 1, 1, 2 * depth};
                    else later[1] = (lookahead){from, 0, LINE, a.ld, 4, lines * 16};
                    later[1].quota = (later[1].stop + chunks - 1) / chunks;
                }
            }
            tile t = {packed, right, to, depth, right_step, ldc, k0 > 0, {0}};
            const int whole = cols == width, last = k0 + KC >= k;
            if (whole && last) {
                t.end.bias = e.bias ? e.bias + n : 0;
                t.end.gate = e.gate ? e.gate + row * ldc + n : 0;
                t.end.relu = e.relu;
            }
            if (!whole) t.c = part_tile, t.c_step = NR, t.add = 0;
            KERNELS[a.transposed][width == NR][height](&t, later);
            if (whole) continue;
            for (int64_t i = 0; i < height; i++) for (int64_t j = 0; j < cols; j++)
                to[i * ldc + j] = part_tile[i * NR + j] + (k0 ? to[i * ldc + j] : 0);
            if (last) apply_epilogue(e, to, ldc, height, cols, row, n);
        }
        float *done = panel;
        panel = other;
        other = done;
    }
}

#endif
