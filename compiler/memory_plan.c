/* memory_plan.c - rows, rings, strips and the arena.
 *
 * Requires: fuse. Provides: for every stage its lag, halo and ring; the number of column strips such that rings and
 * weights of one thread stay in the L2 cache; register tiles; every offset in the arena. The arena is: control block,
 * then for each thread its rings and its scratch, then the strip contexts. All sizes are constants. */
#include "compiler/compiler_internal.h"

enum {
    CONTROL_BYTES = 8192, /* emit_prelude.c checks that the control block fits */
    PAD_UNIT = 16,        /* floats: one cache line */
    STRIP_VECTORS_MIN = 4,
    ARENA_BYTES_MAX_LOG2 = 33
};

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b; /* a >= 0 */
}

static int32_t greater(int32_t a, int32_t b) {
    return a > b ? a : b;
}

static size_t round_up(size_t n, size_t unit) {
    return (n + unit - 1) / unit * unit;
}

static bool active(const nas__stage *s) {
    return !s->dead && !s->hidden;
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static void plan_lags(nas__program *p) {
    for (int32_t v = 0; v < p->n_stages; v++) {
        nas__stage *s = &p->stages[v];
        if (!active(s)) continue;
        nas__read reads[NAS__READS_MAX];
        const int32_t n = nas__reads(p, s, reads);
        s->lag = 0;
        for (int32_t i = 0; i < n; i++) {
            const nas__stage *u = &p->stages[reads[i].source];
            const int32_t scale = s->kind == NAS__SHUFFLE ? s->block : 1;
            s->lag = greater(s->lag, u->lag * scale + reads[i].half_h);
        }
    }
}

/* A Winograd kernel makes whole groups of rows, which begin `lag` rows before multiples of their size, whatever the number
 * of threads: rows of a group that others need must come from true rows. Threads begin at multiples of the band. */
static void round_to_groups(nas__stage *s) {
    while (s->tile.rows > 0 && (s->above - s->lag) % s->tile.rows != 0)
        s->above++;
    while (s->tile.rows > 0 && (s->below + s->lag) % s->tile.rows != 0)
        s->below++;
}

static void plan_halos(nas__program *p) {
    for (int32_t v = p->n_stages - 1; v >= 0; v--) {
        nas__stage *s = &p->stages[v];
        if (!active(s)) continue;
        round_to_groups(s);
        nas__read reads[NAS__READS_MAX];
        const int32_t n = nas__reads(p, s, reads);
        for (int32_t i = 0; i < n; i++) {
            nas__stage *u = &p->stages[reads[i].source];
            const bool shuffle = s->kind == NAS__SHUFFLE;
            const int32_t half = reads[i].half_h;
            u->above = greater(u->above, shuffle ? ceil_div(s->above, s->block) : s->above + half);
            u->below = greater(u->below, shuffle ? ceil_div(s->below, s->block) : s->below + half);
        }
    }
    for (int32_t v = 0; v < p->n_stages; v++) {
        const nas__stage *s = &p->stages[v];
        if (!active(s)) continue;
        p->plan.lag_rows = greater(p->plan.lag_rows, ceil_div(s->lag + s->below, s->rate));
        p->plan.halo_rows = greater(p->plan.halo_rows, ceil_div(s->above, s->rate));
        p->plan.halo_rows = greater(p->plan.halo_rows, ceil_div(s->below, s->rate));
    }
}

/* Rows of `u` that must be alive while any reader still works: see the lock step in compiler_internal.h. */
static void plan_rings(nas__program *p) {
    for (int32_t v = 0; v < p->n_stages; v++) {
        if (active(&p->stages[v])) p->stages[v].ring_rows = p->stages[v].rate * p->plan.band;
    }
    for (int32_t v = 0; v < p->n_stages; v++) {
        const nas__stage *s = &p->stages[v];
        if (!active(s)) continue;
        nas__read reads[NAS__READS_MAX];
        const int32_t n = nas__reads(p, s, reads);
        for (int32_t i = 0; i < n; i++) {
            nas__stage *u = &p->stages[reads[i].source];
            const int32_t lag = s->kind == NAS__SHUFFLE ? ceil_div(s->lag, s->block) : s->lag;
            u->ring_rows =
                greater(u->ring_rows, u->rate * p->plan.band + lag - u->lag + reads[i].half_h);
        }
    }
}

/* ---- columns --------------------------------------------------------------------------------------------------- */

/* Delays and margins for a given number of strips; fills plan.strips, vectors, pad. */
static void plan_columns(nas__program *p, int32_t strips) {
    const bool cut = strips > 1;
    int32_t delay_max = 0, margin = 1;
    for (int32_t v = 0; v < p->n_stages; v++) {
        nas__stage *s = &p->stages[v];
        s->delay = 0;
        s->left = 0;
        if (!active(s)) continue;
        nas__read reads[NAS__READS_MAX];
        const int32_t n = nas__reads(p, s, reads);
        for (int32_t i = 0; i < n && cut; i++) {
            const int32_t scale = s->kind == NAS__SHUFFLE ? s->block : 1;
            s->delay =
                greater(s->delay, p->stages[reads[i].source].delay * scale + reads[i].half_w);
        }
        for (int32_t i = 0; i < n && s->kind == NAS__SUM; i++) {
            nas__stage *u = &p->stages[reads[i].source];
            u->left = greater(u->left, s->delay - u->delay + reads[i].half_w);
            margin = greater(margin, u->left);
        }
        delay_max = greater(delay_max, ceil_div(s->delay, s->rate));
    }
    p->plan.strips = strips;
    p->plan.pad = (int32_t)round_up((size_t)margin, PAD_UNIT);
    p->plan.vectors = ceil_div(ceil_div(p->width + delay_max, p->plan.lanes), strips);
}

static size_t row_floats(const nas__program *p, const nas__stage *s) {
    return (size_t)s->channels * nas__pitch(p, s->rate);
}

static size_t ring_floats(const nas__program *p, const nas__stage *s) {
    if (s->ring_rows == 0) return 0;
    return round_up((size_t)s->ring_rows * row_floats(p, s) + (size_t)p->plan.pad, PAD_UNIT);
}

/* Bytes one thread touches in every step. */
static double working_bytes(const nas__program *p) {
    double floats = 0;
    for (int32_t v = 0; v < p->n_stages; v++) {
        if (active(&p->stages[v])) floats += (double)ring_floats(p, &p->stages[v]);
    }
    const double cache = p->target->l2_bytes;
    const double element = (double)nas__real_bytes(p);
    const double weights = element * (double)p->plan.weight_floats;
    return element * floats + (weights < cache / 3 ? weights : cache / 3);
}

/* A strip must be able to hand every margin to its right neighbour. */
static bool strips_possible(const nas__program *p) {
    if (p->plan.vectors < STRIP_VECTORS_MIN) return false;
    for (int32_t v = 0; v < p->n_stages; v++) {
        const nas__stage *s = &p->stages[v];
        if (active(s) && s->left > nas__row_vectors(p, s->rate) * p->plan.lanes) return false;
    }
    return true;
}

/* Tiles for the current strips; estimated cycles of one step over the whole width. */
static double plan_tiles(nas__program *p) {
    double cycles = 0;
    for (int32_t v = 0; v < p->n_stages; v++) {
        nas__stage *s = &p->stages[v];
        if (!active(s) || s->kind != NAS__SUM) continue;
        nas__stage *pair = s->pair >= 0 ? &p->stages[s->pair] : NULL;
        const int32_t vectors = nas__row_vectors(p, s->rate);
        nas__tile none;
        cycles +=
            s->rate * (s->tile.rows > 0 ? nas__winograd_tile(p->target, s, vectors, &s->tile)
                                        : nas__choose_tiles(p->target, s, pair, vectors, &s->tile,
                                                            pair != NULL ? &pair->tile : &none));
    }
    return cycles * p->plan.strips;
}

/* Cycles of a step that do not depend on how wide strips are: calls, windows, margins handed on. */
static double strip_cycles(const nas__program *p) {
    double cycles = 0;
    for (int32_t v = 0; v < p->n_stages && p->plan.strips > 1; v++) {
        const nas__stage *s = &p->stages[v];
        if (active(s)) cycles += s->rate * (120.0 + s->channels * (3.0 * s->left + 14.0));
    }
    return cycles * p->plan.strips;
}

/* At least as many strips as it takes for the working set to fit, then what the tiles divide best: a few strips or vectors
 * more. */
static void plan_strips(nas__program *p) {
    enum { MORE_STRIPS = 4, MORE_VECTORS = 2 };
    const double budget = 0.72 * p->target->l2_bytes;
    plan_columns(p, 1);
    int32_t least = 1;
    for (int32_t strips = 2; working_bytes(p) > budget; strips++) {
        plan_columns(p, strips);
        if (!strips_possible(p)) break;
        least = strips;
    }
    double best = 0;
    int32_t chosen = least, chosen_vectors = 0;
    for (int32_t strips = least; strips <= (least > 1 ? least + MORE_STRIPS : 1); strips++) {
        for (int32_t more = 0; more <= (least > 1 ? MORE_VECTORS : 0); more++) {
            plan_columns(p, strips);
            p->plan.vectors += more;
            if (strips > least && !strips_possible(p)) break;
            if (more > 0 && working_bytes(p) > budget) break;
            const double cycles = plan_tiles(p) + strip_cycles(p);
            if (best > 0 && cycles >= 0.995 * best) continue;
            best = cycles;
            chosen = strips;
            chosen_vectors = p->plan.vectors;
        }
    }
    plan_columns(p, chosen);
    p->plan.vectors = chosen_vectors;
    (void)plan_tiles(p);
}

/* ---- what goes straight to the output image, what must be zero outside ------------------------------------------ */

static void plan_output(nas__program *p) {
    nas__stage *out = &p->stages[p->output];
    if (nas__use_count(p, p->output) != 1 || out->kind == NAS__INPUT) return;
    const bool whole_rows = p->plan.strips == 1 && p->plan.vectors * p->plan.lanes == p->width;
    out->direct_out = out->kind == NAS__SHUFFLE || (whole_rows && p->dtype == NAS_DTYPE_FP32);
    if (out->direct_out) out->ring_rows = 0;
}

static void plan_edges(nas__program *p) {
    const bool whole_rows = p->plan.strips == 1 && p->plan.vectors * p->plan.lanes == p->width;
    for (int32_t v = 0; v < p->n_stages; v++) {
        const nas__stage *s = &p->stages[v];
        if (!active(s)) continue;
        nas__read reads[NAS__READS_MAX];
        const int32_t n = nas__reads(p, s, reads);
        for (int32_t i = 0; i < n; i++) {
            nas__stage *u = &p->stages[reads[i].source];
            if (reads[i].half_w > 0 && !whole_rows && u->kind != NAS__INPUT) u->zero_edges = true;
        }
    }
}

/* ---- offsets --------------------------------------------------------------------------------------------------- */

static size_t scratch_floats(const nas__program *p, const nas__stage *s) {
    if (s->kind == NAS__SHUFFLE)
        return (size_t)nas__row_vectors(p, s->rate) * (size_t)p->plan.lanes;
    if (s->tile.rows > 0) return nas__winograd_scratch(s, p->plan.lanes);
    if (s->pair < 0) return 0;
    return (size_t)p->stages[s->pair].channels * (size_t)s->tile.vectors * (size_t)p->plan.lanes;
}

static void place_rings(nas__program *p) {
    size_t at = 0;
    p->plan.scratch_floats = 0;
    for (int32_t v = 0; v < p->n_stages; v++) {
        nas__stage *s = &p->stages[v];
        if (!active(s)) continue;
        s->ring_at = at;
        at += ring_floats(p, s);
        if (s->tile.rows > 0) {
            const nas__stage *u = &p->stages[s->terms[0].source];
            const size_t zeros = row_floats(p, u);
            if (zeros > p->plan.zeros_floats) p->plan.zeros_floats = zeros;
        }
        const size_t scratch = scratch_floats(p, s);
        if (scratch > p->plan.scratch_floats) p->plan.scratch_floats = scratch;
    }
    p->plan.scratch_at = at;
    at = round_up(at + p->plan.scratch_floats, PAD_UNIT);
    p->plan.zeros_at = at;
    p->plan.thread_floats = round_up(at + p->plan.zeros_floats, 1024);
}

static void place_contexts(nas__program *p) {
    const size_t margins = 2 * (size_t)p->plan.halo_rows * (size_t)p->max_threads;
    p->plan.context_rows = (size_t)p->height + margins;
    p->plan.context_floats = 0;
    for (int32_t v = 0; v < p->n_stages && p->plan.strips > 1; v++) {
        nas__stage *s = &p->stages[v];
        if (!active(s) || s->left == 0 || s->kind == NAS__INPUT) continue;
        s->context_at = p->plan.context_floats;
        p->plan.context_floats +=
            p->plan.context_rows * (size_t)s->rate * (size_t)s->channels * (size_t)s->left;
    }
}

static void place_stage_weights(nas__program *p, nas__stage *s) {
    s->weights_at = p->plan.weight_floats;
    p->plan.weight_floats += round_up(nas__weight_floats(s), PAD_UNIT);
}

static void place_weights(nas__program *p) {
    p->plan.weight_floats = 0;
    for (int32_t v = 0; v < p->n_stages; v++) {
        nas__stage *s = &p->stages[v];
        if (!active(s)) continue;
        if (s->pair >= 0)
            place_stage_weights(p, &p->stages[s->pair]); /* right before its reader's */
        place_stage_weights(p, s);
    }
    if (p->plan.weight_floats == 0) p->plan.weight_floats = PAD_UNIT;
}

/* Everything about rows that depends on which kernels make several at once. */
static void plan_rows(nas__program *p) {
    p->plan.lag_rows = 0;
    p->plan.halo_rows = 0;
    for (int32_t v = 0; v < p->n_stages; v++) {
        p->stages[v].above = 0;
        p->stages[v].below = 0;
    }
    place_weights(p);
    plan_lags(p);
    plan_halos(p);
    plan_rings(p);
}

nas_status nas__pass_plan(nas_ctx *ctx, nas__program *p) {
    bool changed = false;
    p->plan.lanes = p->target->vector_bytes / (int32_t)nas__real_bytes(p);
    nas__choose_winograd(p, ceil_div(p->width, p->plan.lanes));
    plan_rows(p);
    plan_strips(p);
    const nas_status status = nas__row_tune(ctx, p, &changed);
    if (status != NAS_OK) return status;
    if (changed) plan_rows(p); /* the strips stay: they are what was measured */
    plan_output(p);
    plan_edges(p);
    place_rings(p);
    place_contexts(p);
    const size_t floats = p->plan.thread_floats * (size_t)p->max_threads + p->plan.context_floats;
    p->plan.arena_bytes = CONTROL_BYTES + round_up(floats * nas__real_bytes(p), 64);
    if (p->plan.arena_bytes >> ARENA_BYTES_MAX_LOG2 != 0) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "graph '%s' needs %zu bytes of activations, limit %zu; use a smaller input",
                        nas_graph_name(p->graph), p->plan.arena_bytes,
                        (size_t)1 << ARENA_BYTES_MAX_LOG2);
    }
    return NAS_OK;
}
