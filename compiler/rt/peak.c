/* peak.c - the rate of this processor right now: a loop of independent multiply-adds in registers, of floats or, with
 * PEAK_HALF, in half precision.
 *
 * Travels into emitted programs and is compiled with the flags of the model, so that the share of the peak which a
 * benchmark prints is a share of what those instructions can do in that second on that core. */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
enum { PEAK_BYTES = 64 };
#elif defined(__AVX__)
enum { PEAK_BYTES = 32 };
#else
enum { PEAK_BYTES = 16 };
#endif
#if defined(PEAK_HALF)
typedef _Float16 peak_real;
#else
typedef float peak_real;
#endif
typedef peak_real peak_vector __attribute__((vector_size(PEAK_BYTES)));

static double peak_now_s(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Ten chains: two multiply-add units of latency five are never idle, and sixteen registers suffice. */
static __attribute__((noinline)) float peak_round(long steps, float seed) {
    const peak_vector x = (peak_vector){0} + (peak_real)(0.999f + seed),
                      y = (peak_vector){0} + (peak_real)0.001f;
    peak_vector a = x, b = y, c = x + y, d = x - y, e = y - x, f = x * y, g = y * y, h = x * x,
                i = a * 2, j = b * 2;
    for (long n = 0; n < steps; n++) {
        a = a * x + y, b = b * x + y, c = c * x + y, d = d * x + y, e = e * x + y;
        f = f * x + y, g = g * x + y, h = h * x + y, i = i * x + y, j = j * x + y;
    }
    const peak_vector sum = a + b + c + d + e + f + g + h + i + j;
    return (float)sum[0];
}

/* Of one core, in 10^9 operations a second (a multiply-add is two), the best of rounds that take `seconds` together. */
double peak_gflops(double seconds) {
    enum { STEPS = 20000 };
    const double operations = (double)STEPS * 10 * 2 * PEAK_BYTES / sizeof(peak_real);
    const double end = peak_now_s() + seconds;
    volatile float keep = 0;
    double best = 0;
    for (double start = peak_now_s(); start < end;) {
        keep = peak_round(STEPS, keep * 1e-20f); /* each round needs the last: none is left out */
        const double now = peak_now_s(), rate = operations / (now - start) * 1e-9;
        if (now > start && rate > best) best = rate;
        start = now;
    }
    return best;
}
