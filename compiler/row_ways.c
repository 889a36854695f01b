/* row_ways.c - which kernels may compute a stage of the row form, and which of them does where times were measured. */
#include "compiler/tune_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    FOUND_MAX = 400,
    VECTORS_MAX = 6,
    PAIR_TILES = 3, /* of the hidden stage, for each number of vectors */
    ALIKE_MAX = 4   /* ways that differ in the outputs of a tile alone */
};

/* Estimates are coarse, but a way that is expected to take half as long again does not win. */
static const double competing = 1.5;

/* A way takes the place of the planned one when it is measured faster by more than noise. */
static const double convincing = 0.97;

typedef struct found {
    nas__row_way ways[FOUND_MAX];
    int32_t n;
} found;

static void add(found *f, const nas__row_way *way) {
    if (way->cycles > 0 && f->n < FOUND_MAX) f->ways[f->n++] = *way;
}

static int by_cycles(const void *a, const void *b) {
    const nas__row_way *x = a, *y = b;
    if (x->cycles != y->cycles) return x->cycles < y->cycles ? -1 : 1;
    const int32_t rows = x->tile.rows - y->tile.rows, vectors = x->tile.vectors - y->tile.vectors,
                  outputs = x->tile.outputs - y->tile.outputs;
    if (rows != 0) return rows;
    if (vectors != 0) return vectors;
    return outputs != 0 ? outputs : x->pair_tile.outputs - y->pair_tile.outputs;
}

/* The tiles of a pair's hidden stage that are fastest by estimate: out[PAIR_TILES], 0 outputs where there is none. */
static void pair_tiles(const nas__program *p, const nas__stage *pair, int32_t vectors,
                       nas__row_way out[PAIR_TILES]) {
    memset(out, 0, PAIR_TILES * sizeof *out);
    for (int32_t n = 1; n <= NAS__OUTPUTS_MAX; n++) {
        nas__row_way way = {.pair_tile = {.outputs = n, .vectors = vectors},
                            .cycles = nas__tile_cycles(p->target, pair, n, vectors)};
        for (int32_t i = 0; i < PAIR_TILES && way.cycles > 0; i++) {
            if (out[i].cycles > 0 && out[i].cycles <= way.cycles) continue;
            const nas__row_way behind = out[i];
            out[i] = way;
            way = behind;
        }
    }
}

static void find_direct(const nas__program *p, const nas__stage *s, found *f) {
    const nas__stage *pair = s->pair >= 0 ? &p->stages[s->pair] : NULL;
    const int32_t row = nas__row_vectors(p, s->rate);
    for (int32_t vectors = 1; vectors <= VECTORS_MAX && vectors <= row; vectors++) {
        const int32_t columns = (row + vectors - 1) / vectors;
        nas__row_way hidden[PAIR_TILES] = {{.cycles = 0}};
        double crowding = 0;
        if (pair != NULL) {
            pair_tiles(p, pair, vectors, hidden);
            crowding = nas__pair_crowding(p->target, s, pair, vectors);
        }
        for (int32_t n = 1; n <= NAS__OUTPUTS_MAX; n++) {
            const double cycles = nas__tile_cycles(p->target, s, n, vectors);
            if (cycles == 0) continue;
            nas__row_way way = {.tile = {.outputs = n, .vectors = vectors},
                                .cycles = cycles * columns};
            if (pair == NULL) add(f, &way);
            for (int32_t i = 0; i < PAIR_TILES && pair != NULL && hidden[i].cycles > 0; i++) {
                way.pair_tile = hidden[i].pair_tile;
                way.cycles = (cycles + hidden[i].cycles + crowding) * columns;
                add(f, &way);
            }
        }
    }
}

static void find_winograd(const nas__program *p, const nas__stage *s, int32_t rows, found *f) {
    const int32_t row = nas__row_vectors(p, s->rate);
    nas__stage as = *s;
    if (!nas__winograd_possible(s) || s->rate * p->plan.band % rows != 0) return;
    as.tile = (nas__tile){.rows = rows};
    for (int32_t vectors = 1; vectors <= 4 && vectors <= row; vectors++) {
        for (int32_t n = 1; n <= NAS__OUTPUTS_MAX; n++) {
            nas__row_way way = {.tile = {.outputs = n, .vectors = vectors, .rows = rows}};
            way.cycles = nas__winograd_cycles(p->target, &as, row, n, vectors, &way.tile.span);
            add(f, &way);
        }
    }
}

/* How many of ways[n] differ in outputs alone. */
static int32_t alike(const nas__row_way *way, const nas__row_way *ways, int32_t n) {
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++)
        count += ways[i].tile.rows == way->tile.rows && ways[i].tile.vectors == way->tile.vectors;
    return count;
}

bool nas__row_way_used(const nas__program *p, const nas__stage *s, const nas__row_way *w) {
    return w->tile.rows == s->tile.rows && w->tile.outputs == s->tile.outputs &&
           w->tile.vectors == s->tile.vectors &&
           (s->pair < 0 || w->pair_tile.outputs == p->stages[s->pair].tile.outputs);
}

