/* Replay of a recorded program: calls its C functions one after the other with new addresses.
   Loaded by compiler/replay.py. */

#include <stdint.h>
#include <string.h>

#define W8(i) w[i], w[i+1], w[i+2], w[i+3], w[i+4], w[i+5], w[i+6], w[i+7]
#define CALL(...) result = ((int64_t (*)())step[0])(__VA_ARGS__); break;

/* steps: (function, first of its words, how many, whether its result is an error) each.
   patches: (word, region, offset) each; region -1 is the words themselves.
   The words are copied, so that two threads can replay one program. Words beyond those that a
   function takes do no harm; as many as eight beyond the last are read. */
static int64_t once(const int64_t *steps, int64_t n_steps, const int64_t *words, int64_t n_words,
                    const int64_t *patches, int64_t n_patches, const int64_t *regions)
{
    int64_t own[n_words];
    memcpy(own, words, 8 * n_words);
    for (const int64_t *p = patches; p < patches + 3 * n_patches; p += 3)
        own[p[0]] = (p[1] < 0 ? (int64_t)own : regions[p[1]]) + p[2];
    for (const int64_t *step = steps; step < steps + 4 * n_steps; step += 4) {
        const int64_t *w = own + step[1];
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

/* times runs; after each, the regions move on by as many bytes as moves says. */
int64_t replay(const int64_t *steps, int64_t n_steps, const int64_t *words, int64_t n_words,
               const int64_t *patches, int64_t n_patches, int64_t times, int64_t *regions,
               const int64_t *moves, int64_t n_regions)
{
    for (int64_t run = 0; run < times; run++) {
        if (once(steps, n_steps, words, n_words, patches, n_patches, regions)) return 1;
        for (int64_t r = 0; r < n_regions; r++) regions[r] += moves[r];
    }
    return 0;
}
