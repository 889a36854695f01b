/* class_train.c - SGD for classifiers. A batch is cut into chunks of so many images whatever the number of threads; each has
 * gradients of its own, which are added up in order. */
#include "eval/class_train.h"
#include "eval/class_hints.h"
#include "eval/class_norms.h"
#include "eval/exec_internal.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK = 8,
    NORM_CHUNK = 32, /* at most, where a chunk has statistics of its own */
    NORM_IMAGES = 256,
    AVERAGE_IMAGES = 1024,
    BATCH_MAX = 1024
};

nas_tune_options nas_tune_options_default(void) {
    return (nas_tune_options){.batch = 64,
                              .steps = 500,
                              .learning_rate = 0.02,
                              .warmup = 20,
                              .momentum = 0.9,
                              .weight_decay = 1e-4,
                              .gradient_clip = 5,
                              .distill = 0.5,
                              .temperature = 3,
                              .shift = 2,
                              .threads = 2,
                              .seed = 1};
}

/* One image of a batch. */
typedef struct drawn {
    size_t index;
    bool flip;
    int32_t dy, dx;
} drawn;

typedef struct tuner {
    nas_graph *graph; /* NULL when only a gradient is wanted */
    const nas_class_data *data;
    const nas_tune_options *o;
    nas_exec *e, *teacher;
    nas_value logits, teacher_logits;
    int32_t classes;
    nas_arena *arena;
    size_t *param_at, n_floats;
    float *gradients;          /* [chunks][n_floats]; the sum ends in the first */
    float *velocity, *squares; /* momentum or first moments; Adam's second moments */
    float *mean;               /* NULL, or [n_floats] of the weights */
    uint32_t *order;           /* NULL, or the TUNE images as the epoch has them */
    int64_t epoch;             /* of order; -1 before the first */
    float **grads;             /* [thread] a space each */
    float **scratch;           /* [thread] image and scratch of the backward pass */
    size_t image_floats;
    double *losses; /* [chunks] */
    drawn *batch;
    int32_t n;           /* images of this step */
    int32_t chunk;       /* images of a chunk */
    struct quantized *q; /* NULL, or a network of integers */
    double *saliency;    /* NULL, or [chunks][channels of all values]: see nas_tune_saliency */
    size_t n_channels;
} tuner;

/* ---- one chunk ------------------------------------------------------------------------------------------------------ */

typedef struct chunk_reader {
    const tuner *t;
    size_t first;
} chunk_reader;

static void read_drawn(void *arg, size_t index, float *hwc) {
    const chunk_reader *r = arg;
    const drawn *d = &r->t->batch[r->first + index];
    nas_class_data_read(r->t->data, NAS_CLASS_TUNE, d->index, d->flip, d->dy, d->dx, hwc);
}

static void soften(const float *scores, int32_t n, double temperature, double *out) {
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++)
        top = fmax(top, (double)scores[i]);
    for (int32_t i = 0; i < n; i++) {
        out[i] = exp(((double)scores[i] - top) / temperature);
        sum += out[i];
    }
    for (int32_t i = 0; i < n; i++)
        out[i] /= sum;
}

enum { CLASSES_MAX = 4096 };

/* Loss of one image; d = its gradient over the scores, divided by the batch. */
static double image_loss(const tuner *t, const float *scores, const float *teacher, int32_t label,
                         float *d) {
    double p[CLASSES_MAX], q[CLASSES_MAX];
    const int32_t n = t->classes;
    const double share = teacher == NULL ? 0 : t->o->distill, heat = t->o->temperature;
    soften(scores, n, 1, p);
    double loss = -(1 - share) * log(fmax(p[label], 1e-30));
    for (int32_t i = 0; i < n; i++)
        d[i] = (float)((1 - share) * (p[i] - (i == label)) / t->n);
    if (teacher == NULL) return loss;
    soften(scores, n, heat, p);
    soften(teacher, n, heat, q);
    for (int32_t i = 0; i < n; i++) {
        loss += share * heat * heat * q[i] * (log(fmax(q[i], 1e-30)) - log(fmax(p[i], 1e-30)));
        d[i] += (float)(share * heat * (p[i] - q[i]) / t->n);
    }
    return loss;
}

