/* train.c - the trainer: one batch through one graph, gradients into the store's layout, Adam.
 *
 * A batch is cut into GROUPS fixed groups of patches. A group's gradient is summed by one thread, patch after patch,
 * and the groups are added in order: the result does not depend on how many threads there are. */
#include "eval/train_plan.h"
#include "eval/train_pool.h"
#include "eval/weights_internal.h"

#include <math.h>
#include <string.h>

enum { GROUPS = 8, BATCH_MAX = 4096, PATCH_MAX = 1024, SCALE_MAX = 8, RGB = 3 };

/* Aligned memory that only grows; growing loses the content. */
typedef struct block {
    float *at;
    size_t floats;
} block;

typedef struct worker {
    block space, scratch, lanes, target;
    uint64_t layout; /* of the plan whose padding is zero in `space` */
} worker;

struct nas_trainer {
    nas_weights *weights;
    nas_train_options options;
    const nas__kernels *kernels;
    nas__pool *pool;
    float **gradient; /* per tensor of the store, its layout */
    uint8_t **touched;
    uint64_t accumulated; /* batches since the last apply */
    uint64_t flops;
    worker workers[NAS__POOL_THREADS_MAX];
    block dense, packed, groups;
};

nas_train_options nas_train_options_default(void) {
    return (nas_train_options){.batch = 16,
                               .patch = 48,
                               .scale = 2,
                               .learning_rate = 4e-3,
                               .beta1 = 0.9,
                               .beta2 = 0.99,
                               .epsilon = 1e-8,
                               .gradient_clip = 0.0,
                               .threads = 1};
}

static nas_status in_range(nas_ctx *ctx, const char *name, int32_t value, int32_t max) {
    if (value >= 1 && value <= max) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_RANGE, "training %s = %" PRId32 ", must be 1..%" PRId32, name,
                    value, max);
}

static nas_status check_rates(nas_ctx *ctx, const nas_train_options *o) {
    const bool moments = o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1;
    const bool positive = o->learning_rate >= 0 && o->epsilon > 0 && o->gradient_clip >= 0;
    const bool finite =
        isfinite(o->learning_rate) && isfinite(o->epsilon) && isfinite(o->gradient_clip);
    if (moments && positive && finite) return NAS_OK;
    return nas_fail(
        ctx, NAS_ERR_RANGE,
        "Adam: learning rate %g, beta1 %g, beta2 %g, epsilon %g, clip %g; rate and clip "
        "are >= 0, betas in [0,1), epsilon > 0",
        o->learning_rate, o->beta1, o->beta2, o->epsilon, o->gradient_clip);
}

