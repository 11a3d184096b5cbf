/* Adam's step and the moving average for one type. tree_ops.c includes this file twice, with
   REAL, its square root SQRT, and NAME(f), which is f_float or f_double. */

static REAL NAME(correction)(double b, int32_t count, int wide)
{
    if (wide) return (REAL)(1.0 - pow(b, (double)count));
    return (REAL)(1.0f - powf((float)b, (float)count));
}

#define ADAM(FIRST, SECOND, UPDATE)                                              \
    _Pragma("GCC ivdep")                                                         \
    for (int64_t i = 0; i < c.n; i++) {                                          \
        const REAL m1 = one_b1 * g[i] + b1 * m[i];                               \
        const REAL v1 = one_b2 * (g[i] * g[i]) + b2 * v[i];                      \
        const REAL u = (FIRST) / (SQRT(SECOND) + eps);                           \
        m_out[i] = m1;                                                           \
        v_out[i] = v1;                                                           \
        p_out[i] = p[i] + step_size * (UPDATE);                                  \
    }
/* A correction rounds to 1 once b to the power of count is below half an ulp of 1: from step 165
   on for a b of 0.9. Skipping the division saves a third of the time and changes no value. */
#define ADAM_AT_ANY_STEP(UPDATE)                                                 \
    if (correction1 == 1 && correction2 == 1) ADAM(m1, v1, UPDATE)               \
    else if (correction1 == 1) ADAM(m1, v1 / correction2, UPDATE)                \
    else ADAM(m1 / correction1, v1 / correction2, UPDATE)

/* Adam's step. tensors: addresses of all leaves of grads, params, mu, nu, and of the outputs for
   params, mu and nu. constants: b1, b2, eps, weight decay, and the step size, which is used if
   step_sizes (one for each row) is null. */
int64_t NAME(adam)(REAL *const *tensors, const int64_t *sizes, const uint8_t *decayed,
                  int64_t leaves, int64_t rows, const int32_t *count, int32_t *count_out,
                  int64_t wide, const REAL *step_sizes, const double *constants, int64_t threads)
{
    const REAL one_b1 = (REAL)(1.0 - constants[0]), b1 = (REAL)constants[0];
    const REAL one_b2 = (REAL)(1.0 - constants[1]), b2 = (REAL)constants[1];
    const REAL eps = (REAL)constants[2], decay = (REAL)constants[3];
    for (int64_t row = 0; row < rows; row++)
        count_out[row] = count[row] < INT32_MAX ? count[row] + 1 : INT32_MAX;
    const int parts = parts_of(sizes, leaves, rows, threads);
    #pragma omp parallel for num_threads(parts) schedule(static)
    for (int part = 0; part < parts; part++) {
        cursor c = part_of(sizes, leaves, rows, part, parts);
        while (next_span(&c)) {
            const REAL *g = tensors[c.leaf] + c.at, *p = tensors[leaves + c.leaf] + c.at;
            const REAL *m = tensors[2 * leaves + c.leaf] + c.at;
            const REAL *v = tensors[3 * leaves + c.leaf] + c.at;
            REAL *p_out = tensors[4 * leaves + c.leaf] + c.at;
            REAL *m_out = tensors[5 * leaves + c.leaf] + c.at;
            REAL *v_out = tensors[6 * leaves + c.leaf] + c.at;
            const REAL correction1 = NAME(correction)(constants[0], count_out[c.row], wide);
            const REAL correction2 = NAME(correction)(constants[1], count_out[c.row], wide);
            const REAL step_size = step_sizes ? step_sizes[c.row] : (REAL)constants[4];
            if (decayed[c.leaf]) { ADAM_AT_ANY_STEP(u + decay * p[i]) }
            else { ADAM_AT_ANY_STEP(u) }
        }
    }
    return 0;
}

#undef ADAM
#undef ADAM_AT_ANY_STEP

/* The moving average tau * new + (1 - tau) * old. tensors: addresses of all leaves of new, old and
   the outputs. tau: used if taus (one for each row) is null. */
int64_t NAME(average)(REAL *const *tensors, const int64_t *sizes, int64_t leaves, int64_t rows,
                     const REAL *taus, const double *tau, int64_t threads)
{
    const int parts = parts_of(sizes, leaves, rows, threads);
    #pragma omp parallel for num_threads(parts) schedule(static)
    for (int part = 0; part < parts; part++) {
        cursor c = part_of(sizes, leaves, rows, part, parts);
        while (next_span(&c)) {
            const REAL *a = tensors[c.leaf] + c.at, *b = tensors[leaves + c.leaf] + c.at;
            REAL *out = tensors[2 * leaves + c.leaf] + c.at;
            const REAL share = taus ? taus[c.row] : (REAL)tau[0];
            /* for a Python number, 1 - tau is computed in double precision, as in Python */
            const REAL rest = taus ? (REAL)1.0 - taus[c.row] : (REAL)(1.0 - tau[0]);
            _Pragma("GCC ivdep")
            for (int64_t i = 0; i < c.n; i++) out[i] = share * a[i] + rest * b[i];
        }
    }
    return 0;
}