/* Over the images of a chunk, |sum over pixels of gradient times value| of each channel of each value. */
static void add_saliency(const tuner *t, const float *space, const float *grads, int32_t n,
                         double *to) {
    for (nas_value v = 0; v <= t->logits; v++) {
        const nas__exec_value *value = nas__exec_root(t->e, v);
        const ptrdiff_t at = nas__exec_at(t->e, t->e->spaces[0], v) - t->e->spaces[0];
        for (int32_t image = 0; image < n; image++) {
            for (int32_t c = 0; c < value->c; c++) {
                double sum = 0;
                for (int32_t p = 0; p < value->h * value->w; p++) {
                    const ptrdiff_t k = at + image * value->image + p / value->w * value->row +
                                        (ptrdiff_t)(p % value->w) * value->cs + c;
                    sum += (double)space[k] * (double)grads[k];
                }
                to[c] += fabs(sum);
            }
        }
        to += value->c;
    }
}

static bool has_hints(const nas_tune_options *o, const void *teacher) {
    return teacher != NULL && o->n_hints > 0 && o->hint_weight > 0;
}

static nas_status train_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    const tuner *t = arg;
    const nas_status status = nas_check_cancel(ctx);
    if (status != NAS_OK) return status;
    chunk_reader r = {t, index * (size_t)t->chunk};
    const int32_t left = t->n - (int32_t)r.first, n = left < t->chunk ? left : t->chunk;
    float *space = t->e->spaces[worker], *grads = t->grads[worker], *scratch = t->scratch[worker];
    float *gradient = t->gradients + index * t->n_floats;
    nas__exec_load(t->e, space, 0, n, read_drawn, &r, scratch);
    nas__exec_round(t->e, nas_graph_input(t->e->graph), space, n);
    nas__exec_forward(t->e, space, n, t->logits + 1);
    float *teacher_space = t->teacher == NULL ? NULL : t->teacher->spaces[worker];
    if (t->teacher != NULL) {
        nas__exec_load(t->teacher, teacher_space, 0, n, read_drawn, &r, scratch);
        nas__exec_forward(t->teacher, teacher_space, n, t->teacher_logits + 1);
    }
    memset(grads, 0, t->e->space_floats * sizeof *grads);
    memset(gradient, 0, t->n_floats * sizeof *gradient);
    t->losses[index] = 0;
    for (int32_t i = 0; i < n; i++) {
        const nas__exec_value *v = nas__exec_root(t->e, t->logits);
        const float *scores = nas__exec_at(t->e, space, t->logits) + i * v->image;
        const float *teacher = NULL;
        if (t->teacher != NULL) {
            teacher = nas__exec_at(t->teacher, teacher_space, t->teacher_logits) +
                      i * nas__exec_root(t->teacher, t->teacher_logits)->image;
        }
        const int32_t label =
            nas_class_data_label(t->data, NAS_CLASS_TUNE, t->batch[r.first + (size_t)i].index);
        t->losses[index] += image_loss(t, scores, teacher, label,
                                       nas__exec_at(t->e, grads, t->logits) + i * v->image);
        if (has_hints(t->o, t->teacher))
            t->losses[index] +=
                nas__hints_loss(t->o, t->e, space, grads, t->teacher, teacher_space, i, t->n);
    }
    nas__exec_backward(t->e, space, grads, n, t->logits, t->param_at, gradient,
                       scratch + t->image_floats);
    if (t->saliency != NULL) add_saliency(t, space, grads, n, t->saliency + index * t->n_channels);
    return NAS_OK;
}

/* ---- one step ------------------------------------------------------------------------------------------------------- */

static int32_t chunks_of(const tuner *t, int32_t images) {
    return (images + t->chunk - 1) / t->chunk;
}

static nas_status run_batch(nas_ctx *ctx, tuner *t, double *loss) {
    const size_t chunks = (size_t)chunks_of(t, t->n);
    nas_status status = nas_parallel(ctx, t->o->threads, chunks, train_chunk, t);
    if (status != NAS_OK) return status;
    *loss = 0;
    for (size_t k = 0; k < chunks; k++)
        *loss += t->losses[k] / t->n;
    for (size_t k = 1; k < chunks; k++) {
        for (size_t i = 0; i < t->n_floats; i++)
            t->gradients[i] += t->gradients[k * t->n_floats + i];
    }
    if (!isfinite(*loss))
        return nas_fail(ctx, NAS_ERR_INTERNAL,
                        "training '%s': the loss is not finite; lower the "
                        "learning rate",
                        nas_graph_name(t->e->graph));
    return NAS_OK;
}

static double rate_at(const nas_tune_options *o, int32_t step) {
    if (step < o->warmup) return o->learning_rate * (step + 1) / o->warmup;
    const double span = o->steps > o->warmup ? o->steps - o->warmup : 1;
    return o->learning_rate * 0.5 * (1 + cos(3.14159265358979 * (step - o->warmup) / span));
}

