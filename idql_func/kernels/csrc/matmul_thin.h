/* Matrix products in which the result has few columns, or the factors are two vectors.

   In the first and last layers of a network, and in their gradients, one dimension is small. A
   tile of the general product would be mostly zeros there, and packed data would be used once.

   - k of 1, an outer product, is written row by row, so that memory is accessed in order.
   - n of 1 is a dot product for each row of the left factor or, if that is transposed, a linear
     combination of its rows.
   - n of at most FEW_COLUMNS: a tile of dot products at a time, along rows of the left factor that
     are read without packing. If the left factor is transposed, the transpose of the result is
     computed instead: a general product of few rows, which reads its panels without packing.

   A dot product has one partial sum per lane of a vector, which are added by halves, in sections
   of DEPTH elements. */
#ifndef MATMUL_THIN_H
#define MATMUL_THIN_H

#include "matmul_blocked.h"

/* --- one column or row ------------------------------------------------------------------ */

#define FEW_COLUMNS (LANES == 16 ? 8 : 6)
#define DEPTH 4096 /* FEW_COLUMNS rows of this length stay in the second-level cache */

static void outer(factor a, factor b, float *c, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                  int64_t ldc, epilogue e, float *sums)
{
    for (int64_t i = m0; i < m1; i++) {
        for (int64_t j = n0; j < n1; j++) c[i * ldc + j] = a.at[i] * b.at[j];
        apply_epilogue(e, c + i * ldc + n0, ldc, 1, n1 - n0, i, n0);
    }
    if (sums) memcpy(sums + n0, b.at + n0, 4 * (n1 - n0));
}

/* the sum of the lanes: one half is added to the other, repeatedly */
static inline float total(vec x)
{
    typedef float half __attribute__((vector_size(2 * LANES), aligned(4), may_alias));
    float p[LANES];
    store(p, x);
    *(half *)p += *(half *)(p + LANES / 2);
    UNROLL(i, LANES / 4) p[i] += p[i + LANES / 4];
    UNROLL(i, LANES / 8) p[i] += p[i + LANES / 8];
    return LANES == 16 ? p[0] + p[1] : p[0];
}

static float dot(const float *a, const float *b, int64_t n)
{
    vec run[4];
    UNROLL(r, 4) run[r] = splat(0);
    int64_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES)
        UNROLL(r, 4) run[r] = fmadd(load(a + k + r * LANES), load(b + k + r * LANES), run[r]);
    float sum = total((run[0] + run[1]) + (run[2] + run[3]));
    for (; k < n; k++) sum += a[k] * b[k];
    return sum;
}

static inline vec load_part(const float *x, int64_t n)
{
    float whole[LANES] = {0};
    memcpy(whole, x, 4 * n);
    return load(whole);
}

/* to[j] = sum over k of x[k] * rows[k * ld + j] */
static void combine_rows(const float *x, const float *rows, int64_t ld, int64_t depth, int64_t n,
                         float *to)
{
    int64_t j = 0;
    for (; j + 8 * LANES <= n; j += 8 * LANES) {
        vec s[8];
        UNROLL(r, 8) s[r] = splat(0);
        for (int64_t k = 0; k < depth; k++)
            UNROLL(r, 8) s[r] = fmadd(splat(x[k]), load(rows + k * ld + j + r * LANES), s[r]);
        UNROLL(r, 8) store(to + j + r * LANES, s[r]);
    }
    for (; j < n; j += LANES) {
        const int64_t at = smaller(j, n - LANES); /* may overlap the previous vector */
        vec s = splat(0);
        for (int64_t k = 0; k < depth; k++) {
            const float *row = rows + k * ld;
            s = fmadd(splat(x[k]), at < 0 ? load_part(row, n) : load(row + at), s);
        }
        if (at < 0) memcpy(to, &s, 4 * n);
        else store(to + at, s);
    }
}

/* --- few columns ------------------------------------------------------------------------ */

/* ROWS_AT_ONCE(N) rows of a times N columns; b holds one vector of each column, then the next
   vector of each. Missing rows at the end are replaced by the last row; their results are
   dropped. */
