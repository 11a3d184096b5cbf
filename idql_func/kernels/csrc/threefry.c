/* JAX's random streams: threefry-2x32 words of a key, and the numbers made of them, in one pass.

   Loaded by kernels/threefry.py and kernels/draws.py, whose tensor forms give the same bits. Keys
   are pairs of 32-bit words stored as int64. Every loop is written so that the compiler vectorises
   it. The result does not depend on the number of threads, because each piece of a draw depends
   only on its position. */

#include <math.h>
#include <stdint.h>

#define ROUND(r) a += b; b = (b << r) | (b >> (32 - r)); b ^= a;
#define ROUNDS_EVEN ROUND(13) ROUND(15) ROUND(26) ROUND(6)
#define ROUNDS_ODD ROUND(17) ROUND(29) ROUND(16) ROUND(24)
#define SMALLER(x, y) ((x) < (y) ? (x) : (y))

enum { PIECE = 512, LARGE = 1 << 16 };
enum { BITS, UNIFORM, NORMAL, BERNOULLI };

static inline void hash(uint32_t k0, uint32_t k1, uint32_t *first, uint32_t *second)
{
    const uint32_t k2 = k0 ^ k1 ^ 0x1BD11BDAu;
    uint32_t a = *first + k0, b = *second + k1;
    ROUNDS_EVEN a += k1; b += k2 + 1u;
    ROUNDS_ODD  a += k2; b += k0 + 2u;
    ROUNDS_EVEN a += k0; b += k1 + 3u;
    ROUNDS_ODD  a += k1; b += k2 + 4u;
    ROUNDS_EVEN a += k2; b += k0 + 5u;
    *first = a;
    *second = b;
}

static inline void hash_key(const int64_t *key, uint32_t *first, uint32_t *second)
{
    hash((uint32_t)key[0], (uint32_t)key[1], first, second);
}

/* words[row] = hash(keys[row], counts); counts [2, n] and words [rows, 2, n] are 32-bit words in
   int64. */
int64_t threefry2x32(const int64_t *keys, int64_t rows, const int64_t *counts, int64_t n,
                     int64_t *words)
{
    for (int64_t row = 0; row < rows; row++) {
        const uint32_t k0 = (uint32_t)keys[2 * row], k1 = (uint32_t)keys[2 * row + 1];
        int64_t *restrict first = words + 2 * n * row, *restrict second = first + n;
        for (int64_t i = 0; i < n; i++) {
            uint32_t a = (uint32_t)counts[i], b = (uint32_t)counts[n + i];
            hash(k0, k1, &a, &b);
            first[i] = a;
            second[i] = b;
        }
    }
    return 0;
}

/* Computes pairs `start` to `start + n` of words for a draw of `size` words. The newer layout
   hashes each 64-bit counter separately; the older one hashes each counter of the first half
   together with one of the second half. */
static void hash_counters(const int64_t *key, int64_t size, int newer, int64_t start, int64_t n,
                  uint32_t *restrict a, uint32_t *restrict b)
{
    const uint32_t k0 = (uint32_t)key[0], k1 = (uint32_t)key[1];
    const int64_t half = (size + 1) / 2;
    const uint32_t from = newer ? 0u : (uint32_t)start, step = newer ? 0u : 1u;
    const uint32_t other = (uint32_t)(newer ? start : half + start);
    for (int i = 0; i < n; i++) {
        a[i] = from + step * (uint32_t)i;
        b[i] = other + (uint32_t)i;
        hash(k0, k1, &a[i], &b[i]);
    }
    if (!newer && size % 2 && start + n == half) { /* pad an odd number with a zero */
        a[n - 1] = (uint32_t)(half - 1);
        b[n - 1] = 0u;
        hash(k0, k1, &a[n - 1], &b[n - 1]);
    }
}

/* A float in [0, 1): the top 23 bits of a word. */
static inline float to_unit_interval(uint32_t word)
{
    return (float)(int32_t)(word >> 9) * 0x1p-23f;
}

/* The next functions compute the same steps as the float32 functions of kernels/xla_math.py. */
static inline float logarithm(float x)
{
    union { float value; uint32_t word; } parts = {x};
    const int32_t power = (int32_t)(parts.word >> 23) - 126;
    parts.word = (parts.word & 0x7FFFFFu) | 0x3F000000u;
    const float mantissa = parts.value;
    const int low = mantissa < 0.70710678118654752440f;
    const float t = (low ? mantissa + mantissa : mantissa) - 1.0f;
    const float exponent = (float)power - (float)low;
    const float square = t * t, cube = square * t;
    const float p0 = fmaf(fmaf(7.0376836292e-2f, t, -1.1514610310e-1f), t, 1.1676998740e-1f);
    const float p1 = fmaf(fmaf(-1.2420140846e-1f, t, 1.4249322787e-1f), t, -1.6668057665e-1f);
    const float p2 = fmaf(fmaf(2.0000714765e-1f, t, -2.4999993993e-1f), t, 3.3333331174e-1f);
    float y = fmaf(fmaf(p0, cube, p1), cube, p2);
    y = fmaf(y, cube, exponent * -2.12194440e-4f);
    y = fmaf(-square, 0.5f, t) + y;
    return fmaf(0.693359375f, exponent, y);
}

