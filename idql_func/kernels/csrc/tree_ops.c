/* Operations on a whole tree of tensors in one pass over memory: Adam's step, a moving average,
   and a choice of members. Loaded by kernels/tree_ops.py.

   Adam and the average are written once, in tree_ops_real.h, for REAL, which is float or double. */

#include <math.h>
#include <stdint.h>
#include <string.h>

/* With fewer elements a second thread costs more time than it saves. */
#define SMALL 65536

/* Iterates over one thread's part of the elements. The elements of all leaves are numbered
   consecutively: rows * sizes[leaf] for each leaf. A thread takes an equal part [start, stop) of
   the numbers, as spans of n elements at offset `at` of one leaf and within one row. */
typedef struct {
    const int64_t *sizes;
    int64_t rows, start, stop, first, leaf, row, at, n;
} cursor;

static cursor part_of(const int64_t *sizes, int64_t leaves, int64_t rows, int part, int parts)
{
    int64_t total = 0;
    for (int64_t k = 0; k < leaves; k++) total += rows * sizes[k];
    cursor c = {sizes, rows, total / parts * part, total / parts * (part + 1), 0, 0, 0, 0, 0};
    if (part + 1 == parts) c.stop = total;
    return c;
}

static int next_span(cursor *c)
{
    while (c->start < c->stop) {
        const int64_t size = c->sizes[c->leaf], next = c->first + size;
        if (c->start < next) {
            const int64_t end = next < c->stop ? next : c->stop;
            c->at = c->row * size + c->start - c->first;
            c->n = end - c->start;
            c->start = end;
            return 1;
        }
        c->first = next;
        if (++c->row == c->rows) { c->row = 0; c->leaf++; }
    }
    return 0;
}

static int parts_of(const int64_t *sizes, int64_t leaves, int64_t rows, int threads)
{
    cursor all = part_of(sizes, leaves, rows, 0, 1);
    return all.stop < SMALL ? 1 : threads;
}

/* Copies chosen members of each leaf. leaves: count input addresses, then count output addresses;
   sizes: bytes of one member of each leaf; chosen: indices of members */
int64_t take(char *const *leaves, const int64_t *sizes, int64_t count, const int64_t *chosen,
             int64_t members, int64_t threads)
{
    const int parts = parts_of(sizes, count, members, threads);
    #pragma omp parallel for num_threads(parts) schedule(static)
    for (int64_t task = 0; task < members * count; task++) {
        const int64_t to = task / count, leaf = task % count, size = sizes[leaf];
        memcpy(leaves[count + leaf] + to * size, leaves[leaf] + chosen[to] * size, size);
    }
    return 0;
}

#define REAL float
#define SQRT sqrtf
#define NAME(FUNCTION) FUNCTION##_float
#include "tree_ops_real.h"
#undef REAL
#undef SQRT
#undef NAME

#define REAL double
#define SQRT sqrt
#define NAME(FUNCTION) FUNCTION##_double
#include "tree_ops_real.h"