/* Statistics of normalisations are no weights. */
static bool is_statistic(const nas_graph *g, int32_t param) {
    const char *name = nas_graph_param_const(g, param)->name;
    const char *dot = strrchr(name, '.');
    return dot != NULL && (strcmp(dot, ".mean") == 0 || strcmp(dot, ".variance") == 0 ||
                           strcmp(dot, ".value") == 0);
}

static void adam(nas_param *p, const float *g, float *first, float *second, float scale, float rate,
                 int32_t step) {
    static const double beta1 = 0.9, beta2 = 0.999;
    const double right = sqrt(1 - pow(beta2, step + 1)) / (1 - pow(beta1, step + 1));
    const float a = (float)beta1, b = (float)beta2, size = (float)(rate * right);
    for (size_t i = 0; i < p->count; i++) {
        const float d = scale * g[i];
        first[i] = a * first[i] + (1 - a) * d;
        second[i] = b * second[i] + (1 - b) * d * d;
        p->data[i] -= size * first[i] / (sqrtf(second[i]) + 1e-8F);
    }
}

/* ---- networks of integers --------------------------------------------------------------------------------------------- */

/* Params keep their real weights here while the graph has the rounded ones. */
typedef struct quantized {
    nas_tune_code *codes;
    size_t n_codes;
    float *masters;        /* [n_floats] */
    bool *held;            /* [n_floats] stays 0 */
    nas__exec_grid *grids; /* [values] */
    float *of_scales;      /* [n_scales] gradients of the steps of weights */
    float *scale_velocity; /* [n_scales + n_codes] */
    size_t n_scales,
        n_params; /* n_params: floats of all params; steps of codes follow them in a gradient */
} quantized;

double nas_lsq_gradient(const float *x, float *d, size_t n, float scale, float low, float high) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const float steps = x[i] / scale;
        const bool beyond = steps < low || steps > high;
        sum += (double)d[i] * (double)(beyond ? (steps < low ? low : high) : rintf(steps) - steps);
        if (beyond) d[i] = 0;
    }
    return sum / sqrt((double)n * (double)high);
}

static float top_code(const nas_param *p) {
    return (float)((1 << (p->bits - 1)) - 1);
}

static void round_param(nas_param *p) {
    const size_t n = p->count / (size_t)p->dims[0];
    for (size_t i = 0; p->scales != NULL && i < p->count; i++) {
        const float s = p->scales[i / n], most = top_code(p);
        p->data[i] = s * rintf(fminf(fmaxf(p->data[i] / s, -most), most));
    }
}

/* Gradients over rounded weights become those over real ones and over steps; the graph gets its real weights back. */
static void to_masters(tuner *t) {
    quantized *q = t->q;
    size_t scale = 0;
    for (int32_t k = 0; k < nas_graph_param_count(t->graph); k++) {
        nas_param *p = nas_graph_param(t->graph, k);
        float *g = t->gradients + t->param_at[k];
        memcpy(p->data, q->masters + t->param_at[k], p->count * sizeof *p->data);
        const size_t n = p->scales == NULL ? 0 : p->count / (size_t)p->dims[0];
        for (int32_t o = 0; n > 0 && o < p->dims[0]; o++)
            q->of_scales[scale++] =
                (float)nas_lsq_gradient(p->data + (size_t)o * n, g + (size_t)o * n, n, p->scales[o],
                                        -top_code(p), top_code(p));
    }
    for (size_t i = 0; i < q->n_params; i++)
        t->gradients[i] = q->held[i] ? 0 : t->gradients[i];
    for (size_t i = 0; i < q->n_codes; i++) {
        const nas_shape s = nas_graph_node(t->graph, q->codes[i].value)->shape;
        t->gradients[q->n_params + i] /=
            sqrtf((float)s.h * (float)s.w * (float)s.c * fmaxf(q->codes[i].high, 1));
    }
}

static void step_scale(float *scale, float *velocity, float gradient, float keep, float rate) {
    *velocity = keep * *velocity + gradient;
    *scale = fmaxf(*scale - rate * *velocity, 0.5F * *scale);
}

