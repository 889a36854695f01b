/* pass_fold.c - constants move to where they cost nothing: a constant added to the image into the copy of the image,
 * constants added after a convolution or a shuffle into biases. Requires: import. Provides: no stage that only adds
 * a constant, except where its source has other readers.
 * A constant before a convolution stays: the zero padding is zero after the addition, so a bias cannot express it. */
#include "compiler/compiler_internal.h"

/* act(bias + x), one source, nothing else. */
static bool pointwise(const nas__stage *s) {
    return !s->dead && s->kind == NAS__SUM && s->n_terms == 0 && s->n_adds == 1;
}

static bool uniform(const nas__stage *s) {
    for (int32_t c = 1; c < s->channels; c++) {
        if (s->bias[c] != s->bias[0]) return false;
    }
    return s->act != NAS__ACT_PRELU;
}

static void replace_uses(nas__program *p, int32_t from, int32_t to) {
    for (int32_t v = 0; v < p->n_stages; v++) {
        nas__stage *s = &p->stages[v];
        if (s->dead) continue;
        for (int32_t i = 0; i < s->n_terms; i++) {
            if (s->terms[i].source == from) s->terms[i].source = to;
        }
        for (int32_t i = 0; i < s->n_adds; i++) {
            if (s->adds[i] == from) s->adds[i] = to;
        }
    }
    if (p->output == from) p->output = to;
}

void nas__merge_pointwise(nas__program *p, bool with_act) {
    for (int32_t v = 0; v < p->n_stages; v++) {
        nas__stage *s = &p->stages[v];
        if (!pointwise(s) || (s->act != NAS__ACT_NONE && !with_act)) continue;
        nas__stage *x = &p->stages[s->adds[0]];
        if (x->kind != NAS__SUM || x->act != NAS__ACT_NONE || nas__use_count(p, s->adds[0]) != 1)
            continue;
        for (int32_t c = 0; c < s->channels; c++)
            x->bias[c] += s->bias[c];
        x->act = s->act;
        x->slope = s->slope;
        x->name = s->name;
        s->dead = true;
        replace_uses(p, v, s->adds[0]);
    }
}

static void fold_into_input(nas__program *p) {
    for (int32_t v = 0; v < p->n_stages; v++) {
        nas__stage *s = &p->stages[v];
        if (!pointwise(s) || s->act != NAS__ACT_NONE || !uniform(s)) continue;
        if (s->adds[0] != p->input || nas__use_count(p, p->input) != 1) continue;
        p->stages[p->input].shift += s->bias[0];
        s->dead = true;
        replace_uses(p, v, p->input);
    }
}

/* shuffle, then a pointwise stage: the other way round it works on shorter rows and can merge further up. */
static void hoist_above_shuffle(nas_ctx *ctx, nas__program *p, int32_t v, nas_status *status) {
    nas__stage *s = &p->stages[v];
    if (!pointwise(s) || !uniform(s)) return;
    const int32_t at = s->adds[0];
    nas__stage *shuffle = &p->stages[at];
    if (shuffle->kind != NAS__SHUFFLE || nas__use_count(p, at) != 1) return;
    const nas__stage *x = &p->stages[shuffle->adds[0]];
    nas__stage above = *s;
    above.name = shuffle->name;
    above.channels = x->channels;
    above.rate = x->rate;
    above.adds[0] = shuffle->adds[0];
    above.bias = nas_arena_alloc(ctx, p->arena, (size_t)x->channels, sizeof *above.bias);
    if (above.bias == NULL) {
        *status = NAS_ERR_NOMEM;
        return;
    }
    for (int32_t c = 0; c < x->channels; c++)
        above.bias[c] = s->bias[0];
    nas__stage below = *shuffle;
    below.name = s->name;
    below.adds[0] = at;
    *shuffle = above;
    *s = below;
}

nas_status nas__pass_fold(nas_ctx *ctx, nas__program *p) {
    nas_status status = NAS_OK;
    for (int32_t v = p->n_stages - 1; v >= 0 && status == NAS_OK; v--)
        hoist_above_shuffle(ctx, p, v, &status);
    fold_into_input(p);
    nas__merge_pointwise(p, false);
    return status;
}
