/* latency_encode.h - from the text of an architecture to the row of features a latency model reads.
 *
 * What an architecture text means is a "space" by name: one of nas_space_names (decoded to its graph), or "kernel": one
 * layer, "conv h56 w56 i64 o128 k3 s1" (see latency_kernels.h); or "network": a name whose graph comes from an ONNX file.
 * Features are those of latency/graph_features.h that
 * vary in the space, and the space's own choices. Shared inside tools/ and by bench/. */
#ifndef NAS_TOOLS_LATENCY_ENCODE_H
#define NAS_TOOLS_LATENCY_ENCODE_H

#include "latency/graph_features.h"
#include "spaces/space.h"

typedef struct nas_encoder nas_encoder;

/* nas_encoder_new - NOTFOUND lists the spaces. Equal names give equal features, always. */
nas_status nas_encoder_new(nas_ctx *ctx, const char *space, nas_encoder **out);
void nas_encoder_free(nas_encoder *encoder);
const char *nas_encoder_space(const nas_encoder *encoder);
const nas_feature *nas_encoder_features(const nas_encoder *encoder, size_t *n); /* borrowed */

/* nas_encoder_canonical - the one text of this architecture, appended to out; the errors of the space's parser. */
nas_status nas_encoder_canonical(nas_ctx *ctx, const nas_encoder *encoder, const char *arch,
                                 nas_buf *out);
/* nas_encoder_graph - the network; caller frees. */
nas_status nas_encoder_graph(nas_ctx *ctx, const nas_encoder *encoder, const char *arch,
                             nas_graph **out);
/* nas_encoder_sample - the text of a random architecture, appended to out. UNSUPPORTED for "kernel" and "network". */
nas_status nas_encoder_sample(nas_ctx *ctx, const nas_encoder *encoder, nas_rng *rng, nas_buf *out);
/* nas_encoder_row - x: [n features]. */
nas_status nas_encoder_row(nas_ctx *ctx, const nas_encoder *encoder, const char *arch, double *x);
/* nas_encoder_rows - x: [n][n features], on all processors. */
nas_status nas_encoder_rows(nas_ctx *ctx, const nas_encoder *encoder, const char *const *archs,
                            size_t n, double *x);

/* Space "network": any network, given by its graph. Its features are all of latency/graph_features.h. */
bool nas_encoder_is_network(const nas_encoder *encoder);
nas_status nas_encoder_graph_row(nas_ctx *ctx, const nas_encoder *encoder, const nas_graph *graph,
                                 double *x);

#endif