/* New steps, and the graph computes with codes again. */
static void to_codes(tuner *t, float cut, float keep, float rate) {
    quantized *q = t->q;
    size_t scale = 0;
    for (int32_t k = 0; k < nas_graph_param_count(t->graph); k++) {
        nas_param *p = nas_graph_param(t->graph, k);
        for (size_t i = 0; i < p->count; i++)
            p->data[i] = q->held[t->param_at[k] + i] ? 0 : p->data[i];
        memcpy(q->masters + t->param_at[k], p->data, p->count * sizeof *p->data);
        for (int32_t o = 0; p->scales != NULL && o < p->dims[0]; o++, scale++)
            step_scale(&p->scales[o], &q->scale_velocity[scale], cut * q->of_scales[scale], keep,
                       rate);
        round_param(p);
    }
    for (size_t i = 0; i < q->n_codes; i++) {
        nas_tune_code *c = &q->codes[i];
        if (c->value != nas_graph_input(t->graph))
            step_scale(&c->scale, &q->scale_velocity[q->n_scales + i],
                       cut * t->gradients[q->n_params + i], keep, rate);
        q->grids[t->e->values[c->value].root].scale = c->scale;
    }
}

static void apply(tuner *t, int32_t step) {
    const nas_tune_options *o = t->o;
    double norm = 0;
    if (t->q != NULL) to_masters(t);
    for (size_t i = 0; i < t->n_floats; i++)
        norm += (double)t->gradients[i] * (double)t->gradients[i];
    norm = sqrt(norm);
    const double cut =
        o->gradient_clip > 0 && norm > o->gradient_clip ? o->gradient_clip / norm : 1;
    const float rate = (float)rate_at(o, step), keep = (float)o->momentum, scale = (float)cut;
    for (int32_t k = 0; k < nas_graph_param_count(t->graph); k++) {
        nas_param *p = nas_graph_param(t->graph, k);
        if (is_statistic(t->graph, k)) continue;
        const float decay = p->rank > 1 ? (float)o->weight_decay : 0;
        float *v = t->velocity + t->param_at[k];
        const float *g = t->gradients + t->param_at[k];
        if (o->adam) {
            adam(p, g, v, t->squares + t->param_at[k], scale, rate, step);
            continue;
        }
        for (size_t i = 0; i < p->count; i++) {
            v[i] = keep * v[i] + scale * g[i] + decay * p->data[i];
            p->data[i] -= rate * v[i];
        }
    }
    if (t->q != NULL) to_codes(t, scale, keep, rate);
    nas_exec_update(t->e);
}

static void shuffle(tuner *t, int64_t epoch, uint32_t images) {
    nas_rng rng = nas_rng_stream(t->o->seed, (uint64_t)epoch, "tune epoch");
    for (uint32_t i = 0; i < images; i++)
        t->order[i] = i;
    for (uint32_t left = images; left > 1; left--) {
        const uint32_t k = nas_rng_below(&rng, left), last = t->order[left - 1];
        t->order[left - 1] = t->order[k];
        t->order[k] = last;
    }
    t->epoch = epoch;
}

/* The image at a place of the endless row of epochs. */
static uint32_t in_order(tuner *t, int64_t place, uint32_t images) {
    if (place / images != t->epoch) shuffle(t, place / images, images);
    return t->order[place % images];
}

/* Mirrors and places are the same whichever way images are chosen. */
static void draw(tuner *t, int32_t step) {
    const nas_tune_options *o = t->o;
    nas_rng rng = nas_rng_stream(o->seed, (uint64_t)step, "tune batch");
    const uint32_t images = (uint32_t)nas_class_data_count(t->data, NAS_CLASS_TUNE);
    const uint32_t places = (uint32_t)(2 * o->shift + 1);
    t->n = o->batch;
    for (int32_t i = 0; i < t->n; i++) {
        const uint32_t any = nas_rng_below(&rng, images);
        const int64_t place = (int64_t)step * t->n + i;
        t->batch[i] = (drawn){.index = t->order == NULL ? any : in_order(t, place, images),
                              .flip = nas_rng_below(&rng, 2) == 0 && o->flip,
                              .dy = (int32_t)nas_rng_below(&rng, places) - o->shift,
                              .dx = (int32_t)nas_rng_below(&rng, places) - o->shift};
    }
}

/* ---- setting up ------------------------------------------------------------------------------------------------------- */

static nas_value logits_of(const nas_graph *g) {
    const nas_value out = nas_graph_output(g);
    const nas_node *node = nas_graph_node(g, out);
    return node->op == NAS_OP_SOFTMAX ? node->inputs[0] : out;
}