#define ROWS_AT_ONCE(N) ((LANES == 16 ? 24 : 12) / (N) < 8 ? (LANES == 16 ? 24 : 12) / (N) : 8)
#define DOTS(N)                                                                         \
    static void dots_##N(const float *a, int64_t ld, int64_t rows, int64_t depth,       \
                         const float *b, float *c, int add)                             \
    {                                                                                   \
        enum { R = ROWS_AT_ONCE(N) };                                                   \
        for (; rows > 0; rows -= R, a += R * ld, c += R * N) {                          \
            vec s[R][N], x[R];                                                          \
            const float *row[R], *y = b;                                                \
            UNROLL(i, R) {                                                              \
                row[i] = a + smaller(i, rows - 1) * ld;                                 \
                UNROLL(j, N) s[i][j] = splat(0);                                        \
            }                                                                           \
            for (int64_t k = 0; k < depth; k += LANES, y += N * LANES) {                \
                if (k + LANES <= depth) UNROLL(i, R) {                                  \
                    __builtin_prefetch(row[i] + k + R * ld, 0, 3);                      \
                    x[i] = load(row[i] + k);                                            \
                } else UNROLL(i, R) x[i] = load_part(row[i] + k, depth - k);            \
                UNROLL(j, N) UNROLL(i, R) s[i][j] = fmadd(x[i], load(y + j * LANES), s[i][j]);\
            }                                                                           \
            UNROLL(i, R) if (i < rows)                                                  \
                UNROLL(j, N) c[i * N + j] = total(s[i][j]) + (add ? c[i * N + j] : 0);  \
        }                                                                               \
    }
DOTS(2) DOTS(3) DOTS(4) DOTS(5) DOTS(6) DOTS(7) DOTS(8)

typedef void dots(const float *a, int64_t ld, int64_t rows, int64_t depth, const float *b,
                  float *c, int add);
static dots *const DOTS_OF[] = {0, 0, dots_2, dots_3, dots_4, dots_5, dots_6, dots_7, dots_8};

static void few_by_rows(factor a, factor b, float *c, int64_t m0, int64_t m1, int64_t n,
                        int64_t k, float *workspace)
{
    const int64_t step = b.transposed ? 1 : b.ld;
    for (int64_t k0 = 0; k0 < k; k0 += DEPTH) {
        const int64_t depth = smaller(DEPTH, k - k0);
        for (int64_t i = 0; i < depth; i += LANES) {
            const int64_t some = smaller(LANES, depth - i);
            float *to = workspace + i * n;
            if (some < LANES) memset(to, 0, 4 * LANES * n);
            for (int64_t j = 0; j < n; j++, to += LANES) {
                const float *from = element(b, k0 + i, j);
                for (int64_t h = 0; h < some; h++) to[h] = from[h * step];
            }
        }
        DOTS_OF[n](element(a, m0, k0), a.ld, m1 - m0, depth, workspace, c + m0 * n, k0 > 0);
    }
}

static void few_by_columns(factor a, factor b, float *c, int64_t m0, int64_t m1, int64_t n,
                           int64_t k, float *workspace)
{
    const factor left = {b.at, b.ld, !b.transposed};
    const epilogue none = {0};
    float part[FEW_COLUMNS * MC];
    for (int64_t i = m0; i < m1; i += MC) {
        const int64_t cols = smaller(MC, m1 - i);
        const factor right = {element(a, i, 0), a.ld, 0};
        rectangle(left, right, part, MC, 0, n, 0, cols, k, none, 0, workspace);
        for (int64_t j = 0; j < cols; j++) for (int64_t h = 0; h < n; h++)
            c[(i + j) * n + h] = part[h * MC + j];
    }
}

static void few_columns(factor a, factor b, float *c, int64_t m0, int64_t m1, int64_t n, int64_t k,
                        epilogue e, float *sums, float *workspace)
{
    if (n == 1) {
        if (a.transposed) combine_rows(b.at, a.at + m0, a.ld, k, m1 - m0, c + m0);
        else for (int64_t i = m0; i < m1; i++) c[i] = dot(a.at + i * k, b.at, k);
        apply_epilogue(e, c + m0, 1, m1 - m0, 1, m0, 0);
    } else {
        (a.transposed ? few_by_columns : few_by_rows)(a, b, c, m0, m1, n, k, workspace);
        apply_epilogue(e, c + m0 * n, n, m1 - m0, n, m0, 0);
    }
    const int64_t step = b.transposed ? 1 : b.ld;
    for (int64_t j = 0; sums && j < n; j++) {
        const float *from = element(b, 0, j);
        float run[4] = {0};
        int64_t i = 0;
        for (; i + 4 <= k; i += 4) UNROLL(r, 4) run[r] += from[(i + r) * step];
        for (; i < k; i++) run[0] += from[i * step];
        sums[j] = (run[0] + run[1]) + (run[2] + run[3]);
    }
}

#endif
