/* build.c - a graph becomes a checked program, and that program scores images.
 *
 * Every emitted program runs one frame of noise before it may be timed, and its output is compared with the trainer's
 * forward: a latency of a wrong network is worth nothing. */
#include "search/study_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Sums of up to some thousand fp32 products of order 1 in another order differ by about 1e-6; a wrong tap or border
 * shows as 1e-2 and more. */
static const double difference_max = 1e-3;
/* Of images in [0, 1] made in half precision: docs/half_precision.md. */
static const double half_difference_max = 2e-2;

void nas__built_deinit(nas__built *built) {
    nas_graph_free(built->graph);
    *built = (nas__built){0};
}

static nas_status work_dir(nas_ctx *ctx, const nas__study *s, char out[NAS__PATH_MAX]) {
    const int n = snprintf(out, NAS__PATH_MAX, "%s/work", s->dir);
    if (n < 0 || n >= NAS__PATH_MAX)
        return nas_fail(ctx, NAS_ERR_RANGE, "study folder path is too long");
    return nas_mkdirs(ctx, out);
}

static nas_status frame_images(nas_ctx *ctx, const nas_graph *g, nas_image *in, nas_image *out) {
    const nas_shape si = nas_graph_node(g, nas_graph_input(g))->shape;
    const nas_shape so = nas_graph_node(g, nas_graph_output(g))->shape;
    nas_status status = nas_image_init(ctx, si.c, si.h, si.w, in);
    if (status == NAS_OK) status = nas_image_init(ctx, so.c, so.h, so.w, out);
    return status;
}

/* One frame of noise, and what the trainer's forward makes of it. */
typedef struct probe_frame {
    nas_image in, expected, emitted;
} probe_frame;

static void frame_deinit(probe_frame *f) {
    nas_image_deinit(&f->in);
    nas_image_deinit(&f->emitted);
    nas_image_deinit(&f->expected);
}

static nas_status frame_init(nas_ctx *ctx, const nas__study *s, const nas_graph *graph,
                             probe_frame *f) {
    *f = (probe_frame){0};
    nas_status status = frame_images(ctx, graph, &f->in, &f->emitted);
    if (status == NAS_OK) {
        nas_rng rng = nas_rng_stream(s->config->study.seed, 0, "compare");
        const size_t n = (size_t)f->in.c * (size_t)f->in.h * (size_t)f->in.w;
        for (size_t i = 0; i < n; i++)
            f->in.data[i] = (float)nas_rng_uniform(&rng);
        status = nas_forward(ctx, graph, &f->in, &f->expected, 1);
    }
    if (status != NAS_OK) frame_deinit(f);
    return status;
}

static nas_status compare_with_forward(nas_ctx *ctx, const nas__study *s, const nas_graph *graph,
                                       const nas_artifact *artifact, bool half, probe_frame *f,
                                       double *difference) {
    char dir[NAS__PATH_MAX];
    nas_status status = work_dir(ctx, s, dir);
    if (status == NAS_OK)
        status = nas_artifact_run(ctx, artifact, graph, 1, f->in.data, f->emitted.data, 1, dir);
    if (status != NAS_OK) return status;
    double worst = 0;
    const size_t n = (size_t)f->emitted.c * (size_t)f->emitted.h * (size_t)f->emitted.w;
    for (size_t i = 0; i < n; i++) {
        const double d = fabs((double)f->emitted.data[i] - (double)f->expected.data[i]);
        if (!(d <= worst)) worst = d; /* a NaN sticks */
    }
    const double limit = half ? half_difference_max : difference_max;
    if (!(worst <= limit)) {
        return nas_fail(ctx, NAS_ERR_TOOLCHAIN,
                        "the network compiled for %s differs from the reference by %g (limit %g): "
                        "miscompiled",
                        artifact->target, worst, limit);
    }
    if (worst > *difference) *difference = worst;
    return NAS_OK;
}

/* The same network for this CPU: compared in the place of a program that cannot run here, and used to score images. */
static nas_status build_twin(nas_ctx *ctx, const nas__study *s, nas__built *b, probe_frame *f) {
    if (b->here.path[0] != '\0') return NAS_OK;
    const nas_status status = nas_compile(ctx, b->graph, &s->native.compile, &b->here);
    return status == NAS_OK
               ? compare_with_forward(ctx, s, b->graph, &b->here, false, f, &b->max_difference)
               : status;
}

static nas_status build_for(nas_ctx *ctx, const nas__study *s, int32_t target, nas__built *b,
                            probe_frame *f) {
    const nas__target *t = &s->targets[target];
    nas_artifact *artifact = &b->artifacts[target];
    nas_status status = nas_compile(ctx, b->graph, &t->compile, artifact);
    if (status != NAS_OK) return status;
    const bool runs = t->row.runs_here || t->runner[0] != '\0';
    const char *how = t->row.runs_here ? "run here, one frame"
                      : runs           ? "run by an emulator, one frame"
                                       : "only a native build of the network";
    (void)snprintf(b->checked[target], NAS_DB_CHECKED_MAX, "%s", how);
    (void)snprintf(artifact->runner, sizeof artifact->runner, "%s",
                   t->row.runs_here ? "" : t->runner);
    return runs ? compare_with_forward(ctx, s, b->graph, artifact,
                                       t->compile.dtype == NAS_DTYPE_FP16, f, &b->max_difference)
                : build_twin(ctx, s, b, f);
}

