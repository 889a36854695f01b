/* transfer.c - the encoder of one search as the beginning of another one's: what it learnt of how networks hang together. Its
 * weights know features of nodes and the width of embeddings, not the network, so that any other network can be read with them. */
#include "search/strategies/policy_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT_VERSION = 1, A_LINE = 4 };

static nas_status wants_encoder(nas_ctx *ctx, const nas_strategy *s) {
    if (s->agent != NULL && nas__agent_encoder_size(s->agent) > 0) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID, "strategy '%s' has no encoder: only agmc has one",
                    s->ops->name);
}

nas_status nas_strategy_encoder_write(nas_ctx *ctx, nas_strategy *s, nas_buf *out) {
    const nas_status status = wants_encoder(ctx, s);
    if (status != NAS_OK) return status;
    nas__agent_learn(s->agent, s->members, s->n_members);
    const size_t n = nas__agent_encoder_size(s->agent);
    const double *weights = nas__agent_encoder(s->agent);
    nas_buf_printf(out, "nas-encoder %d %" PRId32 " %zu\n", FORMAT_VERSION,
                   nas__agent_encoder_features(s->agent), n);
    for (size_t i = 0; i < n; i++)
        nas_buf_printf(out, "%a%s", weights[i],
                       i % A_LINE == A_LINE - 1 || i + 1 == n ? "\n" : " ");
    nas_buf_puts(out, "end\n");
    return nas_buf_status(ctx, out);
}

static nas_status read_weights(nas_ctx *ctx, const char *text, size_t n, double *out) {
    for (size_t i = 0; i < n; i++) {
        char *end = NULL;
        out[i] = strtod(text, &end);
        if (end == text || !isfinite(out[i]))
            return nas_fail(ctx, NAS_ERR_PARSE, "encoder: weight %zu of %zu is no finite number", i,
                            n);
        text = end;
    }
    if (strcmp(text, "\nend\n") == 0) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_PARSE, "encoder: no \"end\" after %zu weights", n);
}

nas_status nas_strategy_encoder_read(nas_ctx *ctx, nas_strategy *s, const char *text) {
    int version = 0, features = 0, used = 0;
    size_t n = 0;
    nas_status status = wants_encoder(ctx, s);
    if (status == NAS_OK && (s->seen.n > 0 || s->n_members > 0))
        status = nas_fail(ctx, NAS_ERR_INVALID, "an encoder is handed over before the first point");
    if (status != NAS_OK) return status;
    if (sscanf(text, "nas-encoder %9d %9d %9zu\n%n", &version, &features, &n, &used) != 3 ||
        used == 0)
        return nas_fail(ctx, NAS_ERR_PARSE, "the text does not begin with \"nas-encoder\"");
    if (version != FORMAT_VERSION)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "encoder of version %d, this program reads %d",
                        version, FORMAT_VERSION);
    if (features != nas__agent_encoder_features(s->agent) || n != nas__agent_encoder_size(s->agent))
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "the encoder reads %d features of a node with %zu weights, this search has "
                        "%d and %zu: it was trained for another space",
                        features, n, (int)nas__agent_encoder_features(s->agent),
                        nas__agent_encoder_size(s->agent));
    double *weights = nas_alloc_array(ctx, n, sizeof *weights);
    if (weights == NULL) return NAS_ERR_NOMEM;
    status = read_weights(ctx, text + used, n, weights);
    if (status != NAS_OK) {
        nas_free(weights);
        return status;
    }
    nas_free(s->encoder);
    s->encoder = weights;
    nas__agent_start_from(s->agent, weights);
    return NAS_OK;
}

uint64_t nas__encoder_hash(const nas_strategy *s) {
    uint8_t digest[NAS_SHA256_BYTES];
    uint64_t hash = 0;
    if (s->encoder == NULL) return 0;
    nas_sha256 h;
    nas_sha256_init(&h);
    for (size_t i = 0; i < nas__agent_encoder_size(s->agent); i++) {
        char number[40];
        const int length = snprintf(number, sizeof number, "%a ", s->encoder[i]);
        nas_sha256_update(&h, number, (size_t)length);
    }
    nas_sha256_final(&h, digest);
    for (int i = 0; i < 8; i++)
        hash = hash << 8 | digest[i];
    return hash;
}

nas_status nas__encoder_share(nas_ctx *ctx, const nas_strategy *from, nas_strategy *to) {
    if (from->encoder == NULL) return NAS_OK;
    const size_t n = nas__agent_encoder_size(from->agent);
    to->encoder = nas_alloc_array(ctx, n, sizeof *to->encoder);
    if (to->encoder == NULL) return NAS_ERR_NOMEM;
    memcpy(to->encoder, from->encoder, n * sizeof *to->encoder);
    nas__agent_start_from(to->agent, to->encoder);
    return NAS_OK;
}
