/* float32 matrix products: blocked, packed and prefetched. Loaded by kernels/matmul.py.

   The method is that of K. Goto and R. van de Geijn, "Anatomy of high-performance matrix
   multiplication" (2008). Each thread computes a rectangle of the result. It copies rows of the
   left factor into blocks of MR rows, and 32 (or 16) columns of the right factor into a panel,
   both in the order in which the innermost loop reads them; that loop keeps a tile of the result
   in registers. It differs from a general library because in a training step every operand comes
   from main memory and is used once:

   - The next panel is packed, and the next block prefetched, while the current ones are multiplied.
     A panel that only one or two blocks use is read without packing.
   - A bias, max(x, 0) and the mask of its derivative (the gate) are applied to a tile before it is
     stored.
   - Columns of the right factor are summed while they are in the cache: this gives the gradient
     of a bias together with that of its kernel.

   Outer products and results of few columns are in matmul_thin.h. The choice of the method depends
   only on n, k and the layouts.

   An element is the sum over k, in order, of fused multiply-adds, in sections of KC that are added
   up: it depends neither on the number of threads nor on the other rows. */

#define _POSIX_C_SOURCE 200112L /* posix_memalign */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "matmul_thin.h"

/* Returns the workspace of this thread, or null if memory cannot be allocated. */
static float *thread_workspace(void)
{
    static __thread float *workspace; /* allocated once for each thread */
    void *memory;
    if (!workspace && posix_memalign(&memory, 4096, 4 * WORKSPACE) == 0) workspace = memory;
    return workspace;
}

typedef struct {
    const float *a, *b;
    float *c;
    const float *bias, *gate;
    float *sums;
    int64_t batch, m, n, k, a_step, b_step, bias_step, a_transposed, b_transposed, relu, threads;
} product; /* see fused_matmul */

/* Computes rows m0 to m1 and columns n0 to n1 of member g; returns 1 without memory. */
static int compute_part(const product *p, int64_t g, int64_t m0, int64_t m1, int64_t n0, int64_t n1)
{
    const int64_t m = p->m, n = p->n, k = p->k;
    const factor left = {p->a + g * p->a_step, p->a_transposed ? m : k, p->a_transposed != 0};
    const factor right = {p->b + g * p->b_step, p->b_transposed ? k : n, p->b_transposed != 0};
    const epilogue e = {p->bias ? p->bias + g * p->bias_step : 0,
                      p->gate ? p->gate + g * m * n : 0, p->relu != 0};
    float *out = p->c + g * m * n, *sums = p->sums && m0 == 0 ? p->sums + g * n : 0;
    float *workspace = thread_workspace();
    if (m0 == m1 || n0 == n1) return 0;
    if (!workspace) return 1;
    if (k == 1) outer(left, right, out, m0, m1, n0, n1, n, e, sums);
    else if (n <= FEW_COLUMNS) few_columns(left, right, out, m0, m1, n, k, e, sums, workspace);
    else rectangle(left, right, out, n, m0, m1, n0, n1, k, e, sums, workspace);
    return 0;
}

/* For each g < batch: c_g [m, n] = a_g [m, k] b_g [k, n]; a transposed factor is stored as [k, m]
   or [n, k]. With a step of 0 all g share one factor. Then bias [batch, n] (or [n] with a step of
   0) is added, max(x, 0) is taken if relu is set, and elements whose gate [batch, m, n] is <= 0
   are set to 0; bias and gate may be null. If sums [batch, n] is not null, it receives the sums
   of b's columns. Returns 0, or 1 if memory cannot be allocated. */
int64_t fused_matmul(const float *a, const float *b, float *c, const float *bias,
                     const float *gate, float *sums, int64_t batch, int64_t m, int64_t n,
                     int64_t k, int64_t a_step, int64_t b_step, int64_t bias_step,
                     int64_t a_transposed, int64_t b_transposed, int64_t relu, int64_t threads)
{
    const product p = {a, b, c, bias, gate, sums, batch, m, n, k, a_step, b_step, bias_step,
                       a_transposed, b_transposed, relu, threads};
    const int64_t panels = (n + NR - 1) / NR;
    int down = 1, across = 1, failed = 0;
    if (batch * (m * n * k + m * k + k * n + 2 * m * n) < SMALL) threads = 1;
    if (batch % threads) {
        double best = 0;
        for (int i = 1; i <= threads; i++) if (threads % i == 0) {
            /* The work of the largest rectangle; packing costs as much as two more rows and
               columns. Dividing rows is preferred: threads then prefetch no common data. */
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
        failed |= compute_part(&p, g, part_start(m, down, x), part_start(m, down, x + 1),
                               part_start(panels, across, y) * NR,
                               smaller(n, part_start(panels, across, y + 1) * NR));
    }
    return failed;
}

/* Several products of one batch size, each given by the arguments of fused_matmul, computed member
   by member, so that the results of one product are in the cache for the next. A member may not
   read another member's results. */
int64_t fused_matmul_sequence(int64_t count, const product *list)
{
    int failed = 0;
    #pragma omp parallel for num_threads(list->threads) schedule(static) reduction(|:failed)
    for (int64_t g = 0; g < list->batch; g++)
        for (const product *p = list; p < list + count; p++)
            failed |= compute_part(p, g, 0, p->m, 0, p->n);
    return failed;
}
