"""The C source of the matrix products (``matmul.py``): blocked, packed, prefetched.

The plan is that of K. Goto and R. van de Geijn, "Anatomy of high-performance matrix
multiplication" (2008). A thread has a rectangle of the result. It copies rows of the left factor
into blocks of ``MR`` and 32 (or 16) columns of the right one into a panel, both as the innermost
loop reads them; that loop keeps a tile of the result in registers. What differs from a library's
product is made for a training step, in which every operand comes from far away and is used once:

- The next panel is packed, and the next block fetched, while the present ones are multiplied.
  A panel that one or two blocks use is read where it lies.
- A bias, ``max(x, 0)`` and its derivative's gate are applied to a tile before it is stored.
- Columns of the right factor are summed while they are near: a bias's gradient beside that of
  its kernel.

The outer product of two vectors and results of few columns go other ways, which are in
``thin_matmul_c.py``. Which way is taken depends on n, k and the layouts alone.

An element is the sum over k, in order, of fused multiply-adds, in runs of ``KC`` that are added
up: it depends neither on the number of threads nor on the other rows.
"""

from __future__ import annotations

from idql_func.kernels.thin_matmul_c import THIN

__all__ = ["FLAGS", "SOURCE"]

FLAGS = ("-ffp-contract=fast",)
"""A product and a sum are one operation here, as in every library's matrix product."""

_ROWS = 14