int32_t nas__row_ways(const nas__program *p, int32_t v, nas__row_way out[NAS__ROW_WAYS_MAX]) {
    const nas__stage *s = &p->stages[v];
    found f = {.n = 0};
    find_direct(p, s, &f);
    if (p->kernels != NAS_ROW_KERNELS_DIRECT) {
        for (int32_t rows = 2; rows <= NAS__WINOGRAD_ROWS_MAX; rows += 2)
            find_winograd(p, s, rows, &f);
    }
    qsort(f.ways, (size_t)f.n, sizeof f.ways[0], by_cycles);
    int32_t n = 0;
    for (int32_t i = 0; i < f.n && n == 0; i++) {
        if (nas__row_way_used(p, s, &f.ways[i])) out[n++] = f.ways[i];
    }
    for (int32_t i = 0; i < f.n && n < NAS__ROW_WAYS_MAX; i++) {
        if (f.ways[i].cycles > competing * f.ways[0].cycles) break;
        if (nas__row_way_used(p, s, &f.ways[i])) continue;
        if (alike(&f.ways[i], out, n) < ALIKE_MAX) out[n++] = f.ways[i];
    }
    return n;
}

/* ---- measured times decide ---------------------------------------------------------------------------------------- */

static bool is_tuned(const nas__stage *s) {
    return !s->dead && !s->hidden && s->kind == NAS__SUM;
}

static bool equal_shapes(const nas__program *p, int32_t v, int32_t w) {
    nas_buf a = {0}, b = {0};
    nas__stage_shape(p, &p->stages[v], &a);
    nas__stage_shape(p, &p->stages[w], &b);
    const bool equal = !a.failed && !b.failed && p->stages[v].rate == p->stages[w].rate &&
                       strcmp(a.data, b.data) == 0;
    nas_buf_deinit(&a);
    nas_buf_deinit(&b);
    return equal;
}

/* Stages that may have to wait for their turn on the clock, this one included: equal ones wait once. */
static int32_t tuned_from(const nas__program *p, int32_t v) {
    int32_t n = 0;
    for (; v < p->n_stages; v++) {
        bool seen = !is_tuned(&p->stages[v]);
        for (int32_t w = 0; w < v && !seen; w++)
            seen = is_tuned(&p->stages[w]) && equal_shapes(p, v, w);
        n += !seen;
    }
    return n > 0 ? n : 1;
}

static int32_t fastest_of(const double *ns, int32_t n) {
    int32_t fastest = 0;
    for (int32_t i = 1; i < n; i++) {
        if (ns[i] < ns[fastest] && ns[i] < convincing * ns[0]) fastest = i;
    }
    return fastest;
}

static nas_status tune_stage(nas_ctx *ctx, nas__program *p, int32_t v, int64_t start_ns) {
    const nas_compile_options *o = p->options;
    nas__stage *s = &p->stages[v];
    double ns[NAS__ROW_WAYS_MAX] = {0};
    bool known = false;
    int32_t best = 0;
    s->ways = nas_arena_alloc(ctx, p->arena, NAS__ROW_WAYS_MAX, sizeof *s->ways);
    if (s->ways == NULL) return NAS_ERR_NOMEM;
    s->n_ways = nas__row_ways(p, v, s->ways);
    nas__tune_subject subject = {.rows = p, .stage = v, .row_ways = s->ways, .n = s->n_ways};
    subject.n = nas__tune_fit(o, &subject);
    if (subject.n < 1) return NAS_OK;
    nas_status status = nas__tune_recall(ctx, o, o->memory, &subject, &known, &best, ns);
    const double left = o->tune_s - (double)(nas_now_ns() - start_ns) * 1e-9;
    if (status != NAS_OK || (!known && !(left > 0))) return status;
    const double share = left / tuned_from(p, v);
    if (!known)
        status =
            nas__tune_best(ctx, o, o->memory, &subject, share > 0.05 ? share : 0.05, &best, ns);
    if (status != NAS_OK) return nas_wrap(ctx, status, "tuning of '%s'", s->name);
    for (int32_t i = 0; i < subject.n; i++)
        s->ways[i].measured_ns = ns[i];
    best = fastest_of(ns, subject.n);
    s->tile = s->ways[best].tile;
    if (s->pair >= 0) p->stages[s->pair].tile = s->ways[best].pair_tile;
    return NAS_OK;
}

nas_status nas__row_tune(nas_ctx *ctx, nas__program *p, bool *changed) {
    const int64_t start_ns = nas_now_ns();
    nas_status status = NAS_OK;
    *changed = false;
    if (p->options->memory == NULL || !p->has_weights) return NAS_OK;
    if (p->dtype != NAS_DTYPE_FP32) return NAS_OK; /* the tuning program computes in floats */
    for (int32_t v = 0; v < p->n_stages && status == NAS_OK; v++) {
        const int32_t rows = p->stages[v].tile.rows;
        if (!is_tuned(&p->stages[v])) continue;
        status = nas_check_cancel(ctx);
        if (status == NAS_OK) status = tune_stage(ctx, p, v, start_ns);
        *changed = *changed || p->stages[v].tile.rows != rows;
    }
    return status;
}
