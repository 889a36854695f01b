/* importance.c - how much a class of channels matters: sums over the layers that write and read it. */
#include "compress/compress_internal.h"

#include <math.h>
#include <stdlib.h>

const char *nas_importance_name(nas_importance kind) {
    static const char *const names[] = {
        [NAS_IMPORTANCE_L1] = "l1",
        [NAS_IMPORTANCE_L2] = "l2",
        [NAS_IMPORTANCE_NORM_SCALE] = "norm_scale",
        [NAS_IMPORTANCE_RECONSTRUCTION] = "reconstruction",
        [NAS_IMPORTANCE_TAYLOR] = "taylor",
    };
    return names[kind];
}

/* What one layer says of each of its channels. */
typedef struct ballot {
    double *parts; /* [channels of the value] */
    int32_t n;
    nas_value of; /* the value whose channels they are */
} ballot;

static void cast(const nas_channels *ch, const ballot *b, double *scores) {
    double mean = 0;
    for (int32_t c = 0; c < b->n; c++)
        mean += b->parts[c] / b->n;
    if (!(mean > 0)) return; /* a layer of zeros prefers nobody */
    for (int32_t c = 0; c < b->n; c++) {
        const int32_t number = ch->of[b->of][c];
        if (number != NAS_CLASS_FIXED) scores[number] += b->parts[c] / mean;
    }
}

static double norm_part(nas_importance kind, double w) {
    return kind == NAS_IMPORTANCE_L1 ? fabs(w) : w * w;
}

static void begin(ballot *b, nas_value of, int32_t n) {
    b->of = of;
    b->n = n;
    for (int32_t c = 0; c < n; c++)
        b->parts[c] = 0;
}

static void finish_norms(const nas_channels *ch, nas_importance kind, ballot *b, double *scores) {
    for (int32_t c = 0; c < b->n && kind == NAS_IMPORTANCE_L2; c++)
        b->parts[c] = sqrt(b->parts[c]);
    cast(ch, b, scores);
}

/* Filters that write a channel, weights that read it. */
static void vote_norms(const nas_channels *ch, const nas_graph *g, nas_importance kind, ballot *b,
                       double *scores) {
    for (nas_value v = 0; v < ch->n_values; v++) {
        const nas_node *node = nas_graph_node(g, v);
        if (node->op != NAS_OP_CONV) continue;
        const nas_param *p = nas_graph_param_const(g, node->params[0]);
        const size_t filter = p->count / (size_t)p->dims[0];
        begin(b, v, node->shape.c);
        for (size_t i = 0; i < p->count; i++)
            b->parts[i / filter] += norm_part(kind, p->data[i]);
        finish_norms(ch, kind, b, scores);
        if (node->conv.groups > 1) continue;
        begin(b, node->inputs[0], p->dims[3]);
        for (size_t i = 0; i < p->count; i++)
            b->parts[i % (size_t)p->dims[3]] += norm_part(kind, p->data[i]);
        finish_norms(ch, kind, b, scores);
    }
}

static nas_status vote_scales(nas_ctx *ctx, const nas_channels *ch, const nas_graph *g, ballot *b,
                              double *scores) {
    for (nas_value v = 0; v < ch->n_values; v++) {
        const nas_node *node = nas_graph_node(g, v);
        if (node->op != NAS_OP_BATCH_NORM) continue;
        begin(b, v, node->shape.c);
        for (int32_t c = 0; c < b->n; c++)
            b->parts[c] = fabs((double)nas_graph_param_const(g, node->params[0])->data[c]);
        cast(ch, b, scores);
    }
    for (int32_t i = 0; i < ch->n_groups; i++) {
        double sum = 0;
        for (int32_t k = 0; k < ch->groups[i].channels; k++)
            sum += scores[ch->groups[i].classes[k]];
        if (sum > 0) continue;
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "importance norm_scale: no batch normalisation in channel group '%s'; use "
                        "l1, l2 or reconstruction",
                        ch->groups[i].name);
    }
    return NAS_OK;
}

static const nas_moments *moments_of(const nas_moments *list, size_t n, nas_value conv) {
    for (size_t i = 0; i < n; i++) {
        if (list[i].conv == conv) return &list[i];
    }
    return NULL;
}

/* Energy of the outputs that come from input channel c alone: sum over filters of w_c^T G_cc w_c. */
static double energy_of(const nas_param *p, const nas_moments *m, int32_t c) {
    const int32_t width = p->dims[3], taps = p->dims[1] * p->dims[2];
    double sum = 0;
    for (int32_t o = 0; o < p->dims[0]; o++) {
        const float *w = p->data + (size_t)o * (size_t)taps * (size_t)width;
        for (int32_t s = 0; s < taps; s++) {
            const double *row = m->gram + (size_t)(s * width + c) * (size_t)m->size;
            double inner = 0;
            for (int32_t t = 0; t < taps; t++)
                inner += row[t * width + c] * (double)w[t * width + c];
            sum += inner * (double)w[s * width + c];
        }
    }
    return sum;
}

