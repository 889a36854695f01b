/* train_phase.c - training with checkpoints: the supernet by sandwich sampling, a single network alone.
 *
 * Step i draws everything from the stream (study seed, i, label), and the learning rate depends on i and the planned
 * number of steps alone, so that a training interrupted anywhere ends in the same weights.
 * Sandwich rule: each step trains the largest, the smallest and random networks (Yu & Huang, arXiv:1903.05134). */
#include "search/study_internal.h"

#include <math.h>
#include <stdio.h>

enum {
    CHECKPOINT_EVERY_S = 20,
    SANDWICH_RANDOM = 2,
    GRAPHS_MAX = SANDWICH_RANDOM + 2,
    WARMUP_STEPS = 100
};

/* Linear warm-up, then half a cosine down to 1 % (Loshchilov & Hutter, arXiv:1608.03983, without restarts). */
static double learning_rate_at(double peak, uint64_t step, int32_t steps) {
    const double warm = fmin(1.0, ((double)step + 1) / WARMUP_STEPS);
    const double t = fmin(1.0, (double)step / (double)steps);
    return peak * warm * (0.01 + 0.99 * 0.5 * (1.0 + cos(3.141592653589793 * t)));
}

static nas_status sample_sandwich(nas__study *s, nas_rng *rng, nas_graph *graphs[GRAPHS_MAX],
                                  size_t *n) {
    nas_status status = NAS_OK;
    for (*n = 0; *n < GRAPHS_MAX && status == NAS_OK;) {
        nas_point point;
        switch (*n) {
        case 0: nas_space_largest(s->space, &point); break;
        case 1: nas_space_smallest(s->space, &point); break;
        default: nas_space_sample(s->space, rng, &point); break;
        }
        status = nas_space_decode(s->ctx, s->space, &point, &graphs[*n]);
        if (status == NAS_OK) (*n)++;
    }
    return status;
}

typedef struct batch_buffers {
    float *lr, *hr; /* [batch][3][patch][patch], [batch][3][patch*scale][patch*scale] */
} batch_buffers;

static nas_status alloc_batch(nas__study *s, batch_buffers *b) {
    const size_t lr = (size_t)s->config->eval.batch * 3 * (size_t)s->config->eval.patch *
                      (size_t)s->config->eval.patch;
    const size_t scale = (size_t)s->config->task.scale;
    b->lr = nas_alloc_array(s->ctx, lr, sizeof *b->lr);
    b->hr = nas_alloc_array(s->ctx, lr * scale * scale, sizeof *b->hr);
    return b->lr == NULL || b->hr == NULL ? NAS_ERR_NOMEM : NAS_OK;
}

/* One optimiser step: one batch a graph, gradients summed. */
static nas_status train_step(nas__study *s, nas_trainer *trainer, const nas__training *t,
                             uint64_t step, const batch_buffers *b, double *loss) {
    char purpose[64];
    (void)snprintf(purpose, sizeof purpose, "train %s %" PRIu64, t->label, t->trial);
    nas_rng rng = nas_rng_stream(s->config->study.seed, step, purpose);
    nas_graph *graphs[GRAPHS_MAX] = {NULL};
    size_t n = 1;
    nas_status status = NAS_OK;
    if (t->graph == NULL) status = sample_sandwich(s, &rng, graphs, &n);
    double sum = 0;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        double one = 0;
        status = nas_sr_data_patches(s->ctx, s->data, &rng, s->config->eval.batch,
                                     s->config->eval.patch, b->lr, b->hr);
        if (status == NAS_OK) {
            status = nas_trainer_accumulate(
                s->ctx, trainer, t->graph == NULL ? graphs[i] : t->graph, b->lr, b->hr, &one);
        }
        sum += one;
    }
    for (size_t i = 0; i < GRAPHS_MAX; i++)
        nas_graph_free(graphs[i]);
    if (status == NAS_OK) {
        nas_trainer_set_learning_rate(trainer, learning_rate_at(t->learning_rate, step, t->steps));
        status = nas_trainer_apply(s->ctx, trainer);
    }
    *loss = sum / (double)n;
    return status;
}

static nas_status load_checkpoint(nas__study *s, nas_weights *weights, const char *path) {
    if (!nas_file_exists(path)) return NAS_OK;
    const nas_status status = nas_weights_load(s->ctx, weights, path);
    if (status == NAS_OK) return NAS_OK;
    return nas_wrap(s->ctx, status, "checkpoint (remove the file to train again)");
}

