/* layer.h - one layer compressed after training, without labels: weights left out, rounded to few bits, or both.
 * THE CALL FOR OTHERS: nas_layer_compress (with nas_layer_scheme_default, nas_layer_options_default).
 *
 * Without second moments of what the layer reads: magnitude (the projection of ir/sparsity.h) and rounding to the nearest.
 * With them, Optimal Brain Surgeon (Frantar et al., arXiv:2208.11580): for H = X^T X of the layer's patches, the weights that
 * cost least go first, one after another, and those that stay make up for it, so that |XW - XW'|^2 grows least:
 *   exact     every row of outputs that share a mask has its own inverse, down-dated by each step; then all rows are refitted to
 *             their mask by least squares. Rounding the same way, each weight in the order of its damage. n^3/3 a row
 *   blocked   all rows share one order and one Cholesky factor (GPTQ, arXiv:2210.17323; SparseGPT, arXiv:2301.00774). n^3
 * `auto` takes the exact one while its estimated multiply-adds stay below a limit. The bias is a column that is never
 * chosen: it takes up what the means of the errors are. Filters, 3x3 shapes and periodic taps have their mask projected from
 * weights in units of their damage, w/sqrt([H^-1]_ii), and are refitted.
 * Layer 2: includes core and ir. */
#ifndef NAS_COMPRESS_LAYER_H
#define NAS_COMPRESS_LAYER_H

#include "compress/compress.h"
#include "compress/quantizer.h"
#include "ir/sparsity.h"

/* What becomes of a layer. */
typedef struct nas_layer_scheme {
    bool is_sparse;
    nas_sparsity sparsity; /* read when is_sparse */
    int32_t bits;          /* 2..8; 0: floats stay */
    nas_grid_kind grid;
    bool per_tensor; /* one grid for the layer, not one for each output channel */
} nas_layer_scheme;
nas_layer_scheme
nas_layer_scheme_default(void); /* nothing: dense floats, symmetric grids a channel */

typedef enum nas_layer_solver {
    NAS_SOLVER_AUTO,
    NAS_SOLVER_EXACT,
    NAS_SOLVER_BLOCKED,
    NAS_SOLVER_MAGNITUDE, /* projection by magnitude, nearest rounding; moments give the loss alone */
    NAS_SOLVER_COUNT
} nas_layer_solver;
const char *nas_layer_solver_name(nas_layer_solver solver);

typedef struct nas_layer_options {
    nas_layer_solver solver; /* without moments always MAGNITUDE */
    double damp;             /* of the mean diagonal of H, added to it; > 0 */
    double exact_macs;       /* AUTO: most multiply-adds of the exact solver */
    int32_t threads;
} nas_layer_options;
nas_layer_options nas_layer_options_default(void); /* AUTO, 0.001, 2e10, 2 threads */

typedef struct nas_layer_result {
    nas_layer_solver solver; /* that did it */
    bool has_loss;           /* the following two need moments */
    double
        loss; /* mean over sampled positions of the squared error, summed over channels; never damped */
    double relative_loss;    /* of the mean squared output */
    double damp;             /* used: raised until H could be factored */
    uint64_t weights, zeros; /* of the layer, afterwards */
} nas_layer_result;

/* nas_layer_compress - compresses CONV `v` (fully connected layers are 1x1 ones) of a graph with weights. moments: of that
 * convolution in the dense network, or NULL for magnitude and nearest rounding. Weights and bias are changed; symmetric grids
 * are declared by nas_graph_set_weight_scales. result may be NULL. Polls cancel.
 * Errors name the layer: those of nas_sparsity_check; UNSUPPORTED (no CONV; moments with groups); INVALID (no weights,
 * moments of another size or not finite); RANGE (bits, damp); the graph is then as before. */
nas_status nas_layer_compress(nas_ctx *ctx, nas_graph *graph, nas_value v,
                              const nas_layer_scheme *scheme, const nas_moments *moments,
                              const nas_layer_options *options, nas_layer_result *result);

/* nas_layer_exact_macs - the estimate that AUTO compares: multiply-adds of the exact solver. */
double nas_layer_exact_macs(const int32_t dims[4], const nas_layer_scheme *scheme);

/* nas_layer_bytes - of the layer's weights: dense at `bits` (32 when 0), or where the scheme is sparse the smaller of that, a
 * bit mask, and lists shared by as many outputs as the pattern's groups have (nas_sparsity_storage), and complementary
 * sets laid over each other; with 4 bytes of scale for each grid. Reads the zeros of the weights. */
nas_status nas_layer_bytes(nas_ctx *ctx, const nas_graph *graph, nas_value v,
                           const nas_layer_scheme *scheme, uint64_t *out);

/* nas_layer_is_whole - no group of the pattern is short in a layer of dims [O,KH,KW,I]: N | O, M | I. Numbers of the pattern
 * that nas_sparsity_check knows are not looked at. */
bool nas_layer_is_whole(const nas_sparsity *s, const int32_t dims[4]);

typedef struct nas_layer_cost {
    uint64_t kept;  /* weights that stay */
    uint64_t bytes; /* nas_layer_bytes, at most: kept weights that round to 0 may make them fewer */
} nas_layer_cost;
/* nas_layer_expect - from shape and scheme alone; a pattern has to be whole. */
nas_layer_cost nas_layer_expect(const int32_t dims[4], const nas_layer_scheme *scheme);

#endif