_HEAD = r"""
#define _POSIX_C_SOURCE 200112L
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __FMA__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#define MR 14 /* 28 of 32 registers hold the tile */
#else
#define LANES 8
#define MR 6 /* 12 of 16 */
#endif
#define NR (2 * LANES)
#define NR_BITS (LANES == 16 ? 5 : 4)
#define KC 512      /* a panel, KC by NR, stays in the second-level cache */
#define MC 256      /* and so do MC rows of the left factor */
#define LINE 16     /* floats in a line of cache */
#define CHUNK 8     /* steps between two looks at what comes next */
#define APART (KC + LINE)  /* from row to row of a packed block */
#define TALL 16            /* from step to step of one that was packed by columns */
#define BLOCK (MR * APART > TALL * KC ? MR * APART : TALL * KC)
#define ROOM ((MC / MR + 2) * BLOCK + 2 * KC * NR)
#define SMALL 100000 /* of numbers multiplied, read or written: a second thread costs as much */

#define EACH(i, N) _Pragma("GCC unroll 16") for (int i = 0; i < N; i++)

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
/* x * y + s, rounded once. Left to itself, a compiler parts it where it thinks that faster. */
static inline vec fused(vec x, vec y, vec s)
{
#if defined(__FMA__) && LANES == 16
    return _mm512_fmadd_ps(x, y, s);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(x, y, s);
#else
    return x * y + s;
#endif
}
/* x, but 0 where gate is 0 or less; what is no number is not less */
static inline vec gated(vec gate, vec x) { return (vec)((bits)x & ~(bits)(gate <= splat(0))); }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
/* where part i of n even parts of m begins */
static inline int64_t edge(int64_t m, int64_t n, int64_t i) { return m * i / n; }

/* What will be wanted soon, and is seen to while the present is multiplied, quota at a time. Rows
   of the next panel are copied to it: row q, of NR, is at from + q * far. Otherwise (to is null)
   lines are fetched: line q is at from + (q >> shift) * far + (q & mask) * near. */
typedef struct {
    const float *from;
    float *to;
    int64_t far, near, shift, stop, next, quota;
} ahead;

static inline void prepare(ahead *w, int64_t quota)
{
    const int64_t stop = least(w->next + quota, w->stop), mask = (1 << w->shift) - 1;
    if (w->to)
        for (; w->next < stop; w->next++) {
            const float *row = w->from + w->next * w->far, *soon = row + 2 * quota * w->far;
            for (int64_t j = 0; j < NR; j += LANES) {
                __builtin_prefetch(soon + j, 0, 3);
                store(w->to + w->next * NR + j, load(row + j));
            }
        }
    else
        for (; w->next < stop; w->next++)
            __builtin_prefetch(
                w->from + (w->next >> w->shift) * w->far + (w->next & mask) * w->near, 0, 2);
}

/* --- the innermost loop: a tile of ROWS by VECS * LANES of the result ----------------- */

/* what is done to a part of the result once its sums are complete */
typedef struct { const float *bias, *gate; int relu; } ending;

/* a is a packed block; rows of b and c are a step apart; c is added to what is there or not */
typedef struct {
    const float *a, *b;
    float *c;
    int64_t depth, b_step, c_step;
    int add;
    ending end;
} tile;

typedef void kernel(const tile *t, ahead *soon);

/* a(i, k) is a[i * SI + k * SK]. Where the result and its gate lie is fetched row by row while the
   sums are made: all at once, these requests would hold up those for the factors. */
#define STEP(k, ROWS, VECS, SI, SK)                                                     \
    {                                                                                   \
        vec row[VECS];                                                                  \
        EACH(j, VECS) row[j] = load(b + (k) * b_step + j * LANES);                      \
        EACH(i, ROWS) {                                                                 \
            const vec x = splat(a[i * (SI) + (k) * (SK)]);                              \
            EACH(j, VECS) s[i][j] = fused(x, row[j], s[i][j]);                          \
        }                                                                               \
    }
#define KERNEL(NAME, ROWS, VECS, SI, SK)                                                \
    static void NAME(const tile *t, ahead *soon)                                        \
    {                                                                                   \
        const int64_t depth = t->depth, b_step = t->b_step, c_step = t->c_step;         \
        const float *a = t->a, *b = t->b, *bias = t->end.bias, *gate = t->end.gate;     \
        float *c = t->c;                                                                \
        vec s[ROWS][VECS];                                                              \
        EACH(i, ROWS) EACH(j, VECS) s[i][j] = splat(0);                                 \
        const int64_t each = (ROWS * CHUNK + depth - 1) / depth;                        \
        int64_t fetched = 0;                                                            \
        int64_t k = 0;                                                                  \
        for (; k + CHUNK <= depth; k += CHUNK) {                                        \
            prepare(soon, soon[0].quota);                                               \
            prepare(soon + 1, soon[1].quota);                                           \
            for (; fetched < least(ROWS, (k / CHUNK + 1) * each); fetched++) {          \
                EACH(j, VECS) __builtin_prefetch(c + j * LANES, 1, 3);                  \
                if (gate) EACH(j, VECS) __builtin_prefetch(gate + j * LANES, 0, 3);     \
                c += c_step, gate = gate ? gate + c_step : 0;                           \
            }                                                                           \
            for (int64_t n = 0; n < CHUNK; n++) STEP(n, ROWS, VECS, SI, SK)             \
            a += CHUNK * (SK);                                                          \
            b += CHUNK * b_step;                                                        \
        }                                                                               \
        for (; k < depth; k++, a += (SK), b += b_step) STEP(0, ROWS, VECS, SI, SK)      \
        c = t->c, gate = t->end.gate;                                                   \
        if (t->add) EACH(i, ROWS) {                                                     \
            EACH(j, VECS) s[i][j] += load(c + j * LANES);                               \
            c += c_step;                                                                \
        }                                                                               \
        if (bias) EACH(j, VECS) {                                                       \
            const vec x = load(bias + j * LANES);                                       \
            EACH(i, ROWS) s[i][j] += x;                                                 \
        }                                                                               \
        if (t->end.relu) EACH(i, ROWS) EACH(j, VECS) s[i][j] = gated(s[i][j], s[i][j]); \
        if (gate) EACH(i, ROWS) {                                                       \
            EACH(j, VECS) s[i][j] = gated(load(gate + j * LANES), s[i][j]);             \
            gate += c_step;                                                             \
        }                                                                               \
        c = t->c;                                                                       \
        EACH(i, ROWS) {                                                                 \
            EACH(j, VECS) store(c + j * LANES, s[i][j]);                                \
            c += c_step;                                                                \
        }                                                                               \
    }
#define KERNELS_OF(R)                                                                   \
    KERNEL(row_##R##_2, R, 2, APART, 1) KERNEL(row_##R##_1, R, 1, APART, 1)             \
    KERNEL(column_##R##_2, R, 2, 1, TALL) KERNEL(column_##R##_1, R, 1, 1, TALL)
"""

