/* explain.c - why each layer is computed as it is: the candidates, what the cost model expects of them, which one won. */
#include "compiler/layers_network_internal.h"

static const nas_node *node_of(const nas__layers *l, nas_value v) {
    return nas__layers_node(l, v);
}

/* ---- layers ------------------------------------------------------------------------------------------------------- */

static void explain_result(const nas__layers *l, const nas__layer *layer, int32_t index,
                           nas_buf *out) {
    if (layer->measured_ns[index] > 0)
        nas_buf_printf(out, "; measured %.1f us", layer->measured_ns[index] * 1e-3);
    nas_buf_printf(out, "; weights %zu bytes\n", nas__layer_weight_bytes(l, layer, index));
}

/* Bytes of floats that a multiply-add of `w` multiplies, two a cycle. */
static int32_t multiplied_bytes(const nas_target *target, const nas__conv_way *w) {
    if (nas__conv_is_sve(w)) return target->sve_bytes / (target->sve_halves ? 2 : 1);
    const int32_t bytes = target->vector_bytes;
    if (w->algorithm == NAS__CONV_BF16) return 4 * bytes;
    if (w->algorithm == NAS__CONV_BF16_TILE) return 16 * bytes;
    if (w->algorithm == NAS__CONV_BF16_DOT) return target->splits_vectors ? 2 * bytes : bytes / 2;
    return bytes;
}

/* Channels at the end of the inputs and of the outputs for which vectors of Winograd are shared by two tiles. */
static void explain_pairs(const nas_target *target, const nas__conv *c, nas_buf *out) {
    const int32_t in = nas__conv_winograd_pair(target, c->in_c);
    const int32_t outputs = nas__conv_winograd_pair(target, c->out_c);
    if (in == 0 && outputs == 0) return;
    nas_buf_puts(out, ", two tiles share vectors of");
    if (in > 0) nas_buf_printf(out, " %d inputs%s", in, outputs > 0 ? " and" : "");
    if (outputs > 0) nas_buf_printf(out, " %d outputs", outputs);
}

static void explain_way(const nas__layers *l, const nas__layer *layer, int32_t index,
                        nas_buf *out) {
    static const char *const staged[] = {"", ", rows of the kernel joined", ", the kernel joined"};
    const nas__conv_way *w = &layer->ways[index];
    const nas__conv *c = &layer->conv;
    const double macs =
        (double)c->out_h * c->out_w * c->out_c * c->kernel_h * c->kernel_w * (c->in_c / c->groups);
    const double bound = macs / (2.0 * multiplied_bytes(l->target, w) / 4);
    nas_buf_printf(out, "    %c %-9s  %2d pixels x %2d vectors", index == layer->way ? '*' : ' ',
                   nas__conv_algorithm_name(w->algorithm), w->pixels, w->vectors);
    if (nas__conv_is_staged(w))
        nas_buf_printf(out, ", strips of %d rows%s", w->batch, staged[w->joined]);
    else if (w->batch > 0)
        nas_buf_printf(out, ", %d tiles together", w->batch);
    if (w->algorithm == NAS__CONV_WINOGRAD_2 || w->algorithm == NAS__CONV_WINOGRAD_4)
        explain_pairs(l->target, c, out);
    if (w->outer > 0) nas_buf_puts(out, ", channels outside");
    if (w->algorithm == NAS__CONV_SPARSE_CODE)
        nas_buf_printf(out, ", instructions for %d outputs x %d at a time", w->group, w->pixels);
    else if (w->algorithm == NAS__CONV_SPARSE_RUN)
        nas_buf_printf(out, ", each output picks from runs of %d inputs", w->group);
    else if (w->group > 0)
        nas_buf_printf(out, ", lists of %d outputs", w->group);
    if (nas__conv_is_sparse(w))
        nas_buf_printf(out, ", %.1f %% of the products",
                       100.0 * nas__sparse_products(l->target, c, w) /
                           (macs / c->out_h / c->out_w));
    nas_buf_printf(out, ": %.1f kcycles estimated, %.0f %% of the multiply-add bound",
                   w->cycles * 1e-3, w->cycles > 0 ? 100 * bound / w->cycles : 0.0);
    explain_result(l, layer, index, out);
}

static bool is_sparse(const nas__layer *layer, int32_t i) {
    return layer->kind == NAS__LAYER_QCONV ? nas__qconv_is_sparse(&layer->qways[i])
                                           : nas__conv_is_sparse(&layer->ways[i]);
}

