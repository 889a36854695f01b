/* forward.c - a network on a whole image, layer by layer, and super-resolution with it.
 *
 * Every step is cut into bands of rows that threads take; a pixel's sum does not depend on its band, so any number
 * of threads gives the same bits. */
#include "eval/train_plan.h"
#include "eval/train_pool.h"
#include "eval/train.h"

#include <string.h>

enum { BAND_ROWS = 8 };

typedef struct forward_job {
    nas__run runs[NAS__POOL_THREADS_MAX]; /* a scratch each, one space */
    const nas__step *step;
    int32_t rows;
} forward_job;

static void run_band(void *arg, size_t band, int worker) {
    const forward_job *job = arg;
    const int32_t begin = (int32_t)band * BAND_ROWS;
    const int32_t end = job->rows - begin < BAND_ROWS ? job->rows : begin + BAND_ROWS;
    nas__step_forward(&job->runs[worker], job->step, begin, end);
}

static void copy_in(const nas__run *run, const nas_image *in) {
    const nas__view to = nas__tensor_view(run, run->plan->input);
    const size_t w = (size_t)in->w;
    for (int32_t c = 0; c < in->c; c++) {
        for (int32_t y = 0; y < in->h; y++) {
            memcpy(to.at + y * to.row + c * to.channel,
                   in->data + ((size_t)c * (size_t)in->h + (size_t)y) * w, w * sizeof *in->data);
        }
    }
}

static void copy_out(const nas__run *run, nas_image *out) {
    const nas__view from = nas__tensor_view(run, run->plan->output);
    const size_t w = (size_t)out->w;
    for (int32_t c = 0; c < out->c; c++) {
        for (int32_t y = 0; y < out->h; y++) {
            memcpy(out->data + ((size_t)c * (size_t)out->h + (size_t)y) * w,
                   from.at + y * from.row + c * from.channel, w * sizeof *out->data);
        }
    }
}

/* Buffers of one call, all from one arena: space, packed weights, params, a scratch a thread. A buffer that is used
 * again for a tensor of equal extents keeps its zero padding. */
static nas_status alloc_runs(nas_ctx *ctx, const nas_graph *graph, const nas__plan *plan,
                             int32_t threads, forward_job *job) {
    nas_arena *arena = plan->arena;
    float *space = nas_arena_alloc(ctx, arena, plan->space_floats, sizeof *space);
    float *packed = nas_arena_alloc(ctx, arena, plan->packed_floats, sizeof *packed);
    const float **params = nas_arena_alloc(ctx, arena, (size_t)plan->n_params, sizeof *params);
    if (space == NULL || packed == NULL || params == NULL) return NAS_ERR_NOMEM;
    for (int32_t i = 0; i < plan->n_params; i++)
        params[i] = nas_graph_param_const(graph, i)->data;
    nas__plan_pack(plan, params, false, packed);
    for (int32_t i = 0; i < threads; i++) {
        float *scratch = nas_arena_alloc(ctx, arena, plan->scratch_floats, sizeof *scratch);
        if (scratch == NULL) return NAS_ERR_NOMEM;
        job->runs[i] = (nas__run){.plan = plan,
                                  .kernels = nas__kernels_best(),
                                  .packed = packed,
                                  .params = params,
                                  .space = space,
                                  .scratch = scratch};
    }
    return NAS_OK;
}

static nas_status run_steps(nas_ctx *ctx, const nas__plan *plan, nas__pool *pool,
                            forward_job *job) {
    for (int32_t i = 0; i < plan->n_steps; i++) {
        const nas_status status = nas_check_cancel(ctx);
        if (status != NAS_OK) return status;
        job->step = &plan->steps[i];
        job->rows = nas__step_rows(plan, job->step);
        const size_t bands = ((size_t)job->rows + BAND_ROWS - 1) / BAND_ROWS;
        nas__pool_run(pool, bands, run_band, job);
    }
    return NAS_OK;
}

static nas_status forward_planned(nas_ctx *ctx, const nas_graph *graph, const nas__plan *plan,
                                  const nas_image *in, int32_t threads, nas_image *out) {
    const nas__tensor *last = &plan->tensors[plan->output];
    nas__pool *pool = NULL;
    forward_job job = {0};
    nas_image image = {0};
    nas_status status = nas__pool_new(ctx, threads, &pool);
    if (status == NAS_OK) status = alloc_runs(ctx, graph, plan, threads, &job);
    if (status == NAS_OK) {
        copy_in(&job.runs[0], in);
        status = run_steps(ctx, plan, pool, &job);
    }
    if (status == NAS_OK) status = nas_image_init(ctx, last->c, last->h, last->w, &image);
    if (status == NAS_OK) {
        copy_out(&job.runs[0], &image);
        *out = image;
    }
    nas__pool_free(pool);
    return status;
}

