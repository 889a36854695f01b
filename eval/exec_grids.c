/* exec_grids.c - values rounded to grids while a network of integers is trained, and gradients through the rounding: straight
 * through within the grid, 0 beyond its ends; that of the step is LSQ's (Esser et al., arXiv:1902.08153, eq. 3). */
#include "eval/exec_internal.h"

#include <math.h>
#include <string.h>

nas_status nas__exec_use_grids(nas_ctx *ctx, nas_exec *e, const nas__exec_grid *grids) {
    e->before_at = (ptrdiff_t)(e->space_floats + 64 + 15) / 16 * 16;
    for (int32_t i = 0; i < e->options.threads; i++) {
        float *larger = nas_alloc_aligned(ctx, 2 * (size_t)e->before_at, sizeof(float), 64);
        if (larger == NULL) return NAS_ERR_NOMEM;
        nas_free(e->spaces[i]);
        e->spaces[i] = larger;
    }
    e->grids = grids;
    nas_exec_update(e); /* constants */
    return NAS_OK;
}

/* Borders are 0 and stay so: whole images are taken as they lie. */
void nas__exec_round(const nas_exec *e, nas_value v, float *space, int32_t n) {
    const nas__exec_value *value = nas__exec_root(e, v);
    const nas__exec_grid *g = e->grids == NULL ? NULL : &e->grids[value->root];
    if (g == NULL || !g->is_set) return;
    float *x = space + e->slot_at[value->slot], *before = x + e->before_at;
    for (ptrdiff_t i = 0; i < n * value->image; i++) {
        before[i] = x[i];
        const float steps = fminf(fmaxf(x[i] / g->scale, g->low), g->high);
        x[i] = g->scale * rintf(steps);
    }
}

void nas__exec_round_back(const nas_exec *e, nas_value v, const float *space, float *grads,
                          int32_t n, float *sum) {
    const nas__exec_value *value = nas__exec_root(e, v);
    const nas__exec_grid *g = &e->grids[value->root];
    const size_t at = e->slot_at[value->slot];
    const float *before = space + at + e->before_at;
    float *d = grads + at;
    double total = 0;
    for (ptrdiff_t i = 0; i < n * value->image; i++) {
        const float steps = before[i] / g->scale;
        const bool beyond = steps < g->low || steps > g->high;
        const float slope = beyond ? (steps < g->low ? g->low : g->high) : rintf(steps) - steps;
        total += (double)(d[i] * slope);
        if (beyond) d[i] = 0;
    }
    *sum += (float)total;
}