nas_status nas__build(nas_ctx *ctx, const nas__study *s, nas_graph *take_graph,
                      const nas_weights *weights, nas__built *out) {
    nas__built b = {.graph = take_graph};
    probe_frame f = {0};
    nas_status status = nas_weights_fill(ctx, weights, b.graph);
    if (status == NAS_OK) status = frame_init(ctx, s, b.graph, &f);
    const int32_t first = (int32_t)(nas__first_target(s) - s->targets);
    if (status == NAS_OK && s->targets[first].row.runs_here) {
        status = build_for(ctx, s, first, &b, &f);
        b.here = b.artifacts[first];
    }
    for (int32_t i = 0; i < s->n_targets && status == NAS_OK; i++) {
        if (b.artifacts[i].path[0] == '\0') status = build_for(ctx, s, i, &b, &f);
    }
    frame_deinit(&f);
    if (status != NAS_OK) {
        nas__built_deinit(&b);
        return status;
    }
    *out = b;
    return NAS_OK;
}

nas_status nas__build_here(nas_ctx *ctx, const nas__study *s, nas__built *b) {
    if (b->here.path[0] != '\0') return NAS_OK;
    probe_frame f;
    nas_status status = frame_init(ctx, s, b->graph, &f);
    if (status == NAS_OK) status = build_twin(ctx, s, b, &f);
    frame_deinit(&f);
    return status;
}

/* ---- scoring by the compiled program --------------------------------------------------------------------------------- */

typedef struct artifact_upscaler {
    const nas__built *built;
    char dir[NAS__PATH_MAX];
} artifact_upscaler;

/* Pixels of context around what is kept of a frame: more than the receptive field that matters. */
enum { MARGIN = 16 };

static int32_t clamp_index(int32_t i, int32_t n) {
    return i < 0 ? 0 : i >= n ? n - 1 : i;
}

/* The program has one fixed frame size. A picture is cut into tiles that fit inside the frame with MARGIN to spare;
 * outside the picture the border pixel is repeated. */
static nas_status upscale_tile(nas_ctx *ctx, artifact_upscaler *u, const nas_image *lr, int32_t top,
                               int32_t left, nas_image *frame, nas_image *result, nas_image *sr) {
    for (int32_t c = 0; c < frame->c; c++) {
        for (int32_t y = 0; y < frame->h; y++) {
            const int32_t sy = clamp_index(top + y - MARGIN, lr->h);
            for (int32_t x = 0; x < frame->w; x++) {
                const int32_t sx = clamp_index(left + x - MARGIN, lr->w);
                frame->data[((size_t)c * (size_t)frame->h + (size_t)y) * (size_t)frame->w +
                            (size_t)x] =
                    lr->data[((size_t)c * (size_t)lr->h + (size_t)sy) * (size_t)lr->w + (size_t)sx];
            }
        }
    }
    const nas_status status = nas_artifact_run(ctx, &u->built->here, u->built->graph, 1,
                                               frame->data, result->data, 1, u->dir);
    if (status != NAS_OK) return status;
    const int32_t scale = result->h / frame->h;
    const int32_t rows = (frame->h - 2 * MARGIN) * scale, cols = (frame->w - 2 * MARGIN) * scale;
    for (int32_t c = 0; c < sr->c; c++) {
        for (int32_t y = 0; y < rows && top * scale + y < sr->h; y++) {
            const int32_t room = sr->w - left * scale;
            const size_t n = (size_t)(cols < room ? cols : room);
            const size_t from =
                ((size_t)c * (size_t)result->h + (size_t)(y + MARGIN * scale)) * (size_t)result->w +
                (size_t)(MARGIN * scale);
            const size_t to =
                ((size_t)c * (size_t)sr->h + (size_t)(top * scale + y)) * (size_t)sr->w +
                (size_t)(left * scale);
            memcpy(sr->data + to, result->data + from, n * sizeof(float));
        }
    }
    return NAS_OK;
}

static nas_status upscale_by_artifact(nas_ctx *ctx, void *arg, const nas_image *lr,
                                      nas_image *sr_out) {
    artifact_upscaler *u = arg;
    nas_image frame = {0}, result = {0};
    nas_status status = frame_images(ctx, u->built->graph, &frame, &result);
    if (status == NAS_OK && (frame.c != lr->c || frame.h <= 2 * MARGIN || frame.w <= 2 * MARGIN)) {
        status = nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                          "scoring by a program of frame %dx%d with %d channels", (int)frame.w,
                          (int)frame.h, (int)frame.c);
    }
    for (int32_t top = 0; status == NAS_OK && top < lr->h; top += frame.h - 2 * MARGIN) {
        for (int32_t left = 0; status == NAS_OK && left < lr->w; left += frame.w - 2 * MARGIN) {
            status = upscale_tile(ctx, u, lr, top, left, &frame, &result, sr_out);
        }
    }
    nas_image_deinit(&frame);
    nas_image_deinit(&result);
    return status;
}

nas_status nas__score_artifact(nas_ctx *ctx, const nas__study *s, const nas__built *built,
                               nas_split split, nas_sr_score *out) {
    artifact_upscaler u = {.built = built};
    const nas_status status = work_dir(ctx, s, u.dir);
    if (status != NAS_OK) return status;
    return nas_sr_score_split(ctx, s->data, split, s->config->task.scale, upscale_by_artifact, &u,
                              out);
}
