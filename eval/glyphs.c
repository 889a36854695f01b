/* glyphs.c - rendered digits: the labelled images that need no download. A digit is a list of strokes in a unit square; a
 * pixel's ink is how near it lies to one of them after a random affine map. Plain arithmetic in doubles on a seeded
 * stream, so that the same index gives the same picture everywhere. */
#include "eval/class_data.h"

#include <math.h>

enum { STROKES_MAX = 16, DIGITS = 10 };

typedef struct point {
    double x, y;
} point;

/* Polylines of our own drawing: a negative x ends one; x to the right, y down, both in 0..1. */
static const point strokes[DIGITS][STROKES_MAX] = {
    {{.5, .1},
     {.75, .25},
     {.78, .5},
     {.75, .75},
     {.5, .9},
     {.25, .75},
     {.22, .5},
     {.25, .25},
     {.5, .1},
     {-1, 0}},
    {{.35, .28}, {.55, .1}, {.55, .9}, {-1, 0}},
    {{.25, .28}, {.4, .12}, {.65, .14}, {.74, .33}, {.6, .55}, {.25, .9}, {.77, .9}, {-1, 0}},
    {{.26, .15}, {.6, .1}, {.72, .28}, {.48, .47}, {.74, .65}, {.6, .88}, {.25, .86}, {-1, 0}},
    {{.62, .9}, {.62, .1}, {.22, .64}, {.8, .64}, {-1, 0}},
    {{.74, .1}, {.32, .1}, {.29, .45}, {.6, .42}, {.75, .63}, {.6, .88}, {.25, .86}, {-1, 0}},
    {{.66, .1},
     {.36, .38},
     {.25, .68},
     {.42, .9},
     {.66, .86},
     {.73, .66},
     {.58, .5},
     {.3, .6},
     {-1, 0}},
    {{.23, .1}, {.77, .1}, {.42, .9}, {-1, 0}},
    {{.5, .47},
     {.29, .3},
     {.5, .1},
     {.71, .3},
     {.5, .47},
     {.25, .7},
     {.5, .9},
     {.75, .7},
     {.5, .47},
     {-1, 0}},
    {{.7, .38},
     {.46, .5},
     {.28, .33},
     {.4, .12},
     {.64, .12},
     {.72, .3},
     {.7, .6},
     {.4, .9},
     {-1, 0}},
};

static double between(nas_rng *rng, double lo, double hi) {
    return lo + (hi - lo) * nas_rng_uniform(rng);
}

static double distance(point p, point a, point b) {
    const double dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
    double t = length > 0 ? ((p.x - a.x) * dx + (p.y - a.y) * dy) / length : 0;
    t = fmin(fmax(t, 0), 1);
    return hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

/* The strokes of a digit in pixels. */
static int32_t place_digit(nas_rng *rng, int32_t label, double side, point *to) {
    const double angle = between(rng, -0.35, 0.35), slant = between(rng, -0.25, 0.25);
    const double sx = side * between(rng, 0.5, 0.95), sy = side * between(rng, 0.55, 0.95);
    const double cx = side * between(rng, 0.4, 0.6), cy = side * between(rng, 0.4, 0.6);
    int32_t n = 0;
    for (; strokes[label][n].x >= 0; n++) {
        const double x = (strokes[label][n].x - 0.5 + between(rng, -0.04, 0.04)) * sx;
        const double y = (strokes[label][n].y - 0.5 + between(rng, -0.04, 0.04)) * sy;
        const double u = x + slant * y;
        to[n].x = cx + cos(angle) * u - sin(angle) * y;
        to[n].y = cy + sin(angle) * u + cos(angle) * y;
    }
    return n;
}

static double ink_at(point p, const point *line, int32_t n, double width) {
    double nearest = INFINITY;
    for (int32_t i = 0; i + 1 < n; i++)
        nearest = fmin(nearest, distance(p, line[i], line[i + 1]));
    return fmin(fmax(width + 0.5 - nearest, 0), 1);
}

int32_t nas_glyph(uint64_t seed, uint64_t index, int32_t h, int32_t w, uint8_t *planes) {
    nas_rng rng = nas_rng_stream(seed, index, "glyph");
    const int32_t label = (int32_t)nas_rng_below(&rng, DIGITS);
    const double side = h < w ? h : w;
    point line[STROKES_MAX], bar[2];
    const int32_t n = place_digit(&rng, label, side, line);
    const double width = side * between(&rng, 0.025, 0.07), noise = between(&rng, 5, 30);
    for (int i = 0; i < 2; i++) /* a line across, that belongs to no digit */
        bar[i] = (point){between(&rng, 0, w), between(&rng, 0, h)};
    double ground[3], ink[3], shade[2] = {between(&rng, -40, 40), between(&rng, -40, 40)};
    const bool dark = nas_rng_below(&rng, 2) == 0;
    const double grey = between(&rng, dark ? 40 : 130, dark ? 120 : 215);
    for (int c = 0; c < 3; c++) {
        ground[c] = grey + between(&rng, -25, 25);
        ink[c] = ground[c] + (dark ? 1 : -1) * between(&rng, 50, 110);
    }
    for (int32_t y = 0; y < h; y++) {
        for (int32_t x = 0; x < w; x++) {
            const point p = {x + 0.5, y + 0.5};
            const double a = ink_at(p, line, n, width), b = ink_at(p, bar, 2, 0.4);
            const double light = shade[0] * (p.x / w - 0.5) + shade[1] * (p.y / h - 0.5);
            for (int c = 0; c < 3; c++) {
                double v = ground[c] + (ink[c] - ground[c]) * fmax(a, 0.6 * b);
                v += light + noise * (nas_rng_uniform(&rng) - 0.5) * 2;
                planes[((size_t)c * (size_t)h + (size_t)y) * (size_t)w + (size_t)x] =
                    (uint8_t)lrint(fmin(fmax(v, 0), 255));
            }
        }
    }
    return label;
}
