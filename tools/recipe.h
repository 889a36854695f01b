/* recipe.h - what nas-compile --recipe says of a model's layers:
 *   {"graph_hash": "...", "dtype": "fp32" or "fp16", "sparsity": {...},
 *    "layers": {"<node>": {"weight_bits": 2..8, "weight_scales": [one a channel],
 *                          "activation": {"scale": s, "zero_point": z, "signed": b} or null, "sparsity": {...}}}}
 * graph_hash is that of the model without weights, as compile.json has it; "sparsity": recipe_sparsity.h. Searches and nas-compress
 * write such files. */
#ifndef NAS_TOOLS_RECIPE_H
#define NAS_TOOLS_RECIPE_H

#include "ir/graph.h"

typedef enum nas_recipe_dtype {
    NAS_RECIPE_UNSAID,
    NAS_RECIPE_FP32,
    NAS_RECIPE_FP16
} nas_recipe_dtype;

/* nas_recipe_apply - reads the file at `path` and sets zeros, codes and grids of `graph`. Errors: NOTFOUND, IO (the file; at most 16
 * MiB), PARSE, INVALID (of another model), NOTFOUND (no such layer), RANGE, UNSUPPORTED; the message names recipe and layer. On
 * failure some layers may be set: the graph is of no use. `dtype` gets what the program is to compute in. */
nas_status nas_recipe_apply(nas_ctx *ctx, const char *path, nas_graph *graph,
                            nas_recipe_dtype *dtype);

#endif