nas_status nas_forward(nas_ctx *ctx, const nas_graph *graph, const nas_image *in, nas_image *out,
                       int32_t threads) {
    const nas_value input = nas_graph_input(graph);
    if (input < 0 || !nas_graph_has_weights(graph)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "forward of '%s': the graph needs an input and weights",
                        nas_graph_name(graph));
    }
    if (nas_graph_node(graph, input)->shape.c != in->c) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "forward of '%s': image of %" PRId32 " channels, the graph reads %" PRId32,
                        nas_graph_name(graph), in->c, nas_graph_node(graph, input)->shape.c);
    }
    nas__plan *plan = NULL;
    nas_status status = nas__plan_new(ctx, graph, in->h, in->w, false, nas__kernels_best(), &plan);
    if (status != NAS_OK) return status;
    status = forward_planned(ctx, graph, plan, in, threads, out);
    nas__plan_free(plan);
    return status;
}

/* ---- super-resolution with luma networks ----------------------------------------------------------------------- */

/* ITU-R BT.601, studio range, everything in [0,1]: Y as nas_image_luma; Cb and Cr around 128/255. */
static void to_chroma(const nas_image *rgb, nas_image *chroma) {
    const size_t n = (size_t)rgb->h * (size_t)rgb->w;
    const float *r = rgb->data, *g = r + n, *b = g + n;
    for (size_t i = 0; i < n; i++) {
        chroma->data[i] = (-37.797f * r[i] - 74.203f * g[i] + 112.0f * b[i] + 128.0f) / 255.0f;
        chroma->data[n + i] = (112.0f * r[i] - 93.786f * g[i] - 18.214f * b[i] + 128.0f) / 255.0f;
    }
}

static void to_rgb(const nas_image *luma, const nas_image *chroma, nas_image *rgb) {
    const size_t n = (size_t)luma->h * (size_t)luma->w;
    float *r = rgb->data, *g = r + n, *b = g + n;
    for (size_t i = 0; i < n; i++) {
        const float y = (luma->data[i] * 255.0f - 16.0f) / 219.0f;
        const float cb = (chroma->data[i] * 255.0f - 128.0f) / 224.0f;
        const float cr = (chroma->data[n + i] * 255.0f - 128.0f) / 224.0f;
        r[i] = y + 1.402f * cr;
        g[i] = y - 0.344136f * cb - 0.714136f * cr;
        b[i] = y + 1.772f * cb;
    }
}

/* The caller's image is filled, not replaced: the network must give exactly its extents. */
static nas_status check_extents(nas_ctx *ctx, const nas_graph *graph, const nas_image *up,
                                int32_t channels, const nas_image *sr_out) {
    if (up->c == channels && up->h == sr_out->h && up->w == sr_out->w && sr_out->c == 3)
        return NAS_OK;
    return nas_fail(ctx, NAS_ERR_SHAPE,
                    "upscaling with '%s': gives [%" PRId32 ",%" PRId32 ",%" PRId32
                    "], wanted [%" PRId32 ",%" PRId32 ",%" PRId32 "]",
                    nas_graph_name(graph), up->c, up->h, up->w, channels, sr_out->h, sr_out->w);
}

static nas_status upscale_luma(nas_ctx *ctx, const nas_upscale_graph *net, const nas_image *lr,
                               nas_image *sr_out) {
    nas_image luma = {0}, up = {0}, chroma = {0}, chroma_up = {0};
    nas_status status = nas_image_luma(ctx, lr, &luma);
    if (status == NAS_OK) status = nas_forward(ctx, net->graph, &luma, &up, net->threads);
    if (status == NAS_OK) status = check_extents(ctx, net->graph, &up, 1, sr_out);
    if (status == NAS_OK) status = nas_image_init(ctx, 2, lr->h, lr->w, &chroma);
    if (status == NAS_OK) {
        to_chroma(lr, &chroma);
        status = nas_image_resize_bicubic(ctx, &chroma, up.h, up.w, &chroma_up);
    }
    if (status == NAS_OK) to_rgb(&up, &chroma_up, sr_out);
    nas_image_deinit(&chroma_up);
    nas_image_deinit(&chroma);
    nas_image_deinit(&up);
    nas_image_deinit(&luma);
    return status;
}

static nas_status upscale_rgb(nas_ctx *ctx, const nas_upscale_graph *net, const nas_image *lr,
                              nas_image *sr_out) {
    nas_image up = {0};
    nas_status status = nas_forward(ctx, net->graph, lr, &up, net->threads);
    if (status == NAS_OK) status = check_extents(ctx, net->graph, &up, 3, sr_out);
    if (status == NAS_OK) {
        const size_t floats = (size_t)up.c * (size_t)up.h * (size_t)up.w;
        memcpy(sr_out->data, up.data, floats * sizeof *up.data);
    }
    nas_image_deinit(&up);
    return status;
}

nas_status nas_upscale_by_graph(nas_ctx *ctx, void *arg, const nas_image *lr, nas_image *sr_out) {
    const nas_upscale_graph *net = arg;
    const nas_value input = nas_graph_input(net->graph);
    if (lr->c != 3 || input < 0) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "upscaling with '%s': needs an RGB image, has %" PRId32 " channels",
                        nas_graph_name(net->graph), lr->c);
    }
    if (nas_graph_node(net->graph, input)->shape.c == 1) return upscale_luma(ctx, net, lr, sr_out);
    return upscale_rgb(ctx, net, lr, sr_out);
}