static inline float log1p_above_minus_one(float x)
{
    float numerator = 4.5270000862445199635215e-5f, denominator = 1.0f;
    numerator = fmaf(numerator, x, 4.9854102823193375972212e-1f);
    numerator = fmaf(numerator, x, 6.5787325942061044846969e0f);
    numerator = fmaf(numerator, x, 2.9911919328553073277375e1f);
    numerator = fmaf(numerator, x, 6.0949667980987787057556e1f);
    numerator = fmaf(numerator, x, 5.7112963590585538103336e1f);
    numerator = fmaf(numerator, x, 2.0039553499201281259648e1f);
    denominator = fmaf(denominator, x, 1.5062909083469192043167e1f);
    denominator = fmaf(denominator, x, 8.3047565967967209469434e1f);
    denominator = fmaf(denominator, x, 2.2176239823732855465394e2f);
    denominator = fmaf(denominator, x, 3.0909872225312059774938e2f);
    denominator = fmaf(denominator, x, 2.1642788614495947685003e2f);
    denominator = fmaf(denominator, x, 6.0118660497603843919306e1f);
    const float square = x * x;
    const float small = x + fmaf(x * square, numerator / denominator, -0.5f * square);
    return fabsf(x) < 0.41421356237309504880f ? small : logarithm(x + 1.0f);
}

static inline float erfinv(float x)
{
    const float w = -log1p_above_minus_one(x * -x);
    const int centre = w < 5.0f;
    const float v = centre ? w - 2.5f : sqrtf(w) - 3.0f;
    float p = centre ? 2.81022636e-08f : -0.000200214257f;
    p = fmaf(p, v, centre ? 3.43273939e-07f : 0.000100950558f);
    p = fmaf(p, v, centre ? -3.5233877e-06f : 0.00134934322f);
    p = fmaf(p, v, centre ? -4.39150654e-06f : -0.00367342844f);
    p = fmaf(p, v, centre ? 0.00021858087f : 0.00573950773f);
    p = fmaf(p, v, centre ? -0.00125372503f : -0.0076224613f);
    p = fmaf(p, v, centre ? -0.00417768164f : 0.00943887047f);
    p = fmaf(p, v, centre ? 0.246640727f : 1.00167406f);
    p = fmaf(p, v, centre ? 1.50140941f : 2.83297682f);
    return p * x;
}

/* sqrt(2) * erfinv(u), u uniform on (nextafter(-1, 0), 1) */
static inline float normal(uint32_t word)
{
    const float lowest = -1.0f + 0x1p-24f, u = to_unit_interval(word) * 2.0f + lowest;
    return erfinv(u < lowest ? lowest : u) * 1.41421356237309504880f;
}

/* out[at + i] = the number of the given kind made from words[i] */
static void convert(int kind, const uint32_t *restrict words, int64_t n, void *out, int64_t at,
                    double p, double q)
{
    if (kind == BITS) {
        int64_t *restrict to = (int64_t *)out + at;
        for (int64_t i = 0; i < n; i++) to[i] = words[i];
    } else if (kind == UNIFORM) { /* on [p, q) */
        float *restrict to = (float *)out + at;
        const float low = (float)p, width = (float)q - low;
        for (int64_t i = 0; i < n; i++) {
            const float value = fmaf(to_unit_interval(words[i]), width, low);
            to[i] = value < low ? low : value;
        }
    } else if (kind == NORMAL) {
        float *restrict to = (float *)out + at;
        for (int64_t i = 0; i < n; i++) to[i] = normal(words[i]);
    } else { /* BERNOULLI: whether the uniform number on [0, 1) is below p */
        uint8_t *restrict to = (uint8_t *)out + at;
        const double steps = ceil((double)(float)p * 0x1p23);
        const uint32_t bound = steps > 0x1p23 ? 1u << 23 : steps > 0 ? (uint32_t)steps : 0u;
        for (int64_t i = 0; i < n; i++) to[i] = (words[i] >> 9) < bound;
    }
}