static nas_status vote_reconstruction(nas_ctx *ctx, const nas_channels *ch, const nas_graph *g,
                                      const nas_moments *moments, size_t n, ballot *b,
                                      double *scores) {
    for (nas_value v = 0; v < ch->n_values; v++) {
        const nas_node *node = nas_graph_node(g, v);
        if (node->op != NAS_OP_CONV || node->conv.groups > 1) continue;
        const nas_param *p = nas_graph_param_const(g, node->params[0]);
        bool prunable = false;
        for (int32_t c = 0; c < p->dims[3]; c++)
            prunable = prunable || ch->of[node->inputs[0]][c] != NAS_CLASS_FIXED;
        if (!prunable) continue;
        const nas_moments *m = moments_of(moments, n, v);
        if (m == NULL)
            return nas_fail(ctx, NAS_ERR_NOTFOUND,
                            "importance reconstruction: no moments of convolution '%s'",
                            node->name);
        begin(b, node->inputs[0], p->dims[3]);
        for (int32_t c = 0; c < b->n; c++)
            b->parts[c] = energy_of(p, m, c);
        cast(ch, b, scores);
    }
    return NAS_OK;
}

nas_status nas_channels_importance(nas_ctx *ctx, const nas_channels *ch, const nas_graph *g,
                                   nas_importance kind, const nas_moments *moments,
                                   size_t n_moments, double *scores) {
    if (!nas_graph_has_weights(g))
        return nas_fail(ctx, NAS_ERR_INVALID, "importance in '%s': no weights", nas_graph_name(g));
    int32_t widest = 1;
    for (nas_value v = 0; v < ch->n_values; v++) {
        const int32_t c = nas_graph_node(g, v)->shape.c;
        widest = c > widest ? c : widest;
    }
    ballot b = {.parts = nas_alloc_array(ctx, (size_t)widest, sizeof *b.parts)};
    if (b.parts == NULL) return NAS_ERR_NOMEM;
    for (int32_t i = 0; i < ch->n_classes; i++)
        scores[i] = 0;
    nas_status status = NAS_OK;
    switch (kind) {
    case NAS_IMPORTANCE_L1:
    case NAS_IMPORTANCE_L2: vote_norms(ch, g, kind, &b, scores); break;
    case NAS_IMPORTANCE_NORM_SCALE: status = vote_scales(ctx, ch, g, &b, scores); break;
    case NAS_IMPORTANCE_RECONSTRUCTION:
        status = vote_reconstruction(ctx, ch, g, moments, n_moments, &b, scores);
        break;
    case NAS_IMPORTANCE_TAYLOR:
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "importance taylor needs gradients: nas_channels_importance_taylor");
        break;
    case NAS_IMPORTANCE_COUNT: break;
    }
    nas_free(b.parts);
    return status;
}

static bool is_read_by_conv(const nas_graph *g, nas_value v) {
    for (nas_value r = v + 1; r < nas_graph_node_count(g); r++) {
        const nas_node *node = nas_graph_node(g, r);
        if (node->op == NAS_OP_CONV && node->inputs[0] == v) return true;
    }
    return false;
}

nas_status nas_channels_importance_taylor(nas_ctx *ctx, const nas_channels *ch, const nas_graph *g,
                                          const double *saliency, double *scores) {
    int32_t widest = 1;
    for (nas_value v = 0; v < ch->n_values; v++)
        widest = nas_graph_node(g, v)->shape.c > widest ? nas_graph_node(g, v)->shape.c : widest;
    ballot b = {.parts = nas_alloc_array(ctx, (size_t)widest, sizeof *b.parts)};
    if (b.parts == NULL) return NAS_ERR_NOMEM;
    for (int32_t i = 0; i < ch->n_classes; i++)
        scores[i] = 0;
    for (nas_value v = 0; v < ch->n_values; v++) {
        const int32_t c = nas_graph_node(g, v)->shape.c;
        begin(&b, v, c);
        for (int32_t k = 0; k < c; k++)
            b.parts[k] = saliency[k];
        saliency += c;
        if (is_read_by_conv(g, v)) cast(ch, &b, scores);
    }
    nas_free(b.parts);
    return NAS_OK;
}

/* ---- choice ------------------------------------------------------------------------------------------------------- */

typedef struct ranked {
    double score;
    int32_t number;
} ranked;

static int by_score(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->score > y->score) return -1;
    if (x->score < y->score) return 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

nas_status nas_channels_choose(nas_ctx *ctx, const nas_channels *ch, const double *scores,
                               const int32_t *kept, bool *keep) {
    ranked *list = nas_alloc_array(ctx, (size_t)ch->n_classes, sizeof *list);
    if (list == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < ch->n_groups && status == NAS_OK; i++) {
        const nas_channel_group *g = &ch->groups[i];
        if (kept[i] < 1 || kept[i] > g->channels) {
            status = nas_fail(ctx, NAS_ERR_RANGE,
                              "channel group '%s': %d of %d channels kept, limit 1..%d", g->name,
                              (int)kept[i], (int)g->channels, (int)g->channels);
            break;
        }
        for (int32_t k = 0; k < g->channels; k++)
            list[k] = (ranked){scores[g->classes[k]], g->classes[k]};
        qsort(list, (size_t)g->channels, sizeof *list, by_score);
        for (int32_t k = 0; k < g->channels; k++)
            keep[list[k].number] = k < kept[i];
    }
    nas_free(list);
    return status;
}