static nas_status check_options(nas_ctx *ctx, const nas_train_options *o) {
    nas_status status = in_range(ctx, "batch", o->batch, BATCH_MAX);
    if (status == NAS_OK) status = in_range(ctx, "patch", o->patch, PATCH_MAX);
    if (status == NAS_OK) status = in_range(ctx, "scale", o->scale, SCALE_MAX);
    if (status == NAS_OK) status = in_range(ctx, "threads", o->threads, NAS__POOL_THREADS_MAX);
    if (status == NAS_OK) status = check_rates(ctx, o);
    return status;
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static nas_status alloc_gradients(nas_ctx *ctx, nas_trainer *t) {
    const size_t n = t->weights->n;
    t->gradient = nas_alloc_array(ctx, n, sizeof *t->gradient);
    t->touched = nas_alloc_array(ctx, n, sizeof *t->touched);
    if (t->gradient == NULL || t->touched == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const size_t count = t->weights->items[i].count;
        t->gradient[i] = nas_alloc_array(ctx, count, sizeof **t->gradient);
        t->touched[i] = nas_alloc_array(ctx, count, sizeof **t->touched);
        if (t->gradient[i] == NULL || t->touched[i] == NULL) return NAS_ERR_NOMEM;
    }
    return NAS_OK;
}

nas_status nas_trainer_new(nas_ctx *ctx, nas_weights *weights, const nas_train_options *options,
                           nas_trainer **out) {
    nas_status status = check_options(ctx, options);
    if (status != NAS_OK) return status;
    nas_trainer *t = nas_alloc_array(ctx, 1, sizeof *t);
    if (t == NULL) return NAS_ERR_NOMEM;
    t->weights = weights;
    t->options = *options;
    t->kernels = nas__kernels_best();
    status = alloc_gradients(ctx, t);
    if (status == NAS_OK) {
        const int threads = options->threads < GROUPS ? options->threads : GROUPS;
        status = nas__pool_new(ctx, threads, &t->pool);
    }
    if (status != NAS_OK) {
        nas_trainer_free(t);
        return status;
    }
    *out = t;
    return NAS_OK;
}

void nas_trainer_free(nas_trainer *trainer) {
    if (trainer == NULL) return;
    nas__pool_free(trainer->pool);
    nas_free(trainer->groups.at);
    nas_free(trainer->packed.at);
    nas_free(trainer->dense.at);
    for (int i = 0; i < NAS__POOL_THREADS_MAX; i++) {
        worker *w = &trainer->workers[i];
        nas_free(w->target.at);
        nas_free(w->lanes.at);
        nas_free(w->scratch.at);
        nas_free(w->space.at);
    }
    for (size_t i = 0; i < trainer->weights->n; i++) {
        if (trainer->touched != NULL) nas_free(trainer->touched[i]);
        if (trainer->gradient != NULL) nas_free(trainer->gradient[i]);
    }
    nas_free(trainer->touched);
    nas_free(trainer->gradient);
    nas_free(trainer);
}

void nas_trainer_set_learning_rate(nas_trainer *trainer, double learning_rate) {
    trainer->options.learning_rate = learning_rate;
}

/* ---- one batch -------------------------------------------------------------------------------------------------- */

/* The batch on its way through the workers. */
typedef struct batch_job {
    nas_trainer *trainer;
    const nas__plan *plan;
    const float *lr, *hr;
    const float *const *params; /* dense, by param index */
    uint64_t layout;
    double losses[GROUPS];
} batch_job;

static nas_status ensure(nas_ctx *ctx, block *b, size_t floats) {
    if (floats <= b->floats) return NAS_OK;
    nas_free(b->at);
    *b = (block){0};
    b->at = nas_alloc_aligned(ctx, floats, sizeof *b->at, 64);
    if (b->at == NULL) return NAS_ERR_NOMEM;
    b->floats = floats;
    return NAS_OK;
}

static nas_status ensure_worker(nas_ctx *ctx, const nas_trainer *t, const nas__plan *plan,
                                worker *w) {
    if (plan->space_floats > w->space.floats) w->layout = 0;
    nas_status status = ensure(ctx, &w->space, plan->space_floats);
    if (status == NAS_OK) status = ensure(ctx, &w->scratch, plan->scratch_floats);
    if (status == NAS_OK) status = ensure(ctx, &w->lanes, plan->lanes_floats);
    const size_t side = (size_t)t->options.patch * (size_t)t->options.scale;
    if (status == NAS_OK) status = ensure(ctx, &w->target, side * side);
    return status;
}

/* Equal layouts leave each other's padding zero. Never 0. */
static uint64_t layout_of(const nas__plan *plan) {
    uint64_t h = 0xcbf29ce484222325u;
    for (int32_t i = 0; i < plan->n_tensors; i++) {
        const nas__tensor *t = &plan->tensors[i];
        const uint64_t words[4] = {t->at, (uint64_t)t->c, (uint64_t)t->h, (uint64_t)t->w};
        for (int k = 0; k < 4; k++)
            h = (h ^ words[k]) * 0x100000001b3u;
    }
    return h | 1;
}

/* Y of RGB, all in [0,1] (ITU-R BT.601 studio range), n pixels; planes lie n floats apart. */
static void luma_of(const float *rgb, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] =
            (65.481f * rgb[i] + 128.553f * rgb[n + i] + 24.966f * rgb[2 * n + i] + 16.0f) / 255.0f;
    }
}

/* Copies planes [c][side][side] into the input tensor. */
static void load_planes(const nas__run *run, const float *planes) {
    const nas__tensor *t = &run->plan->tensors[run->plan->input];
    const nas__view in = nas__tensor_view(run, run->plan->input);
    for (int32_t c = 0; c < t->c; c++) {
        for (int32_t y = 0; y < t->h; y++) {
            memcpy(in.at + y * in.row + c * in.channel, planes, (size_t)t->w * sizeof *planes);
            planes += t->w;
        }
    }
}

/* Sum of |output - target| and its gradient times `step`. */
static double patch_loss(const nas__run *run, const float *target, float step) {
    const nas__tensor *t = &run->plan->tensors[run->plan->output];
    const nas__view out = nas__tensor_view(run, run->plan->output);
    const nas__view grad = nas__tensor_view(run, run->plan->output_gradient);
    double sum = 0.0;
    for (int32_t c = 0; c < t->c; c++) {
        for (int32_t y = 0; y < t->h; y++) {
            sum += run->kernels->l1(out.at + y * out.row + c * out.channel, target,
                                    grad.at + y * grad.row + c * grad.channel, step, t->w);
            target += t->w;
        }
    }
    return sum;
}

/* Outputs of the whole batch that the loss is the mean over. */
static double loss_elements(const nas_train_options *o, const nas__plan *plan) {
    const double side = (double)o->patch * o->scale;
    return side * side * plan->tensors[plan->output].c * o->batch;
}

