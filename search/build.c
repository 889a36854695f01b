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

static nas_status compare_with_forward(nas_ctx *ctx, const nas__study *s, nas__built *b) {
    nas_image in = {0}, emitted = {0}, expected = {0};
    char dir[NAS__PATH_MAX];
    nas_status status = work_dir(ctx, s, dir);
    if (status == NAS_OK) status = frame_images(ctx, b->graph, &in, &emitted);
    if (status == NAS_OK) {
        nas_rng rng = nas_rng_stream(s->config->study.seed, 0, "compare");
        const size_t n = (size_t)in.c * (size_t)in.h * (size_t)in.w;
        for (size_t i = 0; i < n; i++)
            in.data[i] = (float)nas_rng_uniform(&rng);
        status = nas_artifact_run(ctx, &b->artifact, b->graph, 1, in.data, emitted.data, 1, dir);
    }
    if (status == NAS_OK) status = nas_forward(ctx, b->graph, &in, &expected, 1);
    double worst = 0;
    if (status == NAS_OK) {
        const size_t n = (size_t)emitted.c * (size_t)emitted.h * (size_t)emitted.w;
        for (size_t i = 0; i < n; i++) {
            const double d = fabs((double)emitted.data[i] - (double)expected.data[i]);
            if (!(d <= worst)) worst = d; /* a NaN sticks */
        }
        if (!(worst <= difference_max)) {
            status = nas_fail(
                ctx, NAS_ERR_TOOLCHAIN,
                "the compiled network differs from the reference by %g (limit %g): miscompiled",
                worst, difference_max);
        }
    }
    if (status == NAS_OK) b->max_difference = worst;
    nas_image_deinit(&in);
    nas_image_deinit(&emitted);
    nas_image_deinit(&expected);
    return status;
}

nas_status nas__build(nas_ctx *ctx, const nas__study *s, nas_graph *take_graph,
                      const nas_weights *weights, nas__built *out) {
    nas__built b = {.graph = take_graph};
    nas_status status = nas_weights_fill(ctx, weights, b.graph);
    if (status == NAS_OK) status = nas_compile(ctx, b.graph, &s->compile, &b.artifact);
    if (status == NAS_OK) status = compare_with_forward(ctx, s, &b);
    if (status != NAS_OK) {
        nas__built_deinit(&b);
        return status;
    }
    *out = b;
    return NAS_OK;
}

/* ---- scoring by the compiled program --------------------------------------------------------------------------------- */

typedef struct artifact_upscaler {
    const nas__study *s;
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
    const nas_status status = nas_artifact_run(ctx, &u->built->artifact, u->built->graph, 1,
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
    artifact_upscaler u = {.s = s, .built = built};
    const nas_status status = work_dir(ctx, s, u.dir);
    if (status != NAS_OK) return status;
    return nas_sr_score_split(ctx, s->data, split, s->config->task.scale, upscale_by_artifact, &u,
                              out);
}
