/* leaves_internal.h - the parts of the dead-leaves generator: shapes, surfaces, and the picture made of them.
 * Stays in eval/. Lengths are pixels, colours 0..1 display values. */
#ifndef NAS_EVAL_LEAVES_INTERNAL_H
#define NAS_EVAL_LEAVES_INTERNAL_H

#include "eval/image.h"

enum { NAS__EDGES_MAX = 6, NAS__GRAIN_SIDE = 128 /* a power of two */ };

/* An outline. Signed distances are relative to the centre, negative inside. */
typedef struct nas__shape {
    enum { NAS__SHAPE_ELLIPSE, NAS__SHAPE_RING, NAS__SHAPE_POLYGON } kind;
    float x, y;     /* centre */
    float reach;    /* the shape lies within this distance of the centre */
    float cos, sin; /* ellipse: direction of the long axis */
    float a, b;     /* ellipse: half axes; ring: radius and half thickness */
    int edges;      /* polygon: intersection of half planes nx*x + ny*y <= d */
    float nx[NAS__EDGES_MAX], ny[NAS__EDGES_MAX], d[NAS__EDGES_MAX];
} nas__shape;

/* nas__shape_draw - a random shape of radius r (half of its larger extent, roughly) centred at (x, y). */
nas__shape nas__shape_draw(nas_rng *rng, float x, float y, float r);
/* nas__shape_distance - signed distance (approximate for ellipses) of (dx, dy) from the centre. */
float nas__shape_distance(const nas__shape *shape, float dx, float dy);
/* nas__shape_span - columns dx in [*lo, *hi] of row dy that can be nearer than `margin`; false when none. */
bool nas__shape_span(const nas__shape *shape, float dy, float margin, float *lo, float *hi);

/* Fractal noise, periodic, mean 0 and standard deviation 1: what textures are cut from. */
typedef struct nas__grain {
    float rough[NAS__GRAIN_SIDE * NAS__GRAIN_SIDE]; /* amplitude ~ 1/f */
    float fine[NAS__GRAIN_SIDE * NAS__GRAIN_SIDE]; /* little below a quarter of the sampling rate */
} nas__grain;

void nas__grain_fill(nas_rng *rng, nas__grain *grain);

/* Statistics of one picture: leaves of one picture resemble each other more than those of two. */
typedef struct nas__palette {
    float mean, contrast;         /* of luminance */
    float yellow_blue, red_green; /* cast of the whole picture */
    float kinship;                /* 0..1: how much neighbouring leaves share their luminance */
    float field_u, field_v, field_zoom; /* where that share is read from the grain */
    float chroma;                       /* spread of both around the cast */
    float textured;                     /* share of leaves with a texture */
    float texture_gain;
} nas__palette;

/* `side` is the shorter side of the picture. */
nas__palette nas__palette_draw(nas_rng *rng, float side);

/* Colour over the area of one leaf. */
typedef struct nas__surface {
    enum { NAS__PLAIN, NAS__ROUGH, NAS__FINE, NAS__WAVE, NAS__STRIPES, NAS__CHECKS } texture;
    float rgb[3];
    float tint[3];      /* how much of shading and texture each channel takes */
    float gx, gy, bowl; /* shading: gradient per pixel, and change towards the rim */
    float inv_r2;
    float amplitude;
    float ux, uy, vx, vy; /* texture coordinates from pixel offsets */
    float u0, v0;
    float duty, edge; /* stripes: share of the bright part; 1 / width of their edges in u */
    const nas__grain *grain;
} nas__surface;

/* For a leaf of radius r centred at (x, y) of the picture. */
nas__surface nas__surface_draw(nas_rng *rng, const nas__palette *palette, const nas__grain *grain,
                               float x, float y, float r);
void nas__surface_colour(const nas__surface *surface, float dx, float dy, float rgb[3]);

#endif