static nas_status check(nas_ctx *ctx, const nas_graph *g, const nas_class_data *data,
                        const nas_tune_options *o) {
    if (o->batch < 1 || o->batch > BATCH_MAX || o->steps < 0 || o->threads < 1 || o->threads > 64 ||
        o->shift < 0 || o->shift > 1000 || !(o->temperature > 0) || !(o->learning_rate >= 0) ||
        !(o->distill >= 0 && o->distill <= 1) || !(o->average >= 0 && o->average < 1))
        return nas_fail(
            ctx, NAS_ERR_INVALID,
            "training: batch %d (1..%d), steps %d, threads %d, shift %d, distill %g (0..1), "
            "temperature %g (> 0), average %g (0, or below 1)",
            (int)o->batch, BATCH_MAX, (int)o->steps, (int)o->threads, (int)o->shift, o->distill,
            o->temperature, o->average);
    const nas_value logits = logits_of(g);
    const nas_shape s = nas_graph_node(g, logits)->shape;
    if (s.h != 1 || s.w != 1 || s.c > CLASSES_MAX || s.c < nas_class_data_classes(data))
        return nas_fail(
            ctx, NAS_ERR_SHAPE,
            "training '%s': output %dx%dx%d, the labels want 1x1x%d at least (limit %d)",
            nas_graph_name(g), (int)s.h, (int)s.w, (int)s.c, (int)nas_class_data_classes(data),
            CLASSES_MAX);
    for (nas_value v = 0; v <= logits; v++) {
        const char *problem = nas__exec_trainable(g, nas_graph_node(g, v));
        if (problem == NULL) continue;
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "training: node '%s' (%s): %s",
                        nas_graph_node(g, v)->name, nas_op_name(nas_graph_node(g, v)->op), problem);
    }
    return NAS_OK;
}

/* extra: floats behind the params in each gradient */
static nas_status alloc_tuner(nas_ctx *ctx, tuner *t, size_t extra) {
    const nas_graph *g = t->e->graph;
    const size_t params = (size_t)nas_graph_param_count(g), threads = (size_t)t->o->threads;
    const size_t chunks = (size_t)chunks_of(t, t->o->batch);
    const nas_shape in = nas_graph_node(g, nas_graph_input(g))->shape;
    t->image_floats = (size_t)in.h * (size_t)in.w * (size_t)in.c;
    t->param_at = nas_arena_alloc(ctx, t->arena, params, sizeof *t->param_at);
    if (t->param_at == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < params; i++) {
        t->param_at[i] = t->n_floats;
        t->n_floats += nas_graph_param_const(g, (int32_t)i)->count;
    }
    t->n_floats += extra;
    t->gradients = nas_arena_alloc(ctx, t->arena, chunks * t->n_floats, sizeof(float));
    t->velocity = nas_arena_alloc(ctx, t->arena, t->n_floats, sizeof(float));
    t->squares = nas_arena_alloc(ctx, t->arena, t->n_floats, sizeof(float));
    t->grads = nas_arena_alloc(ctx, t->arena, threads, sizeof *t->grads);
    t->scratch = nas_arena_alloc(ctx, t->arena, threads, sizeof *t->scratch);
    t->losses = nas_arena_alloc(ctx, t->arena, chunks, sizeof *t->losses);
    t->batch = nas_arena_alloc(ctx, t->arena, (size_t)t->o->batch, sizeof *t->batch);
    if (t->gradients == NULL || t->velocity == NULL || t->squares == NULL || t->grads == NULL ||
        t->scratch == NULL || t->losses == NULL || t->batch == NULL)
        return NAS_ERR_NOMEM;
    const size_t scratch = t->image_floats + nas__exec_backward_floats(t->e);
    for (size_t i = 0; i < threads; i++) {
        t->grads[i] = nas_arena_alloc(ctx, t->arena, t->e->space_floats + 64, sizeof(float));
        t->scratch[i] = nas_arena_alloc(ctx, t->arena, scratch, sizeof(float));
        if (t->grads[i] == NULL || t->scratch[i] == NULL) return NAS_ERR_NOMEM;
    }
    return NAS_OK;
}

static void tuner_deinit(tuner *t) {
    nas_exec_free(t->e);
    nas_exec_free(t->teacher);
    nas_arena_free(t->arena);
}

/* The fewest chunks, all of about one size, that are small enough. */
static int32_t chunk_size(const nas_tune_options *o) {
    if (!o->normalise) return CHUNK;
    const int32_t chunks = (o->batch + NORM_CHUNK - 1) / NORM_CHUNK;
    return (o->batch + chunks - 1) / chunks;
}