static double time_of(const nas__layer *layer, int32_t i, bool measured) {
    if (measured) return layer->measured_ns[i];
    return layer->kind == NAS__LAYER_QCONV ? layer->qways[i].cycles : layer->ways[i].cycles;
}

static const char *name_of(const nas__layer *layer, int32_t i) {
    return layer->kind == NAS__LAYER_QCONV ? nas__qconv_algorithm_name(layer->qways[i].algorithm)
                                           : nas__conv_algorithm_name(layer->ways[i].algorithm);
}

/* The fastest way that is sparse, or is not: by measured times where there are some, else by estimate; -1 without. */
static int32_t best_of(const nas__layer *layer, bool sparse, bool measured) {
    int32_t best = -1;
    for (int32_t i = 0; i < layer->n_ways; i++) {
        if (is_sparse(layer, i) != sparse) continue;
        if (measured && layer->measured_ns[i] <= 0) continue;
        if (best < 0 || time_of(layer, i, measured) < time_of(layer, best, measured)) best = i;
    }
    return best;
}

/* What the zeros are worth: the best way that leaves them out against the best one that does not. */
static void explain_zeros(const nas__layer *layer, nas_buf *out) {
    if (layer->zeros == 0) return;
    const bool measured = best_of(layer, true, true) >= 0 && best_of(layer, false, true) >= 0;
    const int32_t sparse = best_of(layer, true, measured), dense = best_of(layer, false, measured);
    nas_buf_printf(out, "      %.1f %% of the weights are zero", 100 * layer->zeros);
    if (sparse < 0 || dense < 0) {
        nas_buf_puts(out, ", but no outputs can leave a product out together\n");
        return;
    }
    const double gain = time_of(layer, dense, measured) / time_of(layer, sparse, measured);
    nas_buf_printf(out, ": %s has %.2f times the %s speed of %s, the best dense way\n",
                   name_of(layer, sparse), gain, measured ? "measured" : "estimated",
                   name_of(layer, dense));
}

static void explain_qway(const nas__layers *l, const nas__layer *layer, int32_t index,
                         nas_buf *out) {
    const nas__qconv_way *w = &layer->qways[index];
    const nas__conv *c = &layer->conv;
    nas_buf_printf(out, "    %c %-9s  %2d pixels x %2d vectors, %d-bit weights in memory",
                   index == layer->way ? '*' : ' ', nas__qconv_algorithm_name(w->algorithm),
                   w->pixels, w->vectors, w->stored_bits);
    if (w->split > 1) nas_buf_printf(out, ", outputs in %d sums", w->split);
    if (w->sums16 > 0) nas_buf_printf(out, ", %d products added in 16 bits", 2 * w->sums16);
    if (w->batch > 0) nas_buf_printf(out, ", %d tiles together", w->batch);
    if (nas__qconv_is_sparse(w))
        nas_buf_printf(out, ", lists of %d outputs, %.1f %% of the products",
                       nas__qconv_shared(l->target, w),
                       100.0 * nas__qconv_sparse_products(l->target, &layer->qconv, w) /
                           ((double)c->out_c * c->kernel_h * c->kernel_w * c->in_c));
    nas_buf_printf(out, ": %.1f kcycles estimated", w->cycles * 1e-3);
    explain_result(l, layer, index, out);
}

static void explain_conv(const nas__layers *l, const nas__layer *layer, nas_buf *out) {
    const nas__conv *c = &layer->conv;
    const bool integers = layer->kind == NAS__LAYER_QCONV;
    nas_buf_printf(out, "%sconv %dx%d stride %d, %d -> %d channels", integers ? "integer " : "",
                   c->kernel_h, c->kernel_w, c->stride_h, c->in_c, c->out_c);
    if (c->groups > 1) nas_buf_printf(out, " in %d groups", c->groups);
    nas_buf_printf(out, ", %d x %d pixels", c->out_h, c->out_w);
    if (c->has_residual) nas_buf_puts(out, ", adds a residual");
    if (layer->value != layer->node && c->act != NAS__LACT_NONE)
        nas_buf_puts(out, ", activation inside");
    nas_buf_puts(out, "\n");
    for (int32_t i = 0; i < layer->n_ways; i++) {
        if (integers) {
            explain_qway(l, layer, i, out);
        } else {
            explain_way(l, layer, i, out);
        }
    }
    explain_zeros(layer, out);
}