_RECTANGLE = r"""
/* --- packing -------------------------------------------------------------------------- */

#if defined(__has_builtin) && LANES == 16
#if __has_builtin(__builtin_shufflevector)
#define SQUARE 16
#define PICK(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
/* 16 rows of 16 to columns: blocks of 8, 4, 2 and 1 change places */
static inline void transpose(const float *from, int64_t ld, float *to)
{
    vec r[16], u[16];
    EACH(i, 16) r[i] = load(from + i * ld);
    EACH(i, 8) {
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
    EACH(i, 16) store(to + i * NR, r[i]);
}
#endif
#endif

/* depth rows of width from the right factor, zeros beyond its cols columns */
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

static void pack_block(const float *a, int64_t ld, int transposed, int64_t rows, int64_t depth,
                       float *to)
{
    if (!transposed) {
        int64_t i = 0;
        for (; i < rows && (rows - 1 - i) * ld >= LANES; i++)
            for (int64_t k = 0; k < depth; k += LANES)
                store(to + i * APART + k, load(a + i * ld + k));
        for (; i < rows; i++) memcpy(to + i * APART, a + i * ld, 4 * depth);
        return;
    }
    /* more than is wanted of each row but the last, behind which memory may end */
    int64_t k = 0;
    for (; k < depth && (depth - 1 - k) * ld + rows >= TALL; k++)
        for (int64_t i = 0; i < TALL; i += LANES) store(to + k * TALL + i, load(a + k * ld + i));
    for (; k < depth; k++) memcpy(to + k * TALL, a + k * ld, 4 * rows);
}

/* Sums of a panel's columns: four runs side by side, so that the error grows with a quarter. */
static void sum_panel(const float *panel, int64_t step, int64_t depth, int64_t cols, int add,
                      float *sums)
{
    for (int64_t j = 0; j < cols; j += LANES) {
        vec run[4];
        float total[LANES];
        EACH(r, 4) run[r] = splat(0);
        int64_t k = 0;
        for (; k + 4 <= depth; k += 4) EACH(r, 4) run[r] += load(panel + (k + r) * step + j);
        for (; k < depth; k++) run[0] += load(panel + k * step + j);
        store(total, (run[0] + run[1]) + (run[2] + run[3]));
        for (int64_t i = 0; i < least(LANES, cols - j); i++)
            sums[j + i] = total[i] + (add ? sums[j + i] : 0);
    }
}

/* The same to what is stored already: parts of a tile, vectors. */
static void finish(ending e, float *c, int64_t ldc, int64_t rows, int64_t cols, int64_t row,
                   int64_t column)
{
    for (int64_t i = 0; i < rows; i++) {
        float *x = c + i * ldc;
        if (e.bias) {
            const float *bias = e.bias + column;
            for (int64_t j = 0; j < cols; j++) x[j] += bias[j];
        }
        if (e.relu)
            for (int64_t j = 0; j < cols; j++) x[j] = x[j] <= 0 ? 0 : x[j]; /* nan stays */
        if (e.gate) {
            const float *gate = e.gate + (row + i) * ldc + column;
            for (int64_t j = 0; j < cols; j++) x[j] = gate[j] <= 0 ? 0 : x[j];
        }
    }
}

/* --- a rectangle of the result --------------------------------------------------------- */

typedef struct { const float *at; int64_t ld; int transposed; } factor;

static const float *entry(factor f, int64_t row, int64_t column)
{
    return f.transposed ? f.at + column * f.ld + row : f.at + row * f.ld + column;
}

static void rectangle(factor a, factor b, float *c, int64_t ldc, int64_t m0, int64_t m1,
                      int64_t n0, int64_t n1, int64_t k, ending e, float *sums, float *room)
{
    float *panel = room + (MC / MR + 2) * BLOCK, *other = panel + KC * NR, part_tile[MR * NR];
    const int64_t portions = (m1 - m0 + MC - 1) / MC, panels = (n1 - n0 + NR - 1) / NR;
    const int64_t steps = (k + KC - 1) / KC * portions * panels;
    const int in_place = !b.transposed && m1 - m0 <= 2 * MR; /* packing would not pay */
    ahead soon[2] = {{0}};
    for (int64_t step = 0; step < steps; step++) {
        const int64_t n = n0 + step % panels * NR, portion = step / panels % portions;
        const int64_t k0 = step / panels / portions * KC, depth = least(KC, k - k0);
        const int64_t top = m0 + edge(m1 - m0, portions, portion);
        const int64_t rows = m0 + edge(m1 - m0, portions, portion + 1) - top;
        const int64_t blocks = (rows + MR - 1) / MR, chunks = depth < CHUNK ? 1 : depth / CHUNK;
        const int64_t cols = least(NR, n1 - n), width = cols > LANES ? NR : LANES;
        const float *right = in_place && cols == NR ? entry(b, k0, n) : panel;
        const int64_t right_step = right == panel ? width : b.ld;
        if (soon[0].to) prepare(soon, soon[0].stop); /* what is left */
        else if (right == panel)
            pack_panel(entry(b, k0, n), b.ld, b.transposed, depth, cols, width, panel);
        if (sums && portion == 0)
            sum_panel(right, right_step, depth, cols, k0 > 0, sums + n);
        soon[0] = (ahead){0};
        if (step + 1 < steps) {
            const int64_t n_next = n0 + (step + 1) % panels * NR;
            const int64_t k_next = (step + 1) / panels / portions * KC;
            const int64_t deep = least(KC, k - k_next);
            const float *from = entry(b, k_next, n_next);
            if (b.transposed)
                soon[0] = (ahead){from, 0, LINE, b.ld, NR_BITS, (deep + LINE - 1) / LINE * NR};
            else if (in_place)
                soon[0] = (ahead){from, 0, b.ld, LINE, NR_BITS - 4, deep * (NR / LINE)};
            else if (n_next + NR <= n1) soon[0] = (ahead){from, other, b.ld, 0, 0, deep};
            soon[0].quota = (soon[0].stop + blocks * chunks - 1) / (blocks * chunks);
        }
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t row = top + edge(rows, blocks, block);
            const int64_t after = top + edge(rows, blocks, block + 1), height = after - row;
            float *packed = room + block * BLOCK, *to = c + row * ldc + n;
            soon[1].stop = 0;
            if (n == n0) {
                pack_block(entry(a, row, k0), a.ld, a.transposed, height, depth, packed);
                if (block + 1 < blocks) {
                    const float *from = entry(a, after, k0);
                    const int64_t lines = (depth + LINE - 1) / LINE;
                    if (a.transposed) soon[1] = (ahead){from, 0, a.ld, MR - 1, 1, 2 * depth};
                    else soon[1] = (ahead){from, 0, LINE, a.ld, 4, lines * 16};
                    soon[1].quota = (soon[1].stop + chunks - 1) / chunks;
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
            KERNELS[a.transposed][width == NR][height](&t, soon);
            if (whole) continue;
            for (int64_t i = 0; i < height; i++) for (int64_t j = 0; j < cols; j++)
                to[i * ldc + j] = part_tile[i * NR + j] + (k0 ? to[i * ldc + j] : 0);
            if (last) finish(e, to, ldc, height, cols, row, n);
        }
        float *done = panel;
        panel = other;
        other = done;
    }
}

"""