static nas_status tuner_init(nas_ctx *ctx, const nas_graph *g, const nas_graph *teacher,
                             const nas_class_data *data, const nas_tune_options *o, size_t extra,
                             tuner *t) {
    *t = (tuner){.data = data, .o = o, .logits = logits_of(g)};
    t->classes = nas_graph_node(g, t->logits)->shape.c;
    nas_status status = check(ctx, g, data, o);
    if (status == NAS_OK) t->chunk = chunk_size(o);
    const nas_exec_options eo = {.chunk = t->chunk, .threads = o->threads};
    if (status == NAS_OK) status = nas__exec_plan(ctx, g, &eo, true, &t->e);
    if (status == NAS_OK) t->e->chunk_norms = o->normalise;
    if (status == NAS_OK && teacher != NULL) {
        t->teacher_logits = logits_of(teacher);
        const nas_shape s = nas_graph_node(teacher, t->teacher_logits)->shape;
        if (s.c != t->classes || s.h != 1 || s.w != 1)
            status = nas_fail(ctx, NAS_ERR_SHAPE, "training: the teacher has %d classes, not %d",
                              (int)s.c, (int)t->classes);
        const bool hints = has_hints(o, teacher); /* their values must stay */
        if (status == NAS_OK && hints) status = nas__hints_check(ctx, g, teacher, o);
        if (status == NAS_OK) status = nas__exec_plan(ctx, teacher, &eo, hints, &t->teacher);
    }
    t->arena = nas_arena_new(ctx, 1 << 16);
    if (status == NAS_OK && t->arena == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = alloc_tuner(ctx, t, extra);
    if (status != NAS_OK) tuner_deinit(t);
    return status;
}

/* Not the network that the training began with: while the mean is young, about the last ninth of its steps counts. */
static void add_to_mean(tuner *t, int32_t step) {
    const double keep = fmin(t->o->average, (1.0 + step) / (10.0 + step));
    for (int32_t k = 0; k < nas_graph_param_count(t->graph); k++) {
        const nas_param *p = nas_graph_param_const(t->graph, k);
        float *mean = t->mean + t->param_at[k];
        for (size_t i = 0; i < p->count; i++)
            mean[i] = step == 0 ? p->data[i] : mean[i] + (float)(1 - keep) * (p->data[i] - mean[i]);
    }
}

static void end_with_mean(tuner *t) {
    for (int32_t k = 0; k < nas_graph_param_count(t->graph); k++) {
        nas_param *p = nas_graph_param(t->graph, k);
        memcpy(p->data, t->mean + t->param_at[k], p->count * sizeof *p->data);
    }
}

static nas_status alloc_train(nas_ctx *ctx, tuner *t) {
    const size_t images = nas_class_data_count(t->data, NAS_CLASS_TUNE);
    t->epoch = -1;
    if (t->o->epochs) t->order = nas_arena_alloc(ctx, t->arena, images, sizeof *t->order);
    if (t->o->average > 0) t->mean = nas_arena_alloc(ctx, t->arena, t->n_floats, sizeof *t->mean);
    const bool failed =
        (t->o->epochs && t->order == NULL) || (t->o->average > 0 && t->mean == NULL);
    return failed ? NAS_ERR_NOMEM : NAS_OK;
}

static nas_status train(nas_ctx *ctx, tuner *t, nas_tune_progress progress, void *arg) {
    nas_status status = alloc_train(ctx, t);
    for (int32_t step = 0; step < t->o->steps && status == NAS_OK; step++) {
        double loss = 0;
        draw(t, step);
        status = run_batch(ctx, t, &loss);
        if (status == NAS_OK) apply(t, step);
        if (status == NAS_OK && t->mean != NULL) add_to_mean(t, step);
        if (status == NAS_OK && progress != NULL) status = progress(ctx, arg, step, loss);
    }
    if (status == NAS_OK && t->mean != NULL && t->o->steps > 0) end_with_mean(t);
    return status;
}

static nas_status tune(nas_ctx *ctx, nas_graph *graph, const nas_graph *teacher,
                       const nas_class_data *data, const nas_tune_options *o,
                       nas_tune_progress progress, void *arg) {
    tuner t;
    nas_status status = tuner_init(ctx, graph, teacher, data, o, 0, &t);
    if (status != NAS_OK) return status;
    t.graph = graph;
    status = train(ctx, &t, progress, arg);
    tuner_deinit(&t);
    return status;
}

/* TUNE images in an order of their own: those of a file may come class by class. */
typedef struct any_reader {
    const nas_class_data *data;
    uint64_t seed;
} any_reader;

static void read_any(void *arg, size_t index, float *hwc) {
    const any_reader *r = arg;
    nas_rng rng = nas_rng_stream(r->seed, index, "tune statistics");
    const uint32_t images = (uint32_t)nas_class_data_count(r->data, NAS_CLASS_TUNE);
    nas_class_data_read(r->data, NAS_CLASS_TUNE, nas_rng_below(&rng, images), false, 0, 0, hwc);
}

/* Hints of the network for its copy with normalisations. */
static nas_status hints_of_copy(nas_ctx *ctx, const nas_norms *norms, nas_tune_options *o,
                                nas_tune_hint **out) {
    nas_tune_hint *hints = nas_alloc_array(ctx, o->n_hints + 1, sizeof *hints);
    if (hints == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < o->n_hints; i++) {
        const nas_value v = o->hints[i].value;
        hints[i] = o->hints[i];
        hints[i].value = norms->norm[v] != NAS_VALUE_NONE ? norms->norm[v] : norms->node[v];
    }
    o->hints = hints;
    *out = hints;
    return NAS_OK;
}

nas_status nas_tune(nas_ctx *ctx, nas_graph *graph, const nas_graph *teacher,
                    const nas_class_data *data, const nas_tune_options *o,
                    nas_tune_progress progress, void *arg) {
    const nas_exec_options eo = {.chunk = NORM_CHUNK, .threads = o->threads};
    any_reader reader = {data, o->seed};
    nas_norms norms;
    if (!o->normalise) return tune(ctx, graph, teacher, data, o, progress, arg);
    nas_status status = check(ctx, graph, data, o);
    if (status == NAS_OK)
        status = nas_norms_init(ctx, graph, &eo, NORM_IMAGES, read_any, &reader, &norms);
    if (status != NAS_OK) return status;
    nas_tune_options of_copy = *o;
    nas_tune_hint *hints = NULL;
    status = hints_of_copy(ctx, &norms, &of_copy, &hints);
    if (status == NAS_OK) status = tune(ctx, norms.graph, teacher, data, &of_copy, progress, arg);
    nas_free(hints);
    if (status == NAS_OK)
        status = nas_exec_average_norms(ctx, norms.graph, &eo, AVERAGE_IMAGES, read_any, &reader);
    if (status == NAS_OK) nas_norms_fold(&norms, graph);
    nas_norms_deinit(&norms);
    return status;
}

static nas_status quantized_init(nas_ctx *ctx, tuner *t, const bool *keep_zeros, quantized *q) {
    const size_t values = (size_t)nas_graph_node_count(t->graph);
    q->n_params = t->n_floats - q->n_codes;
    for (int32_t k = 0; k < nas_graph_param_count(t->graph); k++) {
        const nas_param *p = nas_graph_param_const(t->graph, k);
        q->n_scales += p->scales == NULL ? 0 : (size_t)p->dims[0];
    }
    q->masters = nas_arena_alloc(ctx, t->arena, q->n_params, sizeof *q->masters);
    q->held = nas_arena_alloc(ctx, t->arena, q->n_params, sizeof *q->held);
    q->grids = nas_arena_alloc(ctx, t->arena, values, sizeof *q->grids);
    q->of_scales = nas_arena_alloc(ctx, t->arena, q->n_scales + 1, sizeof *q->of_scales);
    q->scale_velocity =
        nas_arena_alloc(ctx, t->arena, q->n_scales + q->n_codes + 1, sizeof *q->scale_velocity);
    if (q->masters == NULL || q->held == NULL || q->grids == NULL || q->of_scales == NULL ||
        q->scale_velocity == NULL)
        return NAS_ERR_NOMEM;
    for (int32_t k = 0; k < nas_graph_param_count(t->graph); k++) {
        nas_param *p = nas_graph_param(t->graph, k);
        memcpy(q->masters + t->param_at[k], p->data, p->count * sizeof *p->data);
        for (size_t i = 0; keep_zeros != NULL && keep_zeros[k] && i < p->count; i++)
            q->held[t->param_at[k] + i] = p->data[i] == 0;
        round_param(p);
    }
    for (size_t i = 0; i < q->n_codes; i++) {
        const nas_tune_code *c = &q->codes[i];
        q->grids[t->e->values[c->value].root] = (nas__exec_grid){.is_set = true,
                                                                 .scale = c->scale,
                                                                 .low = c->low,
                                                                 .high = c->high,
                                                                 .at = q->n_params + i};
    }
    nas_exec_update(t->e);
    return nas__exec_use_grids(ctx, t->e, q->grids);
}

nas_status nas_tune_codes(nas_ctx *ctx, nas_graph *graph, const nas_graph *teacher,
                          const nas_class_data *data, const nas_tune_options *o,
                          nas_tune_code *codes, size_t n_codes, const bool *keep_zeros,
                          nas_tune_progress progress, void *arg) {
    tuner t;
    quantized q = {.codes = codes, .n_codes = n_codes};
    if (o->adam || o->average > 0 || o->normalise)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "networks of integers are tuned by SGD alone, without an average and "
                        "without normalisations put back");
    for (size_t i = 0; i < n_codes; i++) {
        if (codes[i].scale > 0 && codes[i].low <= 0 && codes[i].high >= 0) continue;
        return nas_fail(ctx, NAS_ERR_INVALID, "code %zu: scale %g, %g to %g", i,
                        (double)codes[i].scale, (double)codes[i].low, (double)codes[i].high);
    }
    nas_status status = tuner_init(ctx, graph, teacher, data, o, n_codes, &t);
    if (status != NAS_OK) return status;
    t.graph = graph;
    t.q = &q;
    status = quantized_init(ctx, &t, keep_zeros, &q);
    if (status == NAS_OK) status = train(ctx, &t, progress, arg);
    tuner_deinit(&t);
    return nas_wrap(ctx, status, "tuning a network of integers");
}