/* Draws `size` numbers from each key. */
int64_t draw(int64_t kind, const int64_t *keys, int64_t rows, int64_t size, int64_t newer,
             int64_t threads, void *out, const double *parameters)
{
    const double p = parameters[0], q = parameters[1];
    const int64_t half = (size + 1) / 2, count = newer ? size : half;
    const int64_t pieces = (count + PIECE - 1) / PIECE;
    /* starting a second thread costs about 20 microseconds, the time of 32,000 booleans */
    const int large = rows * size * (kind == NORMAL ? 3 : 1) >= LARGE;
    #pragma omp parallel for num_threads(threads) if (threads > 1 && large)
    for (int64_t job = 0; job < rows * pieces; job++) {
        const int64_t row = job / pieces, start = job % pieces * PIECE;
        const int64_t n = SMALLER(PIECE, count - start), at = row * size + start;
        uint32_t a[PIECE], b[PIECE];
        hash_counters(keys + 2 * row, size, newer, start, n, a, b);
        if (newer)
            for (int i = 0; i < n; i++) a[i] ^= b[i];
        else
            convert(kind, b, SMALLER(n, size - half - start), out, at + half, p, q);
        convert(kind, a, n, out, at, p, q);
    }
    return 0;
}

/* Splits each key into `size / 2` new keys. */
int64_t split(const int64_t *keys, int64_t rows, int64_t size, int64_t newer, int64_t *out)
{
    static const double none[2];
    if (!newer) return draw(BITS, keys, rows, size, 0, 1, out, none);
    for (int64_t i = 0; i < rows * size / 2; i++) {
        uint32_t a = 0u, b = (uint32_t)(i % (size / 2));
        hash_key(keys + 2 * (i / (size / 2)), &a, &b);
        out[2 * i] = a;
        out[2 * i + 1] = b;
    }
    return 0;
}

/* Splits a key `size / 2 - 1` times in succession. Of each pair of new keys, number `carry` is
   split next and the other is a result; the last carried key comes last. */
int64_t split_chain(const int64_t *keys, int64_t rows, int64_t size, int64_t newer, int64_t carry,
                    int64_t *out)
{
    for (int64_t row = 0; row < rows; row++) {
        int64_t *to = out + row * size, *last = to + size - 2, halves[4];
        last[0] = keys[2 * row];
        last[1] = keys[2 * row + 1];
        for (; to < last; to += 2) {
            split(last, 1, 4, newer, halves);
            for (int i = 0; i < 2; i++) {
                last[i] = halves[2 * carry + i];
                to[i] = halves[2 * (1 - carry) + i];
            }
        }
    }
    return 0;
}

/* Folds a number into each key: numbers[i] into key i, or `number` if numbers is null. */
int64_t fold_in(const int64_t *keys, int64_t rows, const int64_t *numbers, int64_t number,
                int64_t *out)
{
    for (int64_t i = 0; i < rows; i++) {
        uint32_t a = 0u, b = (uint32_t)(numbers ? numbers[i] : number);
        hash_key(keys + 2 * i, &a, &b);
        out[2 * i] = a;
        out[2 * i + 1] = b;
    }
    return 0;
}

/* Draws low + (64 random bits mod span) in wrapping 32-bit arithmetic, 0 < span <= 2**32. The key
   is split in two: one half draws the high bits, the other the low bits. A span of 2**32 gives
   the low bits. */
int64_t randint(const int64_t *keys, int64_t rows, int64_t size, int64_t newer, int64_t low,
                int64_t span, int32_t *out)
{
    const int64_t count = newer ? size : (size + 1) / 2;
    const uint32_t s = (uint32_t)span, rest = s ? (1u << 16) % s : 0u;
    const uint32_t multiplier = s ? rest * rest % s : 0u;
    for (int64_t row = 0; row < rows; row++) {
        int64_t two[4];
        split(keys + 2 * row, 1, 4, newer, two);
        for (int64_t start = 0; start < count; start += PIECE) {
            const int64_t n = SMALLER(PIECE, count - start);
            uint32_t words[2][2][PIECE];
            for (int i = 0; i < 2; i++)
                hash_counters(two + 2 * i, size, newer, start, n, words[i][0], words[i][1]);
            for (int part = 0; part < (newer ? 1 : 2); part++) {
                const int64_t from = start + part * count;
                int32_t *restrict to = out + row * size + from;
                for (int64_t i = 0; i < SMALLER(n, size - from); i++) {
                    uint32_t high = words[0][part][i], rest_bits = words[1][part][i];
                    if (newer) {
                        high ^= words[0][1][i];
                        rest_bits ^= words[1][1][i];
                    }
                    const uint32_t offset =
                        s ? (high % s * multiplier + rest_bits % s) % s : rest_bits;
                    to[i] = (int32_t)((uint32_t)low + offset);
                }
            }
        }
    }
    return 0;
}