static void explain_layer(const nas__layers *l, const nas__layer *layer, nas_buf *out) {
    nas_buf_printf(out, "%s: ", node_of(l, layer->node)->name);
    switch (layer->kind) {
    case NAS__LAYER_CONV:
    case NAS__LAYER_QCONV: explain_conv(l, layer, out); return;
    case NAS__LAYER_QOP: {
        const nas_shape *s = &layer->qop.out.shape;
        nas_buf_printf(out, "integer %s, %d x %d x %d\n", nas__qop_kind_name(layer->qop.kind), s->h,
                       s->w, s->c);
        return;
    }
    case NAS__LAYER_OP: {
        const nas_shape *s = &layer->op.out.shape;
        nas_buf_printf(out, "%s, %d x %d x %d\n", nas_op_name(layer->op.node->op), s->h, s->w,
                       s->c);
        return;
    }
    case NAS__LAYER_OUTPUT: nas_buf_puts(out, "to the caller's planes\n"); return;
    }
}

static void dump_kernel(const nas__layer *layer, nas_buf *out) {
    const char *name = "output";
    switch (layer->kind) {
    case NAS__LAYER_CONV: name = nas__conv_algorithm_name(layer->ways[layer->way].algorithm); break;
    case NAS__LAYER_OP: name = nas_op_name(layer->op.node->op); break;
    case NAS__LAYER_OUTPUT: break;
    case NAS__LAYER_QCONV:
    case NAS__LAYER_QOP:
        nas_buf_printf(out, "integer %-8s",
                       layer->kind == NAS__LAYER_QOP
                           ? nas__qop_kind_name(layer->qop.kind)
                           : nas__qconv_algorithm_name(layer->qways[layer->way].algorithm));
        return;
    }
    nas_buf_printf(out, "%-16s", name);
}