nas_status nas_tune_gradient(nas_ctx *ctx, const nas_graph *graph, const nas_graph *teacher,
                             const nas_class_data *data, const nas_tune_options *options, int32_t n,
                             double *loss, float *gradient) {
    tuner t;
    nas_tune_options o = *options;
    o.batch = n;
    nas_status status = tuner_init(ctx, graph, teacher, data, &o, 0, &t);
    if (status != NAS_OK) return status;
    t.n = n;
    for (int32_t i = 0; i < n; i++)
        t.batch[i] = (drawn){.index = (size_t)i};
    status = run_batch(ctx, &t, loss);
    if (status == NAS_OK) memcpy(gradient, t.gradients, t.n_floats * sizeof *gradient);
    tuner_deinit(&t);
    return status;
}

enum { SALIENCY_BATCH = 64 };

static nas_status saliency_of(nas_ctx *ctx, tuner *t, size_t n, double *out) {
    const size_t chunks = SALIENCY_BATCH / CHUNK;
    t->saliency = nas_alloc_array(ctx, chunks * t->n_channels, sizeof *t->saliency);
    nas_status status = t->saliency == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t first = 0; first < n && status == NAS_OK; first += SALIENCY_BATCH) {
        double loss = 0;
        t->n = n - first < SALIENCY_BATCH ? (int32_t)(n - first) : SALIENCY_BATCH;
        for (int32_t i = 0; i < t->n; i++)
            t->batch[i] = (drawn){.index = first + (size_t)i};
        for (size_t k = 0; k < chunks * t->n_channels; k++)
            t->saliency[k] = 0;
        status = run_batch(ctx, t, &loss);
        /* gradients are those of the batch's mean loss */
        for (size_t k = 0; status == NAS_OK && k < chunks * t->n_channels; k++)
            out[k % t->n_channels] += t->saliency[k] * t->n / (double)n;
    }
    nas_free(t->saliency);
    return status;
}

nas_status nas_tune_saliency(nas_ctx *ctx, const nas_graph *graph, const nas_class_data *data,
                             size_t n, int32_t threads, double *out) {
    tuner t;
    nas_tune_options o = nas_tune_options_default();
    const size_t images = nas_class_data_count(data, NAS_CLASS_TUNE);
    size_t channels = 0;
    o.batch = SALIENCY_BATCH;
    o.threads = threads;
    if (n < 1 || n > images)
        return nas_fail(ctx, NAS_ERR_RANGE, "saliency of %zu images: there are %zu", n, images);
    nas_status status = tuner_init(ctx, graph, NULL, data, &o, 0, &t);
    if (status != NAS_OK) return status;
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        const size_t c = (size_t)nas_graph_node(graph, v)->shape.c;
        for (size_t k = 0; k < c; k++)
            out[channels + k] = 0;
        channels += c;
        if (v <= t.logits) t.n_channels = channels;
    }
    status = saliency_of(ctx, &t, n, out);
    tuner_deinit(&t);
    return status;
}
