/* oneshot_budget.h - which level each layer gets: a table of (layer, level) -> (loss, cost), and the budget over it. */
#ifndef NAS_SEARCH_ONESHOT_BUDGET_H
#define NAS_SEARCH_ONESHOT_BUDGET_H

#include "compress/budget.h"
#include "search/oneshot.h"

/* What a budget is counted in; per layer, summed. */
typedef enum nas_oneshot_cost {
    NAS_ONESHOT_BYTES, /* nas_layer_bytes */
    NAS_ONESHOT_MACS,  /* of weights that are not zero */
    NAS_ONESHOT_BOPS, /* MACs times bits of a weight times bits of the input; 32 each for floats, and where o->input_bits is NULL */
    NAS_ONESHOT_TIME, /* microseconds that the device of o->times took; 0 for layers that nobody measured there */
    NAS_ONESHOT_COST_COUNT
} nas_oneshot_cost;
const char *nas_oneshot_cost_name(nas_oneshot_cost cost); /* "bytes", "macs", "bops", "time" */
nas_oneshot_cost nas_oneshot_cost_find(const char *name); /* COST_COUNT: no such */

/* What a level is believed to lose. */
typedef enum nas_oneshot_sensitivity {
    NAS_ONESHOT_SCALED, /* relative output error, times the divergence (nas_oneshot_divergence) on REWARD images of the layer's
                           * worst level for each unit of it: one evaluation a layer, and no noise between levels */
    NAS_ONESHOT_MEASURED, /* divergence of every level */
    NAS_ONESHOT_ERROR,    /* relative output error alone: no evaluation */
    NAS_ONESHOT_SENSITIVITY_COUNT
} nas_oneshot_sensitivity;
const char *nas_oneshot_sensitivity_name(nas_oneshot_sensitivity kind);
nas_oneshot_sensitivity nas_oneshot_sensitivity_find(const char *name);

typedef struct nas_oneshot_table {
    size_t n_layers, n_levels;
    nas_layer_scheme *schemes; /* [n_levels][n_layers] */
    nas_graph **graphs;        /* [n_levels] every layer at that level */
    nas_layer_result *results; /* [n_layers][n_levels] */
    nas_budget_level *entries; /* [n_layers][n_levels] */
    double *dense;             /* [n_layers] cost of the layer as floats, nothing left out */
    nas_oneshot_cost cost;
} nas_oneshot_table;

/* nas_oneshot_table_make - compresses every layer at every level and measures; layers of the model must be calibrated.
 * schemes [n_levels][n_layers]: what level k means for layer i; layers may stay dense, or know fewer levels than others (the
 * same scheme twice). */
nas_status nas_oneshot_table_make(nas_ctx *ctx, nas_oneshot *o, const nas_layer_scheme *schemes,
                                  size_t n_levels, const nas_layer_options *options,
                                  nas_oneshot_cost cost, nas_oneshot_sensitivity sensitivity,
                                  nas_oneshot_table *out);
void nas_oneshot_table_deinit(nas_oneshot_table *table);
/* nas_oneshot_table_pick - the levels of least loss within the limit, and the network that has them. choice [n_layers]. */
nas_status nas_oneshot_table_pick(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_table *t,
                                  double limit, int32_t *choice, nas_budget_total *total,
                                  nas_graph **out);

/* nas_oneshot_table_network - the network with choice[i] for layer i. */
nas_status nas_oneshot_table_network(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_table *t,
                                     const int32_t *choice, nas_graph **out);
/* A network with one layer at another level. */
typedef struct nas_oneshot_probe {
    size_t layer;
    int32_t level;
} nas_oneshot_probe;
/* nas_oneshot_table_probe - out [n]: what each makes of the divergence of `graph`, which stays as it is. probes: layer never
 * falls. phase: as which progress is told. */
nas_status nas_oneshot_table_probe(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_table *t,
                                   const nas_graph *graph, const nas_oneshot_reference *dense,
                                   const nas_oneshot_probe *probes, size_t n, const char *phase,
                                   double *out);

/* nas_oneshot_cost_of - of all layers of a compressed graph; schemes [n_layers]. */
nas_status nas_oneshot_cost_of(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                               const nas_layer_scheme *schemes, nas_oneshot_cost cost, double *out);

/* nas_oneshot_layer_cost - of layer i of a compressed graph. */
nas_status nas_oneshot_layer_cost(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                                  size_t layer, const nas_layer_scheme *scheme,
                                  nas_oneshot_cost cost, double *out);

#endif