static double run_patch(const batch_job *job, const nas__run *run, worker *w, int32_t patch) {
    const nas_train_options *o = &job->trainer->options;
    const nas__plan *plan = job->plan;
    const size_t small = (size_t)o->patch * (size_t)o->patch;
    const size_t large = small * (size_t)o->scale * (size_t)o->scale;
    const float *lr = job->lr + (size_t)patch * RGB * small;
    const float *hr = job->hr + (size_t)patch * RGB * large;
    if (plan->tensors[plan->input].c == 1) {
        luma_of(lr, w->target.at, small);
        load_planes(run, w->target.at);
        luma_of(hr, w->target.at, large);
        hr = w->target.at;
    } else {
        load_planes(run, lr);
    }
    for (int32_t i = 0; i < plan->n_steps; i++) {
        const nas__step *s = &plan->steps[i];
        nas__step_forward(run, s, 0, nas__step_rows(plan, s));
    }
    const double loss = patch_loss(run, hr, (float)(1.0 / loss_elements(o, plan)));
    for (int32_t i = plan->n_steps - 1; i >= 0; i--)
        nas__step_backward(run, &plan->steps[i]);
    return loss;
}

static void run_group(void *arg, size_t group, int worker_index) {
    batch_job *job = arg;
    nas_trainer *t = job->trainer;
    worker *w = &t->workers[worker_index];
    if (w->layout != job->layout) {
        memset(w->space.at, 0, job->plan->space_floats * sizeof *w->space.at);
        w->layout = job->layout;
    }
    const nas__run run = {.plan = job->plan,
                          .kernels = t->kernels,
                          .packed = t->packed.at,
                          .params = job->params,
                          .space = w->space.at,
                          .scratch = w->scratch.at,
                          .lanes = w->lanes.at,
                          .gradient = t->groups.at + group * job->plan->dense_floats};
    memset(run.gradient, 0, job->plan->dense_floats * sizeof *run.gradient);
    const int32_t begin = (int32_t)group * t->options.batch / GROUPS;
    const int32_t end = ((int32_t)group + 1) * t->options.batch / GROUPS;
    double loss = 0.0;
    for (int32_t patch = begin; patch < end; patch++)
        loss += run_patch(job, &run, w, patch);
    job->losses[group] = loss;
}

static nas_status check_graph(nas_ctx *ctx, const nas_trainer *t, const nas_graph *graph,
                              const nas__plan *plan) {
    const nas__tensor *in = &plan->tensors[plan->input], *out = &plan->tensors[plan->output];
    const int32_t side = t->options.patch * t->options.scale;
    const bool fits =
        (in->c == 1 || in->c == RGB) && out->c == in->c && out->h == side && out->w == side;
    if (fits) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_SHAPE,
                    "graph '%s': %" PRId32 " channels to %" PRId32 " channels of %" PRId32
                    "x%" PRId32 "; training x%" PRId32 " on patches of %" PRId32
                    " needs 1 to 1 or 3 to 3 channels and %" PRId32 "x%" PRId32 " out",
                    nas_graph_name(graph), in->c, out->c, out->h, out->w, t->options.scale,
                    t->options.patch, side, side);
}

/* The graph's slices, dense: params[i] points into trainer->dense. */
static nas_status gather(nas_ctx *ctx, nas_trainer *t, const nas_graph *graph,
                         const nas__plan *plan, nas__slice *slices, const float **params) {
    for (int32_t i = 0; i < plan->n_params; i++) {
        const nas_status status =
            nas__weights_slice(ctx, t->weights, nas_graph_param_const(graph, i), &slices[i]);
        if (status != NAS_OK) return status;
        nas__slice_read(&slices[i], slices[i].weight->value, t->dense.at + plan->param_at[i]);
        params[i] = t->dense.at + plan->param_at[i];
    }
    return NAS_OK;
}

/* Groups in order into the first, then into the store's layout. */
static void scatter(nas_trainer *t, const nas__plan *plan, const nas__slice *slices) {
    float *total = t->groups.at;
    for (size_t g = 1; g < GROUPS; g++) {
        const float *part = t->groups.at + g * plan->dense_floats;
        for (size_t i = 0; i < plan->dense_floats; i++)
            total[i] += part[i];
    }
    for (int32_t i = 0; i < plan->n_params; i++) {
        const size_t at = slices[i].index;
        nas__slice_add(&slices[i], total + plan->param_at[i], t->gradient[at], t->touched[at]);
    }
}

static nas_status ensure_all(nas_ctx *ctx, nas_trainer *t, const nas__plan *plan) {
    nas_status status = ensure(ctx, &t->dense, plan->dense_floats);
    if (status == NAS_OK) status = ensure(ctx, &t->packed, plan->packed_floats);
    if (status == NAS_OK) status = ensure(ctx, &t->groups, GROUPS * plan->dense_floats);
    for (int i = 0; status == NAS_OK && i < t->options.threads && i < GROUPS; i++) {
        status = ensure_worker(ctx, t, plan, &t->workers[i]);
    }
    return status;
}

