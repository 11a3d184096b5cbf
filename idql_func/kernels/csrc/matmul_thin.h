/* Matrix products in which the result has few columns, or the factors are two vectors.

   The first and last layers of a network, and their gradients, have a side of a few numbers. A
   tile of the general product would be mostly zeros there, and packed data would be used once.

   - k of 1, an outer product, is written row by row, so that memory is accessed in order.
   - n of 1 is a dot product for each row of the left factor or, if that is transposed, a linear
     combination of its rows.
   - n of at most FEW: a tile of dot products at a time, along rows of the left factor that are
     read without packing. If that is transposed, the transpose of the result is computed instead:
     a general product of few rows, which reads its panels without packing.

   A dot product is as many partial sums as a vector has lanes, added up by halves, in sections of
   DEEP elements. */
#ifndef MATMUL_THIN_H
#define MATMUL_THIN_H

#include "matmul_blocked.h"

/* --- one column or row ------------------------------------------------------------------ */

#define FEW (LANES == 16 ? 8 : 6)
#define DEEP 4096 /* FEW rows of this length stay in the second-level cache */

static void outer(factor a, factor b, float *c, int64_t m0, int64_t m1, int64_t n0, int64_t n1,
                  int64_t ldc, ending e, float *sums)
{
    for (int64_t i = m0; i < m1; i++) {
        for (int64_t j = n0; j < n1; j++) c[i * ldc + j] = a.at[i] * b.at[j];
        finish(e, c + i * ldc + n0, ldc, 1, n1 - n0, i, n0);
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
    EACH(i, LANES / 4) p[i] += p[i + LANES / 4];
    EACH(i, LANES / 8) p[i] += p[i + LANES / 8];
    return LANES == 16 ? p[0] + p[1] : p[0];
}

static float dot(const float *a, const float *b, int64_t n)
{
    vec run[4];
    EACH(r, 4) run[r] = splat(0);
    int64_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES)
        EACH(r, 4) run[r] = fused(load(a + k + r * LANES), load(b + k + r * LANES), run[r]);
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
static void combine(const float *x, const float *rows, int64_t ld, int64_t depth, int64_t n,
                    float *to)
{
    int64_t j = 0;
    for (; j + 8 * LANES <= n; j += 8 * LANES) {
        vec s[8];
        EACH(r, 8) s[r] = splat(0);
        for (int64_t k = 0; k < depth; k++)
            EACH(r, 8) s[r] = fused(splat(x[k]), load(rows + k * ld + j + r * LANES), s[r]);
        EACH(r, 8) store(to + j + r * LANES, s[r]);
    }
    for (; j < n; j += LANES) {
        const int64_t at = least(j, n - LANES); /* the last may overlap: same values */
        vec s = splat(0);
        for (int64_t k = 0; k < depth; k++) {
            const float *row = rows + k * ld;
            s = fused(splat(x[k]), at < 0 ? load_part(row, n) : load(row + at), s);
        }
        if (at < 0) memcpy(to, &s, 4 * n);
        else store(to + at, s);
    }
}

/* --- few columns ------------------------------------------------------------------------ */

/* AT_ONCE(N) rows of a times N columns; b holds a vector of each column in turn. Missing rows at
   the end are replaced by the last row, and their results are dropped. */
#define AT_ONCE(N) ((LANES == 16 ? 24 : 12) / (N) < 8 ? (LANES == 16 ? 24 : 12) / (N) : 8)
#define DOTS(N)                                                                         \
    static void dots_##N(const float *a, int64_t ld, int64_t rows, int64_t depth,       \
                         const float *b, float *c, int add)                             \
    {                                                                                   \
        enum { R = AT_ONCE(N) };                                                        \
        for (; rows > 0; rows -= R, a += R * ld, c += R * N) {                          \
            vec s[R][N], x[R];                                                          \
            const float *row[R], *y = b;                                                \
            EACH(i, R) {                                                                \
                row[i] = a + least(i, rows - 1) * ld;                                   \
                EACH(j, N) s[i][j] = splat(0);                                          \
            }                                                                           \
            for (int64_t k = 0; k < depth; k += LANES, y += N * LANES) {                \
                if (k + LANES <= depth) EACH(i, R) {                                    \
                    __builtin_prefetch(row[i] + k + R * ld, 0, 3);                      \
                    x[i] = load(row[i] + k);                                            \
                } else EACH(i, R) x[i] = load_part(row[i] + k, depth - k);              \
                EACH(j, N) EACH(i, R) s[i][j] = fused(x[i], load(y + j * LANES), s[i][j]); \
            }                                                                           \
            EACH(i, R) if (i < rows)                                                    \
                EACH(j, N) c[i * N + j] = total(s[i][j]) + (add ? c[i * N + j] : 0);    \
        }                                                                               \
    }
