/* class_hints.c - |x - t|^2/|t|^2 of values that a network shares with its teacher, and its gradient. */
#include "eval/class_hints.h"

nas_status nas__hints_check(nas_ctx *ctx, const nas_graph *g, const nas_graph *teacher,
                            const nas_tune_options *o) {
    for (size_t i = 0; i < o->n_hints; i++) {
        const nas_tune_hint *hint = &o->hints[i];
        const nas_node *x = nas_graph_node(g, hint->value);
        const nas_node *t = nas_graph_node(teacher, hint->teacher);
        if (x->shape.h != t->shape.h || x->shape.w != t->shape.w)
            return nas_fail(ctx, NAS_ERR_SHAPE,
                            "training: hint '%s' is %dx%d, the teacher's '%s' %dx%d", x->name,
                            (int)x->shape.h, (int)x->shape.w, t->name, (int)t->shape.h,
                            (int)t->shape.w);
        for (int32_t c = 0; c < x->shape.c; c++) {
            if (hint->of[c] >= 0 && hint->of[c] < t->shape.c) continue;
            return nas_fail(ctx, NAS_ERR_RANGE,
                            "training: hint '%s' wants channel %d of the teacher's '%s', which "
                            "has %d",
                            x->name, (int)hint->of[c], t->name, (int)t->shape.c);
        }
    }
    return NAS_OK;
}

/* One value: |x - t|^2/|t|^2; twice (x - t)/|t|^2 times `weight` is added to the gradient. */
static double one(const nas_tune_hint *hint, const nas__exec_value *v, const float *x, float *d,
                  const nas__exec_value *of, const float *t, double weight) {
    double apart = 0, size = 0;
    for (int32_t p = 0; p < v->h * v->w; p++) {
        const ptrdiff_t y = p / v->w, column = p % v->w;
        const float *a = x + y * v->row + column * v->cs, *b = t + y * of->row + column * of->cs;
        for (int32_t c = 0; c < v->c; c++) {
            const double target = (double)b[hint->of[c]], off = (double)a[c] - target;
            apart += off * off;
            size += target * target;
        }
    }
    if (!(size > 0)) return 0; /* nothing to be relative to */
    const float factor = (float)(2 * weight / size);
    for (int32_t p = 0; p < v->h * v->w; p++) {
        const ptrdiff_t y = p / v->w, column = p % v->w, at = y * v->row + column * v->cs;
        const float *b = t + y * of->row + column * of->cs;
        for (int32_t c = 0; c < v->c; c++)
            d[at + c] += factor * (x[at + c] - b[hint->of[c]]);
    }
    return apart / size;
}

double nas__hints_loss(const nas_tune_options *o, const nas_exec *e, float *space, float *grads,
                       const nas_exec *teacher, float *teacher_space, int32_t image,
                       int32_t batch) {
    double loss = 0;
    const double weight = o->hint_weight / (double)o->n_hints;
    for (size_t i = 0; i < o->n_hints; i++) {
        const nas_tune_hint *hint = &o->hints[i];
        const nas__exec_value *v = nas__exec_root(e, hint->value);
        const nas__exec_value *of = nas__exec_root(teacher, hint->teacher);
        const ptrdiff_t at = image * v->image;
        loss +=
            weight * one(hint, v, nas__exec_at(e, space, hint->value) + at,
                         nas__exec_at(e, grads, hint->value) + at, of,
                         nas__exec_at(teacher, teacher_space, hint->teacher) + image * of->image,
                         weight / batch);
    }
    return loss;
}
