/* rng.c - xoshiro256** streams seeded by SplitMix64 over (seed, trial, purpose). arXiv:1805.01407. */
#include "core/core.h"

#include <math.h>

static uint64_t splitmix(uint64_t *x) {
    *x += 0x9e3779b97f4a7c15u;
    uint64_t z = *x;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, int k) {
    return (x << k) | (x >> (64 - k));
}

nas_rng nas_rng_stream(uint64_t seed, uint64_t trial, const char *purpose) {
    uint64_t label = 0xcbf29ce484222325u; /* FNV-1a of the purpose */
    for (const unsigned char *p = (const unsigned char *)purpose; *p != '\0'; p++) {
        label = (label ^ *p) * 0x100000001b3u;
    }
    uint64_t x = seed;
    x = splitmix(&x) ^ trial;
    x = splitmix(&x) ^ label;
    nas_rng rng;
    for (int i = 0; i < 4; i++)
        rng.s[i] = splitmix(&x);
    return rng;
}

uint64_t nas_rng_u64(nas_rng *rng) {
    uint64_t *s = rng->s;
    const uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint32_t nas_rng_below(nas_rng *rng, uint32_t n) {
    const uint32_t threshold = (uint32_t)(-n) % n; /* 2^32 mod n: rejected to stay unbiased */
    for (;;) {
        const uint64_t product = (uint64_t)(uint32_t)(nas_rng_u64(rng) >> 32) * n;
        if ((uint32_t)product >= threshold) return (uint32_t)(product >> 32);
    }
}

double nas_rng_uniform(nas_rng *rng) {
    return (double)(nas_rng_u64(rng) >> 11) * 0x1p-53;
}

double nas_rng_normal(nas_rng *rng) {
    /* Box-Muller; the second value is dropped so that the stream's state is the four words alone. */
    const double u = 1.0 - nas_rng_uniform(rng);
    const double v = nas_rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