static nas_status train_planned(nas_ctx *ctx, nas_trainer *t, const nas_graph *graph,
                                const nas__plan *plan, batch_job *job, double *loss) {
    nas_status status = check_graph(ctx, t, graph, plan);
    if (status == NAS_OK) status = ensure_all(ctx, t, plan);
    if (status != NAS_OK) return status;
    nas__slice *slices = nas_arena_alloc(ctx, plan->arena, (size_t)plan->n_params, sizeof *slices);
    const float **params =
        nas_arena_alloc(ctx, plan->arena, (size_t)plan->n_params, sizeof *params);
    if (slices == NULL || params == NULL) return NAS_ERR_NOMEM;
    status = gather(ctx, t, graph, plan, slices, params);
    if (status != NAS_OK) return status;
    nas__plan_pack(plan, params, true, t->packed.at);
    job->params = params;
    job->layout = layout_of(plan);
    nas__pool_run(t->pool, GROUPS, run_group, job);
    double sum = 0.0;
    for (int g = 0; g < GROUPS; g++)
        sum += job->losses[g];
    if (!isfinite(sum)) {
        return nas_fail(ctx, NAS_ERR_INTERNAL,
                        "graph '%s': the loss is not finite; lower the learning rate",
                        nas_graph_name(graph));
    }
    scatter(t, plan, slices);
    t->accumulated++;
    t->flops += 2 * (plan->macs_forward + plan->macs_backward) * (uint64_t)t->options.batch;
    *loss = sum / loss_elements(&t->options, plan);
    return NAS_OK;
}

nas_status nas_trainer_accumulate(nas_ctx *ctx, nas_trainer *trainer, const nas_graph *graph,
                                  const float *lr, const float *hr, double *loss) {
    nas_status status = nas_check_cancel(ctx);
    if (status != NAS_OK) return status;
    nas__plan *plan = NULL;
    status = nas__plan_new(ctx, graph, trainer->options.patch, trainer->options.patch, true,
                           trainer->kernels, &plan);
    if (status != NAS_OK) return status;
    batch_job job = {.trainer = trainer, .plan = plan, .lr = lr, .hr = hr};
    status = train_planned(ctx, trainer, graph, plan, &job, loss);
    nas__plan_free(plan);
    return status;
}

/* ---- optimiser -------------------------------------------------------------------------------------------------- */

/* Squared L2 norm of the accumulated gradients. */
static double squared_norm(const nas_trainer *t) {
    double sum = 0.0;
    for (size_t i = 0; i < t->weights->n; i++) {
        for (size_t k = 0; k < t->weights->items[i].count; k++) {
            sum += (double)t->gradient[i][k] * (double)t->gradient[i][k];
        }
    }
    return sum;
}

static void clear_gradients(nas_trainer *t) {
    for (size_t i = 0; i < t->weights->n; i++) {
        const size_t count = t->weights->items[i].count;
        memset(t->gradient[i], 0, count * sizeof **t->gradient);
        memset(t->touched[i], 0, count * sizeof **t->touched);
    }
    t->accumulated = 0;
}

nas_status nas_trainer_apply(nas_ctx *ctx, nas_trainer *trainer) {
    if (trainer->accumulated == 0) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "Adam step without a gradient: accumulate a batch first");
    }
    const double squared = squared_norm(trainer);
    if (!isfinite(squared)) {
        clear_gradients(trainer);
        return nas_fail(ctx, NAS_ERR_INTERNAL,
                        "a gradient is not finite after %" PRIu64
                        " steps; the weights are unchanged, lower the learning rate",
                        trainer->weights->steps);
    }
    double scale = 1.0 / (double)trainer->accumulated;
    const double norm = sqrt(squared) * scale, clip = trainer->options.gradient_clip;
    if (clip > 0 && norm > clip) scale *= clip / norm;
    for (size_t i = 0; i < trainer->weights->n; i++) {
        nas__adam(&trainer->weights->items[i], trainer->gradient[i], trainer->touched[i],
                  (float)scale, &trainer->options);
    }
    trainer->weights->steps++;
    clear_gradients(trainer);
    return NAS_OK;
}

const float *nas_trainer_gradient(const nas_trainer *trainer, const char *param_name,
                                  size_t *count) {
    for (size_t i = 0; i < trainer->weights->n; i++) {
        if (strcmp(trainer->weights->items[i].name, param_name) != 0) continue;
        *count = trainer->weights->items[i].count;
        return trainer->gradient[i];
    }
    return NULL;
}

uint64_t nas_trainer_flops(const nas_trainer *trainer) {
    return trainer->flops;
}
