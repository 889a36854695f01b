/* pass_fuse.c - stages that need not leave the registers or the L1 cache merge into their readers.
 * Requires: fold. Provides: additions and activations inside the convolution that feeds them; sums of convolutions
 * (tail + skip) as one stage; pairs X -> act -> 1x1 through a scratch of a few vectors of pixels. */
#include "compiler/compiler_internal.h"

#include <string.h>

/* Takes the terms, additions and bias of `x` into `s`, which adds x's value. */
static void absorb(nas__program *p, nas__stage *s, int32_t add_index) {
    nas__stage *x = &p->stages[s->adds[add_index]];
    s->n_adds--;
    for (int32_t i = add_index; i < s->n_adds; i++)
        s->adds[i] = s->adds[i + 1];
    for (int32_t i = 0; i < x->n_terms; i++)
        s->terms[s->n_terms++] = x->terms[i];
    for (int32_t i = 0; i < x->n_adds; i++)
        s->adds[s->n_adds++] = x->adds[i];
    for (int32_t c = 0; c < s->channels; c++)
        s->bias[c] += x->bias[c];
    x->dead = true;
}

static bool can_absorb(const nas__program *p, const nas__stage *s, int32_t value) {
    const nas__stage *x = &p->stages[value];
    return x->kind == NAS__SUM && x->act == NAS__ACT_NONE && nas__use_count(p, value) == 1 &&
           s->n_terms + x->n_terms <= NAS__TERMS_MAX && s->n_adds - 1 + x->n_adds <= NAS__ADDS_MAX;
}

static void fuse_additions(nas__program *p) {
    for (int32_t v = 0; v < p->n_stages; v++) {
        nas__stage *s = &p->stages[v];
        if (s->dead || s->kind != NAS__SUM) continue;
        for (int32_t i = 0; i < s->n_adds;) {
            if (can_absorb(p, s, s->adds[i])) {
                absorb(p, s, i);
                i = 0;
            } else {
                i++;
            }
        }
    }
}

/* Does one vector of pixels of the hidden channels leave room in L1 for weights and rows? */
static bool scratch_fits(const nas__program *p, const nas__stage *x) {
    return x->channels * p->target->vector_bytes <= p->target->l1_bytes / 2;
}

static void fuse_pairs(nas__program *p) {
    for (int32_t v = 0; v < p->n_stages; v++) {
        nas__stage *s = &p->stages[v];
        if (s->dead || s->kind != NAS__SUM || s->n_terms != 1) continue;
        const nas__term *t = &s->terms[0];
        nas__stage *x = &p->stages[t->source];
        const bool one_by_one = t->kernel_h == 1 && t->kernel_w == 1 && t->up == 1;
        if (!one_by_one || x->kind != NAS__SUM || x->pair >= 0 || x->n_terms == 0) continue;
        if (nas__use_count(p, t->source) != 1 || !scratch_fits(p, x)) continue;
        x->hidden = true;
        s->pair = t->source;
    }
}

nas_status nas__pass_fuse(nas_ctx *ctx, nas__program *p) {
    (void)ctx; /* every pass has the same form; this one cannot fail */
    fuse_additions(p);
    nas__merge_pointwise(p, true);
    fuse_additions(p); /* a sum that became free of pointwise stages may reach further up */
    fuse_pairs(p);
    return NAS_OK;
}
