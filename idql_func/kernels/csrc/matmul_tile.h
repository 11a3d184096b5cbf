/* The innermost loop of the matrix product: a tile of the result, kept in registers. */
#ifndef MATMUL_TILE_H
#define MATMUL_TILE_H

#include <stdint.h>
#include <string.h>
#ifdef __FMA__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#define MR 14 /* 28 of 32 registers hold the tile */
#else
#define LANES 8
#define MR 6 /* 12 of 16 registers */
#endif
#define NR (2 * LANES)
#define NR_BITS (LANES == 16 ? 5 : 4)
#define KC 512      /* a panel, KC by NR, stays in the second-level cache */
#define MC 256      /* and so do MC rows of the left factor */
#define LINE 16     /* floats in a line of cache */
#define CHUNK 8     /* steps of k between two portions of lookahead work */
#define ROW_DISTANCE (KC + LINE)  /* distance of rows in a block packed by rows */
#define STEP_DISTANCE 16          /* distance of steps in a block packed by columns */
#define BLOCK (MR * ROW_DISTANCE > STEP_DISTANCE * KC ? MR * ROW_DISTANCE : STEP_DISTANCE * KC)
#define WORKSPACE ((MC / MR + 2) * BLOCK + 2 * KC * NR)
#define SMALL 100000 /* operations and accesses below which a second thread costs more time */