_PRODUCT = r"""
static float *room(void)
{
    static __thread float *mine; /* as long as the thread lives */
    void *fresh;
    if (!mine && posix_memalign(&fresh, 4096, 4 * ROOM) == 0) mine = fresh;
    return mine;
}

typedef struct {
    const float *a, *b;
    float *c;
    const float *bias, *gate;
    float *sums;
    int64_t batch, m, n, k, a_step, b_step, bias_step, a_transposed, b_transposed, relu, threads;
} problem; /* see product */

/* Rows m0 to m1 and columns n0 to n1 of member g; whether memory was short. */
static int part_of(const problem *p, int64_t g, int64_t m0, int64_t m1, int64_t n0, int64_t n1)
{
    const int64_t m = p->m, n = p->n, k = p->k;
    const factor left = {p->a + g * p->a_step, p->a_transposed ? m : k, p->a_transposed != 0};
    const factor right = {p->b + g * p->b_step, p->b_transposed ? k : n, p->b_transposed != 0};
    const ending e = {p->bias ? p->bias + g * p->bias_step : 0,
                      p->gate ? p->gate + g * m * n : 0, p->relu != 0};
    float *out = p->c + g * m * n, *sums = p->sums && m0 == 0 ? p->sums + g * n : 0;
    float *mine = room();
    if (m0 == m1 || n0 == n1) return 0;
    if (!mine) return 1;
    if (k == 1) outer(left, right, out, m0, m1, n0, n1, n, e, sums);
    else if (n <= FEW) few_columns(left, right, out, m0, m1, n, k, e, sums, mine);
    else rectangle(left, right, out, n, m0, m1, n0, n1, k, e, sums, mine);
    return 0;
}

/* For each g < batch: c_g [m, n] = a_g [m, k] b_g [k, n], of which a transposed factor lies as
   [k, m] or [n, k] in memory. A step of 0 takes the same factor for each g. bias [batch, n] (or
   [n] with a step of 0) is added, then relu taken, then what has a gate [batch, m, n] of no more
   than 0 made 0; each may be null or 0. sums [batch, n] takes the sums of b's columns.
   Returns 0, or 1 where memory is short. */
int64_t product(const float *a, const float *b, float *c, const float *bias, const float *gate,
                float *sums, int64_t batch, int64_t m, int64_t n, int64_t k, int64_t a_step,
                int64_t b_step, int64_t bias_step, int64_t a_transposed, int64_t b_transposed,
                int64_t relu, int64_t threads)
{
    const problem p = {a, b, c, bias, gate, sums, batch, m, n, k, a_step, b_step, bias_step,
                       a_transposed, b_transposed, relu, threads};
    const int64_t panels = (n + NR - 1) / NR;
    int down = 1, across = 1, failed = 0;
    if (batch * (m * n * k + m * k + k * n + 2 * m * n) < SMALL) threads = 1;
    if (batch % threads) {
        double best = 0;
        for (int i = 1; i <= threads; i++) if (threads % i == 0) {
            /* the largest rectangle's work; packing costs as two more rows and columns do.
               Rows are the better parts: what is fetched ahead is never another's. */
            const double rows = (m + i - 1) / i + 2;
            const double columns = (panels + threads / i - 1) / (threads / i) * NR + 2;
            if (i == 1 || rows * columns <= best) best = rows * columns, down = i;
        }
        across = threads / down;
    }
    const int64_t parts = (int64_t)down * across, tasks = batch * parts;
    #pragma omp parallel for num_threads(threads) schedule(static) reduction(|:failed)
    for (int64_t task = 0; task < tasks; task++) {
        const int64_t g = task / parts, x = task / across % down, y = task % across;
        failed |= part_of(&p, g, edge(m, down, x), edge(m, down, x + 1),
                          edge(panels, across, y) * NR, least(n, edge(panels, across, y + 1) * NR));
    }
    return failed;
}

/* Several products of one batch, given by product's arguments in a row, member by member: what
   one makes, the next finds in the cache. A member may read no other member's results. */
int64_t products(int64_t count, const problem *list)
{
    int failed = 0;
    #pragma omp parallel for num_threads(list->threads) schedule(static) reduction(|:failed)
    for (int64_t g = 0; g < list->batch; g++)
        for (const problem *p = list; p < list + count; p++)
            failed |= part_of(p, g, 0, p->m, 0, p->n);
    return failed;
}
"""


def _table() -> str:
    """The kernels of every height, and where to find them by layout, width and height."""

    def names(rows: int, layout: str, width: int) -> str:
        found = [f"{layout}_{i}_{width}" for i in range(1, rows + 1)]
        return "{0, " + ", ".join(found) + "}"

    def tables(rows: int) -> str:
        sides = (
            "{" + ", ".join(names(rows, layout, width) for width in (1, 2)) + "}"
            for layout in ("row", "column")
        )
        return (
            "\n".join(f"KERNELS_OF({i})" for i in range(1, rows + 1))
            + "\nstatic kernel *const KERNELS[2][2][MR + 1] = {"
            + ", ".join(sides)
            + "};"
        )

    return f"\n#if MR == {_ROWS}\n{tables(_ROWS)}\n#else\n{tables(6)}\n#endif\n"


SOURCE = "".join((_HEAD, _table(), _RECTANGLE, THIN, _PRODUCT))
