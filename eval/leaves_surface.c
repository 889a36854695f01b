/* leaves_surface.c - what is on a leaf: colour, shading, texture.
 *
 * Colours follow the second-order statistics of photographs: channels nearly equal, most variance in luminance, some
 * between yellow and blue, little between red and green (Ruderman, Cronin & Chiao, JOSA A 15(8), 1998). */
#include "eval/leaves_internal.h"

#include <math.h>

enum { SIDE = NAS__GRAIN_SIDE, MASK = SIDE - 1 };

static const float TURN = 6.28318531f;

static float uniform(nas_rng *rng, float lo, float hi) {
    return lo + (hi - lo) * (float)nas_rng_uniform(rng);
}

/* log_uniform - every octave between lo and hi equally likely. */
static float log_uniform(nas_rng *rng, float lo, float hi) {
    return lo * powf(hi / lo, (float)nas_rng_uniform(rng));
}

static float normal(nas_rng *rng) {
    return (float)nas_rng_normal(rng);
}

static float clamp(float x, float lo, float hi) {
    return x < lo ? lo : x > hi ? hi : x;
}

/* ---- grain --------------------------------------------------------------------------------------------------- */

/* standardise - mean 0, standard deviation 1. */
static void standardise(float *p, size_t n) {
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)p[i];
    const double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += ((double)p[i] - mean) * ((double)p[i] - mean);
    const double scale = squares > 0.0 ? 1.0 / sqrt(squares / (double)n) : 1.0;
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(((double)p[i] - mean) * scale);
}

/* sample - bilinear, periodic. */
static float sample(const float *grain, float u, float v) {
    const float fu = floorf(u), fv = floorf(v);
    const float a = u - fu, b = v - fv;
    const int x = (int)fu & MASK, y = (int)fv & MASK;
    const float *row0 = grain + (size_t)y * SIDE, *row1 = grain + (size_t)((y + 1) & MASK) * SIDE;
    const int x1 = (x + 1) & MASK;
    const float top = row0[x] + a * (row0[x1] - row0[x]);
    const float bottom = row1[x] + a * (row1[x1] - row1[x]);
    return top + b * (bottom - top);
}

/* add_octave - white noise on a grid of `step` pixels, smoothly interpolated, times `weight`. */
static void add_octave(nas_rng *rng, int step, float weight, float *out) {
    float knots[SIDE];
    const int n = SIDE / step;
    float first[SIDE], above[SIDE];
    for (int i = 0; i < n; i++)
        first[i] = above[i] = normal(rng);
    for (int gy = 0; gy < n; gy++) {
        for (int i = 0; i < n; i++)
            knots[i] = gy + 1 < n ? normal(rng) : first[i];
        for (int j = 0; j < step; j++) {
            const float t = (float)j / (float)step, b = t * t * (3.0f - 2.0f * t);
            float *row = out + (size_t)(gy * step + j) * SIDE;
            for (int x = 0; x < SIDE; x++) {
                const int gx = x / step, next = (gx + 1) & (n - 1);
                const float s = (float)(x - gx * step) / (float)step, a = s * s * (3.0f - 2.0f * s);
                const float top = above[gx] + a * (above[next] - above[gx]);
                const float bottom = knots[gx] + a * (knots[next] - knots[gx]);
                row[x] += weight * (top + b * (bottom - top));
            }
        }
        for (int i = 0; i < n; i++)
            above[i] = knots[i];
    }
}

void nas__grain_fill(nas_rng *rng, nas__grain *grain) {
    for (size_t i = 0; i < (size_t)SIDE * SIDE; i++)
        grain->rough[i] = grain->fine[i] = 0.0f;
    for (int step = 1; step <= SIDE / 4; step *= 2) {
        add_octave(rng, step, (float)step, grain->rough); /* amplitude ~ wavelength: 1/f */
    }
    add_octave(rng, 1, 1.0f, grain->fine);
    add_octave(rng, 2, 0.8f, grain->fine);
    add_octave(rng, 4, 0.3f, grain->fine);
    standardise(grain->rough, (size_t)SIDE * SIDE);
    standardise(grain->fine, (size_t)SIDE * SIDE);
}

/* ---- palette and surface ------------------------------------------------------------------------------------- */

nas__palette nas__palette_draw(nas_rng *rng, float side) {
    return (nas__palette){
        .mean = uniform(rng, 0.3f, 0.6f),
        .contrast = uniform(rng, 0.14f, 0.34f),
        .yellow_blue = 0.02f + 0.04f * normal(rng),
        .red_green = 0.02f * normal(rng),
        .chroma = uniform(rng, 0.2f, 1.5f),
        .kinship = uniform(rng, 0.2f, 0.8f),
        .field_u = uniform(rng, 0.0f, (float)SIDE),
        .field_v = uniform(rng, 0.0f, (float)SIDE),
        .field_zoom = uniform(rng, 0.15f, 0.5f) * (float)SIDE / side,
        .textured = uniform(rng, 0.6f, 1.0f),
        .texture_gain = log_uniform(rng, 0.4f, 1.6f),
    };
}

