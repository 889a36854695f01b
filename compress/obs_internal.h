/* obs_internal.h - Optimal Brain Surgeon on one layer as a matrix; shared inside compress/ only.
 *
 * A row is an output [n weights (tap, input), then the bias when `bias` is 1], `size` = n + bias. All in doubles. */
#ifndef NAS_COMPRESS_OBS_INTERNAL_H
#define NAS_COMPRESS_OBS_INTERNAL_H

#include "compress/layer.h"

typedef struct nas__obs {
    const nas_layer_scheme *scheme;
    const nas_layer_options *options;
    int32_t dims[4];
    int32_t rows, n, bias, size;
    double *h;       /* [size][size], damped */
    double *inverse; /* [size][size] of h */
    double *w;       /* [rows][size]: in, the dense weights; out, the compressed ones */
    uint8_t *kept;   /* [rows][n] 1 where a weight stays */
    nas_grid *grids; /* [rows]; read and written when scheme->bits > 0 */
} nas__obs;

/* nas__obs_factor - out [size][size] = the upper Cholesky factor U of the inverse of the rows and columns list[m] of h,
 * U^T U = (h_list)^-1; false when h_list is not positive definite. */
nas_status nas__obs_factor(nas_ctx *ctx, const nas__obs *o, const int32_t *list, int32_t m,
                           double *out, bool *definite);

/* ---- obs_prune.c: exact ---- */
/* nas__obs_choose - kept[] by the greedy elimination, or by projection for patterns that have no groups of columns. */
nas_status nas__obs_choose(nas_ctx *ctx, nas__obs *o);
/* nas__obs_refit - w of every row solved for its mask. */
nas_status nas__obs_refit(nas_ctx *ctx, nas__obs *o);
/* nas__obs_project - kept[] projected from weights in units of their damage. */
nas_status nas__obs_project(nas_ctx *ctx, nas__obs *o);

/* nas__obs_leaders - leader[row] = the first row with the same mask. */
void nas__obs_leaders(const nas__obs *o, int32_t *leader);

/* ---- obs_round.c: exact ---- */
nas_status nas__obs_round(nas_ctx *ctx, nas__obs *o);

/* ---- obs_blocked.c ---- */
nas_status nas__obs_blocked(nas_ctx *ctx, nas__obs *o);

/* ---- obs_state.c: rows that lose columns one after another ---- */
typedef struct nas__obs_state {
    int32_t m, stride; /* alive columns; row length of inverse */
    int32_t p;         /* rows that share the mask */
    int32_t *column;   /* [m] at place */
    int32_t *place;    /* [size] of a column, -1 when it is gone */
    double *inverse;   /* lower triangle, [m][stride] */
    double *w;         /* [p][stride], by place */
    double *step;      /* scratch [stride] */
    double *block;     /* scratch of scores, [block_max][block_max + p] */
    int32_t block_max;
} nas__obs_state;
nas_status nas__obs_state_init(nas_ctx *ctx, const nas__obs *o, int32_t p, int32_t block_max,
                               nas__obs_state *s);
void nas__obs_state_deinit(nas__obs_state *s);
/* nas__obs_state_load - all columns alive; `inverse` [size][size]; rows of w by number. */
void nas__obs_state_load(nas__obs_state *s, const nas__obs *o, const int32_t *rows, int32_t p);
/* nas__obs_state_drop - column `c` of each row r becomes value[r] (zeros when NULL), the others make up for it. */
void nas__obs_state_drop(nas__obs_state *s, int32_t c, const double *value);
/* nas__obs_state_score - what dropping the columns costs, all rows together; n <= block_max. */
double nas__obs_state_score(nas__obs_state *s, const int32_t *columns, int32_t n);

#endif