#define UNROLL(i, N) _Pragma("GCC unroll 16") for (int i = 0; i < N; i++)

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t bits __attribute__((vector_size(4 * LANES), may_alias));
static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec x) { *(vec *)p = x; }
static inline vec splat(float x)
{
#if LANES == 16
    return (vec){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#else
    return (vec){x, x, x, x, x, x, x, x};
#endif
}
/* x * y + s, rounded once. The intrinsics keep a compiler from splitting it for speed. */
static inline vec fmadd(vec x, vec y, vec s)
{
#if defined(__FMA__) && LANES == 16
    return _mm512_fmadd_ps(x, y, s);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(x, y, s);
#else
    return x * y + s;
#endif
}
/* x, but 0 where gate <= 0; NaN compares false, so x is kept there */
static inline vec masked(vec gate, vec x) { return (vec)((bits)x & ~(bits)(gate <= splat(0))); }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
/* the start of part i when m is divided into n equal parts */
static inline int64_t part_start(int64_t m, int64_t n, int64_t i) { return m * i / n; }

/* Work for a later step, done in portions of quota while the current step multiplies. If `to` is
   set, rows of the next panel are packed into it: row q, of NR floats, is at from + q * far.
   Otherwise cache lines are prefetched: line q is at from + (q >> shift) * far + (q & mask) * near
   with mask = 2**shift - 1. */
typedef struct {
    const float *from;
    float *to;
    int64_t far, near, shift, stop, next, quota;
} lookahead;

static inline void advance(lookahead *w, int64_t quota)
{
    const int64_t stop = smaller(w->next + quota, w->stop), mask = (1 << w->shift) - 1;
    if (w->to)
        for (; w->next < stop; w->next++) {
            const float *row = w->from + w->next * w->far, *later = row + 2 * quota * w->far;
            for (int64_t j = 0; j < NR; j += LANES) {
                __builtin_prefetch(later + j, 0, 3);
                store(w->to + w->next * NR + j, load(row + j));
            }
        }
    else
        for (; w->next < stop; w->next++)
            __builtin_prefetch(
                w->from + (w->next >> w->shift) * w->far + (w->next & mask) * w->near, 0, 2);
}

/* --- the innermost loop: a tile of ROWS by VECS * LANES of the result ----------------- */

/* operations on a part of the result after its sums are complete */
typedef struct { const float *bias, *gate; int relu; } epilogue;

/* a is a packed block; b_step and c_step are the distances of rows; add: accumulate into c */
typedef struct {
    const float *a, *b;
    float *c;
    int64_t depth, b_step, c_step;
    int add;
    epilogue end;
} tile;

typedef void kernel(const tile *t, lookahead *later);

/* a(i, k) is a[i * SI + k * SK]. The memory of the result and its gate is prefetched row by row
   while the sums are computed: prefetched all at once, it would delay the loads of the factors. */
#define STEP(k, ROWS, VECS, SI, SK)                                                     \
    {                                                                                   \
        vec row[VECS];                                                                  \
        UNROLL(j, VECS) row[j] = load(b + (k) * b_step + j * LANES);                    \
        UNROLL(i, ROWS) {                                                               \
            const vec x = splat(a[i * (SI) + (k) * (SK)]);                              \
            UNROLL(j, VECS) s[i][j] = fmadd(x, row[j], s[i][j]);                        \
        }                                                                               \
    }
#define KERNEL(NAME, ROWS, VECS, SI, SK)                                                \
    static void NAME(const tile *t, lookahead *later)                                   \
    {                                                                                   \
        const int64_t depth = t->depth, b_step = t->b_step, c_step = t->c_step;         \
        const float *a = t->a, *b = t->b, *bias = t->end.bias, *gate = t->end.gate;     \
        float *c = t->c;                                                                \
        vec s[ROWS][VECS];                                                              \
        UNROLL(i, ROWS) UNROLL(j, VECS) s[i][j] = splat(0);                             \
        const int64_t each = (ROWS * CHUNK + depth - 1) / depth;                        \
        int64_t fetched = 0;                                                            \
        int64_t k = 0;                                                                  \
        for (; k + CHUNK <= depth; k += CHUNK) {                                        \
            advance(later, later[0].quota);                                             \
            advance(later + 1, later[1].quota);                                         \
            for (; fetched < smaller(ROWS, (k / CHUNK + 1) * each); fetched++) {        \
                UNROLL(j, VECS) __builtin_prefetch(c + j * LANES, 1, 3);                \
                if (gate) UNROLL(j, VECS) __builtin_prefetch(gate + j * LANES, 0, 3);   \
                c += c_step, gate = gate ? gate + c_step : 0;                           \
            }                                                                           \
            for (int64_t n = 0; n < CHUNK; n++) STEP(n, ROWS, VECS, SI, SK)             \
            a += CHUNK * (SK);                                                          \
            b += CHUNK * b_step;                                                        \
        }                                                                               \
        for (; k < depth; k++, a += (SK), b += b_step) STEP(0, ROWS, VECS, SI, SK)      \
        c = t->c, gate = t->end.gate;                                                   \
        if (t->add) UNROLL(i, ROWS) {                                                   \
            UNROLL(j, VECS) s[i][j] += load(c + j * LANES);                             \
            c += c_step;                                                                \
        }                                                                               \
        if (bias) UNROLL(j, VECS) {                                                     \
            const vec x = load(bias + j * LANES);                                       \
            UNROLL(i, ROWS) s[i][j] += x;                                               \
        }                                                                               \
        if (t->end.relu) UNROLL(i, ROWS) UNROLL(j, VECS) s[i][j] = masked(s[i][j], s[i][j]);\
        if (gate) UNROLL(i, ROWS) {                                                     \
            UNROLL(j, VECS) s[i][j] = masked(load(gate + j * LANES), s[i][j]);          \
            gate += c_step;                                                             \
        }                                                                               \
        c = t->c;                                                                       \
        UNROLL(i, ROWS) {                                                               \
            UNROLL(j, VECS) store(c + j * LANES, s[i][j]);                              \
            c += c_step;                                                                \
        }                                                                               \
    }
#define KERNELS_OF(R)                                                                   \
    KERNEL(row_##R##_2, R, 2, ROW_DISTANCE, 1) KERNEL(row_##R##_1, R, 1, ROW_DISTANCE, 1)\
    KERNEL(column_##R##_2, R, 2, 1, STEP_DISTANCE) KERNEL(column_##R##_1, R, 1, 1, STEP_DISTANCE)

KERNELS_OF(1) KERNELS_OF(2) KERNELS_OF(3) KERNELS_OF(4) KERNELS_OF(5) KERNELS_OF(6)
#define HEIGHTS_TO_6(LAYOUT, VECS)                                                      \
    0, LAYOUT##_1_##VECS, LAYOUT##_2_##VECS, LAYOUT##_3_##VECS, LAYOUT##_4_##VECS,      \
    LAYOUT##_5_##VECS, LAYOUT##_6_##VECS
#if MR == 14
KERNELS_OF(7) KERNELS_OF(8) KERNELS_OF(9) KERNELS_OF(10) KERNELS_OF(11) KERNELS_OF(12)
KERNELS_OF(13) KERNELS_OF(14)
#define HEIGHTS(LAYOUT, VECS)                                                           \
    {HEIGHTS_TO_6(LAYOUT, VECS), LAYOUT##_7_##VECS, LAYOUT##_8_##VECS, LAYOUT##_9_##VECS,\
     LAYOUT##_10_##VECS, LAYOUT##_11_##VECS, LAYOUT##_12_##VECS, LAYOUT##_13_##VECS,    \
     LAYOUT##_14_##VECS}
#else
#define HEIGHTS(LAYOUT, VECS) {HEIGHTS_TO_6(LAYOUT, VECS)}
#endif

/* KERNELS[left factor transposed][two vectors wide][rows] */
static kernel *const KERNELS[2][2][MR + 1] = {
    {HEIGHTS(row, 1), HEIGHTS(row, 2)},
    {HEIGHTS(column, 1), HEIGHTS(column, 2)},
};

#endif