void nas__layers_dump(const nas__layers *l, nas_buf *out) {
    nas_buf_printf(out, "%d layers, %d buffers, %zu bytes of arena, %zu weights\n", l->n_layers,
                   l->n_buffers, l->arena_bytes, l->weight_floats);
    for (int32_t i = 0; i < l->n_layers; i++) {
        const nas__layer *layer = &l->layers[i];
        nas_buf_printf(out, "%s%-3d ", layer->barrier ? "| " : "  ", i);
        dump_kernel(layer, out);
        const nas_node *value = node_of(l, layer->value);
        nas_buf_printf(out, " -> %s [%d,%d,%d]", value->name, value->shape.h, value->shape.w,
                       value->shape.c);
        if (layer->kind != NAS__LAYER_OUTPUT && l->places[layer->value].buffer >= 0) {
            const nas__layer_buffer *b = &l->buffers[l->places[layer->value].buffer];
            nas_buf_printf(out, " at %zu, border %d %d %d %d", b->at, b->top, b->left, b->bottom,
                           b->right);
        }
        nas_buf_printf(out, ", %d units\n", layer->units);
    }
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

/* Direct and Winograd, a row each, where both can compute the stage. */
static void explain_row_kernels(const nas__program *p, const nas__stage *s, nas_buf *out) {
    nas__stage other = *s;
    const int32_t vectors = nas__row_vectors(p, s->rate);
    if (s->hidden || !nas__winograd_possible(s)) return;
    for (int32_t rows = 0; rows <= NAS__WINOGRAD_ROWS_MAX; rows += 2) {
        nas__tile tile, none;
        if (rows > 0 && !nas__winograd_accurate(p, s, rows)) continue;
        other.tile = (nas__tile){.rows = rows};
        const double cycles =
            rows > 0 ? nas__winograd_tile(p->target, &other, vectors, &tile)
                     : nas__choose_tiles(p->target, &other, NULL, vectors, &tile, &none);
        nas_buf_printf(out, "    %c ", rows == s->tile.rows ? '*' : ' ');
        if (rows == 0) nas_buf_puts(out, "direct");
        if (rows > 0) nas_buf_printf(out, "F(%d,%d)", rows, s->terms[0].kernel_h);
        nas_buf_printf(out, ", tile %d x %d", tile.outputs, tile.vectors);
        if (rows > 0)
            nas_buf_printf(out, ", %d vectors transformed together, scratch %zu KiB", tile.span,
                           nas__winograd_scratch(
                               &(nas__stage){.terms = {s->terms[0]}, .tile = tile}, p->plan.lanes) *
                               nas__real_bytes(p) / 1024);
        nas_buf_printf(out, ": %.1f kcycles a row estimated\n", cycles * 1e-3);
    }
}

/* What competed where times were measured, the one that is used marked. */
static void explain_measured(const nas__program *p, const nas__stage *s, nas_buf *out) {
    for (int32_t i = 0; i < s->n_ways; i++) {
        const nas__row_way *w = &s->ways[i];
        if (!(w->measured_ns > 0)) continue;
        nas_buf_printf(out, "    %c ", nas__row_way_used(p, s, w) ? '*' : ' ');
        if (w->tile.rows == 0) nas_buf_puts(out, "direct");
        if (w->tile.rows > 0) nas_buf_printf(out, "F(%d,%d)", w->tile.rows, s->terms[0].kernel_h);
        nas_buf_printf(out, ", tile %d x %d", w->tile.outputs, w->tile.vectors);
        if (s->pair >= 0)
            nas_buf_printf(out, ", inside %d x %d", w->pair_tile.outputs, w->pair_tile.vectors);
        nas_buf_printf(out, ": %.1f kcycles a row estimated; measured %.1f us\n", w->cycles * 1e-3,
                       w->measured_ns * 1e-3);
    }
}

static void explain_rows(const nas__program *p, nas_buf *out) {
    if (p->dtype == NAS_DTYPE_FP16)
        nas_buf_puts(out, "half precision: rows and weights are fp16, the image is converted at "
                          "the edges\n");
    nas_buf_printf(out,
                   "%d row%s at a time: %d strips of %d vectors, %zu bytes of arena; tiles are "
                   "output channels x pixel vectors\n",
                   p->plan.band, p->plan.band > 1 ? "s" : "", p->plan.strips, p->plan.vectors,
                   p->plan.arena_bytes);
    for (int32_t v = 0; v < p->n_stages; v++) {
        const nas__stage *s = &p->stages[v];
        if (s->dead) continue;
        nas_buf_printf(out, "%s: ", s->name);
        if (s->kind != NAS__SUM) {
            nas_buf_puts(out, s->kind == NAS__INPUT ? "the image\n" : "pixel shuffle\n");
            continue;
        }
        for (int32_t i = 0; i < s->n_terms; i++) {
            nas_buf_printf(out, "%sconv %dx%d of %d channels", i > 0 ? " + " : "",
                           s->terms[i].kernel_h, s->terms[i].kernel_w, s->terms[i].channels);
        }
        nas_buf_printf(out, "%s-> %d channels at rate %d%s; tile %d x %d\n",
                       s->n_terms > 0 ? " " : "sum ", s->channels, s->rate,
                       s->hidden ? ", inside its reader" : "", s->tile.outputs, s->tile.vectors);
        const int32_t block = s->tile.rows > 0 ? 0 : nas__half_block(p, s);
        if (block > 0)
            nas_buf_printf(out, "    sums go to floats after %d products at most\n", block);
        if (s->n_ways > 0 && s->ways[0].measured_ns > 0) {
            explain_measured(p, s, out);
        } else {
            explain_row_kernels(p, s, out);
        }
    }
}

/* Which channels went before there were layers. */
static void explain_slices(const nas__form *f, nas_buf *out) {
    const nas_graph *g = f->phases != NULL ? f->phases : f->graph;
    for (nas_value v = 0; f->sliced != NULL && v < nas_graph_node_count(f->sliced); v++) {
        const nas_node *left = nas_graph_node(f->sliced, v), *all = nas_graph_node(g, v);
        if (left->op != NAS_OP_CONV || left->shape.c == all->shape.c) continue;
        nas_buf_printf(out,
                       "%s: %d of %d outputs are not computed: constant, or nothing reads them\n",
                       left->name, all->shape.c - left->shape.c, all->shape.c);
    }
}

nas_status nas_compile_explain(nas_ctx *ctx, const nas_graph *graph,
                               const nas_compile_options *options, nas_buf *out) {
    if (options->target == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "explain: no target");
    nas__form form = {0};
    const nas_status status = nas__form_lower(ctx, graph, options, &form);
    if (status != NAS_OK) return status;
    if (form.rows != NULL) {
        explain_rows(form.rows, out);
    } else {
        if (options->dtype == NAS_DTYPE_BF16)
            nas_buf_puts(out, "bf16: kernels of that name round inputs and weights to it, sums and "
                              "values between layers are floats\n");
        explain_slices(&form, out);
        for (int32_t i = 0; i < form.layers->n_layers; i++)
            explain_layer(form.layers, &form.layers->layers[i], out);
    }
    nas__form_free(&form);
    return nas_buf_status(ctx, out);
}
