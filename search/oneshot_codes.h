/* oneshot_codes.h - values stored as codes: which ones integer kernels need, their grids, the network that has them.
 *
 * A value gets a grid when a convolution with integer weights (scales) reads or writes it, or when it meets such a value in a
 * sum, product, pool or concatenation. Convolutions in several groups, which nas-compress leaves alone, get 8-bit weights, so
 * that codes pass through them. Codes have 8 bits; with fewer (`bits`), results of a ReLU or clip that starts at 0 end at code
 * 2^bits - 1: the activation becomes a clip in the network itself, as in PACT (arXiv:1805.06085); images, sums of signed values
 * and scores keep 8 bits. Pools of largest values and concatenations share the grids of what they read. */
#ifndef NAS_SEARCH_ONESHOT_CODES_H
#define NAS_SEARCH_ONESHOT_CODES_H

#include "search/oneshot.h"

typedef struct nas_oneshot_code {
    nas_value value;
    nas_value leader; /* the first value that has this grid */
    int32_t bits;     /* 8, or fewer where the value is clipped */
    float scale;
    int32_t zero_point;
} nas_oneshot_code;

typedef struct nas_oneshot_codes {
    nas_oneshot_code *list; /* by value; owned */
    size_t n;
} nas_oneshot_codes;

/* nas_oneshot_codes_find - values and grids for a network whose layers have weight scales; `graph` gets 8-bit weights in its
 * grouped convolutions. Grids have the least squared error over the calibration images (those of the network's output: all that
 * was seen). bits 2..8. Needs nas_oneshot_calibrate. Errors: RANGE (bits); UNSUPPORTED: no layer has integer weights, or a
 * batch normalisation is left (it has to be folded first). */
nas_status nas_oneshot_codes_find(nas_ctx *ctx, const nas_oneshot *o, nas_graph *graph,
                                  int32_t bits, nas_oneshot_codes *out);
/* nas_oneshot_codes_find_each - the same with bits[v] for the grid whose leader is v; [nodes], those of leaders are read. */
nas_status nas_oneshot_codes_find_each(nas_ctx *ctx, const nas_oneshot *o, nas_graph *graph,
                                       const int32_t *bits, nas_oneshot_codes *out);
/* nas_oneshot_codes_narrow - leader[v], of every node: once the convolutions of integers[] have integer weights (NULL: all of them),
 * the leader of the grid of v if that would have fewer than 8 bits where fewer are asked for, else NONE. What shares a grid is
 * narrow together or not at all. */
nas_status nas_oneshot_codes_narrow(nas_ctx *ctx, const nas_graph *graph, const bool *integers,
                                    nas_value *leader);
/* nas_oneshot_codes_inputs - bits[layer] of what the layers of o->model read once those of integers[layer], and all grouped
 * convolutions, have integer weights, and activations at most `act_bits`. */
nas_status nas_oneshot_codes_inputs(nas_ctx *ctx, const nas_oneshot *o, const bool *integers,
                                    int32_t act_bits, int32_t *bits);
void nas_oneshot_codes_deinit(nas_oneshot_codes *codes);

/* nas_oneshot_codes_apply - a copy of the graph with these quantizations, and with clips where codes have fewer than 8 bits.
 * Nodes keep their numbers and names. */
nas_status nas_oneshot_codes_apply(nas_ctx *ctx, const nas_graph *graph,
                                   const nas_oneshot_codes *codes, nas_graph **out);

#endif