static nas_status train_loop(nas__study *s, nas_weights *weights, const nas__training *t,
                             nas_trainer *trainer, const batch_buffers *b) {
    const int64_t start = nas_now_ns();
    int64_t saved = start;
    const uint64_t first = nas_weights_steps(weights);
    double average = 0;
    nas_status status = NAS_OK;
    for (uint64_t step = first; step < (uint64_t)t->steps && status == NAS_OK; step++) {
        double loss = 0;
        status = nas_check_cancel(s->ctx);
        if (status == NAS_OK) status = train_step(s, trainer, t, step, b, &loss);
        if (status != NAS_OK) break;
        average = step == first ? loss : 0.98 * average + 0.02 * loss;
        const int64_t now = nas_now_ns();
        const double seconds = (double)(now - start) * 1e-9;
        const double images = (double)(step - first + 1) * s->config->eval.batch *
                              (t->graph == NULL ? GRAPHS_MAX : 1);
        nas__progress_update(&s->progress, (double)step + 1,
                             "loss %.4f  %.0f images/s  %.1f GFLOP/s", average, images / seconds,
                             (double)nas_trainer_flops(trainer) * 1e-9 / seconds);
        if (now - saved > (int64_t)CHECKPOINT_EVERY_S * 1000000000) {
            status = nas_weights_save(s->ctx, weights, t->path);
            if (status == NAS_OK)
                status = nas__meta_set_double(s, "elapsed_s", nas__study_elapsed_s(s));
            saved = nas_now_ns();
        }
        if (nas__study_out_of_time(s, t->until_fraction)) {
            nas_log(s->ctx, NAS_LOG_WARN,
                    "%s: the time budget ends training at step %" PRIu64 " of %d", t->label,
                    step + 1, (int)t->steps);
            break;
        }
    }
    if (status != NAS_OK && status != NAS_ERR_CANCELLED) return status;
    char message[512];
    (void)snprintf(message, sizeof message, "%s", nas_ctx_message(s->ctx));
    const nas_status saved_status =
        nas_weights_save(s->ctx, weights, t->path); /* also when interrupted */
    if (status == NAS_OK) return saved_status;
    return nas_fail(s->ctx, status, "%s", message);
}

nas_status nas__train(nas__study *s, nas_weights *weights, const nas__training *t) {
    nas_status status = load_checkpoint(s, weights, t->path);
    if (status != NAS_OK) return status;
    const uint64_t first = nas_weights_steps(weights);
    if (first >= (uint64_t)t->steps) return NAS_OK;
    if (first > 0) {
        nas_log(s->ctx, NAS_LOG_INFO, "%s: continuing from step %" PRIu64 " of %d", t->label, first,
                (int)t->steps);
    }
    nas_train_options o = nas_train_options_default();
    o.batch = s->config->eval.batch;
    o.patch = s->config->eval.patch;
    o.scale = s->config->task.scale;
    o.threads = s->config->eval.threads;
    o.learning_rate = t->learning_rate;
    nas_trainer *trainer = NULL;
    batch_buffers b = {0};
    status = nas_trainer_new(s->ctx, weights, &o, &trainer);
    if (status == NAS_OK) status = alloc_batch(s, &b);
    nas__progress_phase(&s->progress, t->label, (double)first, t->steps);
    if (status == NAS_OK) status = train_loop(s, weights, t, trainer, &b);
    if (status == NAS_OK) nas__progress_end(&s->progress);
    nas_free(b.lr);
    nas_free(b.hr);
    nas_trainer_free(trainer);
    return status;
}

/* A training that the time budget ended early counts as finished on resume. */
static nas_status train_once(nas__study *s, nas_weights *weights, const nas__training *t) {
    char key[64];
    (void)snprintf(key, sizeof key, "trained_%s", t->label);
    double done = 0;
    bool found = false;
    nas_status status = nas__meta_get_double(s, key, &done, &found);
    if (status == NAS_OK && found) return load_checkpoint(s, weights, t->path);
    if (status == NAS_OK) status = nas__train(s, weights, t);
    if (status == NAS_OK) status = nas__meta_set_double(s, key, (double)nas_weights_steps(weights));
    return status;
}

/* Weights of another study, copied in so that this one stands alone. */
static nas_status adopt_supernet(nas__study *s) {
    const char *from = s->config->eval.supernet_weights;
    char path[NAS__PATH_MAX];
    nas_status status = nas__study_path(s, "supernet.weights", path);
    if (status != NAS_OK) return status;
    if (nas_file_exists(path)) return nas_weights_load(s->ctx, s->weights, path);
    status = nas_weights_load(s->ctx, s->weights, from);
    if (status == NAS_OK) status = nas_weights_save(s->ctx, s->weights, path);
    if (status == NAS_OK) nas_log(s->ctx, NAS_LOG_INFO, "supernet: weights of %s", from);
    return nas_wrap(s->ctx, status, "eval.supernet_weights");
}

nas_status nas__phase_train(nas__study *s) {
    nas_ctx *ctx = s->ctx;
    nas_rng rng = nas_rng_stream(s->config->study.seed, 0, "init supernet");
    nas_status status = nas_weights_new(ctx, s->largest, &rng, &s->weights);
    nas__training t = {.label = "supernet",
                       .steps = s->config->eval.supernet_steps,
                       .learning_rate = s->config->eval.learning_rate,
                       .until_fraction = 0.3};
    if (status == NAS_OK) status = nas__study_path(s, "supernet.weights", t.path);
    if (status == NAS_OK && s->config->eval.supernet_weights[0] != '\0') {
        status = adopt_supernet(s);
    } else if (status == NAS_OK) {
        status = train_once(s, s->weights, &t);
    }
    if (status != NAS_OK || s->config->eval.baseline_steps == 0)
        return nas_wrap(ctx, status, "training");
    rng = nas_rng_stream(s->config->study.seed, 0, "init fsrcnn");
    if (status == NAS_OK) status = nas_weights_new(ctx, s->fsrcnn, &rng, &s->fsrcnn_weights);
    nas__training f = {.label = "fsrcnn",
                       .steps = s->config->eval.baseline_steps,
                       .graph = s->fsrcnn,
                       .learning_rate = s->config->eval.learning_rate,
                       .until_fraction = 0.35};
    if (status == NAS_OK) status = nas__study_path(s, "fsrcnn.weights", f.path);
    if (status == NAS_OK) status = train_once(s, s->fsrcnn_weights, &f);
    return nas_wrap(ctx, status, "training");
}