static void draw_colour(nas_rng *rng, const nas__palette *p, const nas__grain *grain, float x,
                        float y, nas__surface *s) {
    /* Near leaves are alike: part of the variance is a slow field over the picture, again 1/f. */
    const float field =
        sample(grain->rough, p->field_u + x * p->field_zoom, p->field_v + y * p->field_zoom);
    const float light = clamp(
        p->mean + p->contrast * (p->kinship * field + (1.0f - p->kinship) * 1.2f * normal(rng)),
        0.02f, 0.98f);
    /* Dark and very bright surfaces have little chroma: there is no room for it. */
    const float room = 4.0f * light * (1.0f - light);
    const float yb = room * (p->yellow_blue + 0.07f * p->chroma * normal(rng));
    const float rg = room * (p->red_green + 0.03f * p->chroma * normal(rng));
    s->rgb[0] = light + yb + rg;
    s->rgb[1] = light + 0.3f * yb - rg;
    s->rgb[2] = light - 1.3f * yb + 0.3f * rg;
    for (int c = 0; c < 3; c++)
        s->tint[c] = clamp(s->rgb[c] / light, 0.5f, 1.5f);
}

/* aim - texture coordinates: direction `angle`, `fu` and `fv` cycles (or grain cells) per pixel along and across. */
static void aim(nas_rng *rng, nas__surface *s, float fu, float fv) {
    const float angle = uniform(rng, 0.0f, TURN), c = cosf(angle), n = sinf(angle);
    s->ux = c * fu;
    s->uy = n * fu;
    s->vx = -n * fv;
    s->vy = c * fv;
    s->u0 = uniform(rng, 0.0f, (float)SIDE);
    s->v0 = uniform(rng, 0.0f, (float)SIDE);
}

static void draw_texture(nas_rng *rng, const nas__palette *p, float r, nas__surface *s) {
    const uint32_t pick = nas_rng_below(rng, 20);
    s->amplitude = p->texture_gain;
    if (pick < 8) {
        const float zoom = log_uniform(rng, 0.25f, 1.6f);
        s->texture = NAS__ROUGH;
        s->amplitude *= log_uniform(rng, 0.008f, 0.12f);
        aim(rng, s, zoom, zoom * log_uniform(rng, 0.3f, 1.0f));
    } else if (pick < 13) {
        const float zoom = log_uniform(rng, 0.35f, 1.0f);
        s->texture = NAS__FINE;
        s->amplitude *= log_uniform(rng, 0.006f, 0.06f);
        aim(rng, s, zoom,
            zoom * log_uniform(rng, 0.15f, 1.0f)); /* streaks: hair, grass, brushed metal */
    } else if (pick < 16) {
        s->texture = NAS__WAVE;
        s->amplitude *= log_uniform(rng, 0.01f, 0.12f);
        aim(rng, s, log_uniform(rng, 0.02f, 0.4f), 0.02f);
    } else {
        const float longest = r > 4.0f ? 2.0f * r : 8.0f;
        const float period = log_uniform(rng, 3.0f, longest < 40.0f ? longest : 40.0f);
        s->texture = pick < 19 ? NAS__STRIPES : NAS__CHECKS;
        s->amplitude *= log_uniform(rng, 0.02f, 0.25f);
        s->duty = uniform(rng, 0.2f, 0.8f);
        s->edge = period / log_uniform(rng, 1.0f, 2.0f);
        aim(rng, s, 1.0f / period, 1.0f / (period * uniform(rng, 0.7f, 2.0f)));
    }
}

nas__surface nas__surface_draw(nas_rng *rng, const nas__palette *palette, const nas__grain *grain,
                               float x, float y, float r) {
    nas__surface s = {.texture = NAS__PLAIN, .grain = grain, .inv_r2 = 1.0f / (r * r)};
    draw_colour(rng, palette, grain, x, y, &s);
    if (nas_rng_below(rng, 10) < 7) { /* shading over the leaf, more on large ones */
        const float angle = uniform(rng, 0.0f, TURN);
        const float rise = 0.12f * normal(rng) * clamp(r / 24.0f, 0.2f, 1.0f) / r;
        s.gx = rise * cosf(angle);
        s.gy = rise * sinf(angle);
        s.bowl = nas_rng_below(rng, 3) == 0 ? 0.15f * normal(rng) : 0.0f;
    }
    if (uniform(rng, 0.0f, 1.0f) < palette->textured) draw_texture(rng, palette, r, &s);
    return s;
}

/* stripes_at - square wave in [-1, 1] of period 1 with soft edges. */
static float stripes_at(const nas__surface *s, float u) {
    const float phase = u - floorf(u);
    const float in =
        phase < s->duty ? fminf(phase, s->duty - phase) : -fminf(phase - s->duty, 1.0f - phase);
    return clamp(2.0f * in * s->edge, -1.0f, 1.0f);
}

static float texture_at(const nas__surface *s, float dx, float dy) {
    const float u = s->u0 + s->ux * dx + s->uy * dy, v = s->v0 + s->vx * dx + s->vy * dy;
    switch (s->texture) {
    case NAS__PLAIN: break;
    case NAS__ROUGH: return sample(s->grain->rough, u, v);
    case NAS__FINE: return sample(s->grain->fine, u, v);
    case NAS__WAVE: return sinf(TURN * u + 1.5f * sample(s->grain->rough, v, 0.25f * u));
    case NAS__STRIPES: return stripes_at(s, u);
    case NAS__CHECKS: return stripes_at(s, u) * stripes_at(s, v);
    }
    return 0.0f;
}

void nas__surface_colour(const nas__surface *s, float dx, float dy, float rgb[3]) {
    float shade = s->gx * dx + s->gy * dy + s->bowl * fminf((dx * dx + dy * dy) * s->inv_r2, 1.0f);
    if (s->texture != NAS__PLAIN) shade += s->amplitude * texture_at(s, dx, dy);
    for (int c = 0; c < 3; c++)
        rgb[c] = clamp(s->rgb[c] + s->tint[c] * shade, 0.0f, 1.0f);
}
