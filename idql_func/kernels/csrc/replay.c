/* Replay of a recorded graph: calls its C functions one after the other with new addresses.
   Loaded by compiler/replay.py. */

#include <stdint.h>
#include <string.h>

/* eight words from index i on */
#define W8(i) w[i], w[i+1], w[i+2], w[i+3], w[i+4], w[i+5], w[i+6], w[i+7]
#define CALL(...) result = ((int64_t (*)())step[0])(__VA_ARGS__); break;

/* Runs the recording once.
   words: the arguments of all calls, 64 bits each. steps: for each call (function, index of its
   first argument in words, number of arguments, whether a nonzero result is an error). patches:
   for each pointer (its index in words, slot, offset in bytes); slot -1 is the copy of the words
   itself. The words are copied, so that two threads can replay the same recording at the same
   time. A call passes up to 15 arguments more than the function has; the function ignores them. */
static int64_t run_once(const int64_t *steps, int64_t n_steps, const int64_t *words,
                        int64_t n_words, const int64_t *patches, int64_t n_patches,
                        const int64_t *slots)
{
    int64_t copy[n_words];
    memcpy(copy, words, 8 * n_words);
    for (const int64_t *p = patches; p < patches + 3 * n_patches; p += 3)
        copy[p[0]] = (p[1] < 0 ? (int64_t)copy : slots[p[1]]) + p[2];
    for (const int64_t *step = steps; step < steps + 4 * n_steps; step += 4) {
        const int64_t *w = copy + step[1];
        int64_t result = 0;
        switch ((step[2] + 7) / 8) {
        case 0: case 1: CALL(W8(0))
        case 2: CALL(W8(0), W8(8))
        case 3: CALL(W8(0), W8(8), W8(16))
        case 4: CALL(W8(0), W8(8), W8(16), W8(24))
        case 5: case 6: CALL(W8(0), W8(8), W8(16), W8(24), W8(32), W8(40))
        default: CALL(W8(0), W8(8), W8(16), W8(24), W8(32), W8(40), W8(48), W8(56))
        }
        if (step[3] && result) return 1;
    }
    return 0;
}

/* Runs the recording `times` times; after each run, slots[r] advances by strides[r] bytes. */
int64_t replay(const int64_t *steps, int64_t n_steps, const int64_t *words, int64_t n_words,
               const int64_t *patches, int64_t n_patches, int64_t times, int64_t *slots,
               const int64_t *strides, int64_t n_slots)
{
    for (int64_t run = 0; run < times; run++) {
        if (run_once(steps, n_steps, words, n_words, patches, n_patches, slots)) return 1;
        for (int64_t r = 0; r < n_slots; r++) slots[r] += strides[r];
    }
    return 0;
}