DOTS(2) DOTS(3) DOTS(4) DOTS(5) DOTS(6) DOTS(7) DOTS(8)

typedef void dots(const float *a, int64_t ld, int64_t rows, int64_t depth, const float *b,
                  float *c, int add);
static dots *const DOTS_OF[] = {0, 0, dots_2, dots_3, dots_4, dots_5, dots_6, dots_7, dots_8};

static void few_by_rows(factor a, factor b, float *c, int64_t m0, int64_t m1, int64_t n,
                        int64_t k, float *room)
{
    const int64_t step = b.transposed ? 1 : b.ld;
    for (int64_t k0 = 0; k0 < k; k0 += DEEP) {
        const int64_t depth = least(DEEP, k - k0);
        for (int64_t i = 0; i < depth; i += LANES) {
            const int64_t some = least(LANES, depth - i);
            float *to = room + i * n;
            if (some < LANES) memset(to, 0, 4 * LANES * n);
            for (int64_t j = 0; j < n; j++, to += LANES) {
                const float *from = entry(b, k0 + i, j);
                for (int64_t h = 0; h < some; h++) to[h] = from[h * step];
            }
        }
        DOTS_OF[n](entry(a, m0, k0), a.ld, m1 - m0, depth, room, c + m0 * n, k0 > 0);
    }
}

static void few_by_columns(factor a, factor b, float *c, int64_t m0, int64_t m1, int64_t n,
                           int64_t k, float *room)
{
    const factor left = {b.at, b.ld, !b.transposed};
    const ending none = {0};
    float part[FEW * MC];
    for (int64_t i = m0; i < m1; i += MC) {
        const int64_t cols = least(MC, m1 - i);
        const factor right = {entry(a, i, 0), a.ld, 0};
        rectangle(left, right, part, MC, 0, n, 0, cols, k, none, 0, room);
        for (int64_t j = 0; j < cols; j++) for (int64_t h = 0; h < n; h++)
            c[(i + j) * n + h] = part[h * MC + j];
    }
}

static void few_columns(factor a, factor b, float *c, int64_t m0, int64_t m1, int64_t n, int64_t k,
                        ending e, float *sums, float *room)
{
    if (n == 1) {
        if (a.transposed) combine(b.at, a.at + m0, a.ld, k, m1 - m0, c + m0);
        else for (int64_t i = m0; i < m1; i++) c[i] = dot(a.at + i * k, b.at, k);
        finish(e, c + m0, 1, m1 - m0, 1, m0, 0);
    } else {
        (a.transposed ? few_by_columns : few_by_rows)(a, b, c, m0, m1, n, k, room);
        finish(e, c + m0 * n, n, m1 - m0, n, m0, 0);
    }
    const int64_t step = b.transposed ? 1 : b.ld;
    for (int64_t j = 0; sums && j < n; j++) {
        const float *from = entry(b, 0, j);
        float run[4] = {0};
        int64_t i = 0;
        for (; i + 4 <= k; i += 4) EACH(r, 4) run[r] += from[(i + r) * step];
        for (; i < k; i++) run[0] += from[i * step];
        sums[j] = (run[0] + run[1]) + (run[2] + run[3]);
    }
}

#endif
