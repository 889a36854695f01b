/* leaves_shape.c - outlines of leaves: ellipses, rings, convex polygons, bars and hairlines.
 * A picture of disks alone teaches curved edges only; photographs hold straight edges, corners and thin lines too. */
#include "eval/leaves_internal.h"

#include <math.h>

static const float TURN = 6.28318531f;

static float uniform(nas_rng *rng, float lo, float hi) {
    return lo + (hi - lo) * (float)nas_rng_uniform(rng);
}

static void draw_ellipse(nas_rng *rng, float r, nas__shape *s) {
    const float angle = uniform(rng, 0.0f, TURN);
    s->kind = NAS__SHAPE_ELLIPSE;
    s->cos = cosf(angle);
    s->sin = sinf(angle);
    s->a = r;
    s->b = nas_rng_below(rng, 2) == 0 ? r : r * uniform(rng, 0.3f, 1.0f);
    s->reach = r;
}

static void draw_ring(nas_rng *rng, float r, nas__shape *s) {
    const float thin = r < 4.0f ? r : 4.0f;
    s->kind = NAS__SHAPE_RING;
    s->b = 0.35f + thin * 0.5f * uniform(rng, 0.1f, 1.0f);
    s->a = r > s->b ? r - s->b : s->b;
    s->reach = s->a + s->b;
}

/* draw_polygon - corners on a circle, in order, far enough apart to be convex. */
static void draw_polygon(nas_rng *rng, float r, nas__shape *s) {
    const int n = 3 + (int)nas_rng_below(rng, 4);
    float corner[NAS__EDGES_MAX];
    const float start = uniform(rng, 0.0f, TURN), step = TURN / (float)n;
    for (int i = 0; i < n; i++)
        corner[i] = start + step * ((float)i + uniform(rng, -0.35f, 0.35f));
    s->kind = NAS__SHAPE_POLYGON;
    s->edges = n;
    s->reach = r;
    for (int i = 0; i < n; i++) {
        const float from = corner[i], to = i + 1 < n ? corner[i + 1] : corner[0] + TURN;
        const float middle = 0.5f * (from + to);
        s->nx[i] = cosf(middle);
        s->ny[i] = sinf(middle);
        s->d[i] = r * cosf(0.5f * (to - from));
    }
}

/* draw_bar - a rotated rectangle of half extents long x wide. */
static void draw_bar(nas_rng *rng, float length, float width, nas__shape *s) {
    /* Half of them upright: buildings, text and furniture make such edges frequent in photographs. */
    const uint32_t pose = nas_rng_below(rng, 4);
    const float angle = pose < 2 ? 0.25f * TURN * (float)pose + uniform(rng, -0.03f, 0.03f)
                                 : uniform(rng, 0.0f, TURN);
    const float c = cosf(angle), n = sinf(angle);
    const float nx[4] = {c, -n, -c, n}, ny[4] = {n, c, -n, -c};
    s->kind = NAS__SHAPE_POLYGON;
    s->edges = 4;
    s->reach = sqrtf(length * length + width * width);
    for (int i = 0; i < 4; i++) {
        s->nx[i] = nx[i];
        s->ny[i] = ny[i];
        s->d[i] = i % 2 == 0 ? length : width;
    }
}

nas__shape nas__shape_draw(nas_rng *rng, float x, float y, float r) {
    nas__shape s = {.x = x, .y = y};
    const uint32_t pick = nas_rng_below(rng, 20);
    if (pick < 7) {
        draw_ellipse(rng, r, &s);
    } else if (pick < 11) {
        draw_polygon(rng, r, &s);
    } else if (pick < 16) {
        draw_bar(rng, r, r * uniform(rng, 0.25f, 1.0f), &s);
    } else if (pick < 19) {
        const float thin = 0.35f + 0.25f * sqrtf(r) * uniform(rng, 0.1f, 1.0f);
        draw_bar(rng, 2.0f * r, thin < r ? thin : r, &s);
    } else {
        draw_ring(rng, r, &s);
    }
    return s;
}

float nas__shape_distance(const nas__shape *s, float dx, float dy) {
    switch (s->kind) {
    case NAS__SHAPE_ELLIPSE: {
        /* First order: the level set k = |(u/a, v/b)| - 1 divided by its slope. */
        const float u = (s->cos * dx + s->sin * dy) / s->a;
        const float v = (s->cos * dy - s->sin * dx) / s->b;
        const float k = u * u + v * v;
        const float slope = sqrtf(u * u / (s->a * s->a) + v * v / (s->b * s->b));
        return slope > 1e-6f ? 0.5f * (k - 1.0f) * (k > 1.0f ? 1.0f : sqrtf(k)) / slope : -s->b;
    }
    case NAS__SHAPE_RING: return fabsf(sqrtf(dx * dx + dy * dy) - s->a) - s->b;
    case NAS__SHAPE_POLYGON: break;
    }
    float most = s->nx[0] * dx + s->ny[0] * dy - s->d[0];
    for (int i = 1; i < s->edges; i++) {
        const float distance = s->nx[i] * dx + s->ny[i] * dy - s->d[i];
        if (distance > most) most = distance;
    }
    return most;
}

bool nas__shape_span(const nas__shape *s, float dy, float margin, float *lo, float *hi) {
    const float reach = s->reach + margin;
    const float room = reach * reach - dy * dy;
    if (room <= 0.0f) return false;
    *hi = sqrtf(room);
    *lo = -*hi;
    if (s->kind != NAS__SHAPE_POLYGON) return true;
    for (int i = 0; i < s->edges; i++) {
        const float rest = s->d[i] + margin - s->ny[i] * dy; /* nx * dx <= rest */
        if (fabsf(s->nx[i]) < 1e-6f) {
            if (rest < 0.0f) return false;
        } else if (s->nx[i] > 0.0f) {
            *hi = fminf(*hi, rest / s->nx[i]);
        } else {
            *lo = fmaxf(*lo, rest / s->nx[i]);
        }
    }
    return *lo <= *hi;
}
