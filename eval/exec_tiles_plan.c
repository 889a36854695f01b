/* exec_tiles_plan.c - convolutions for tile registers: which pixels make a tile, weights in bf16. */
#include "eval/exec_internal.h"

#include <string.h>

enum { STRIP_VALUES = 16 * 1024 }; /* as many images as stay in the first cache, one at least */

/* ---- pixels ------------------------------------------------------------------------------------------------------- */

/* Pixels that follow each other at one distance: those of a row, or, where a whole number of them fits between the rows of what
 * is read, of all rows, with some that nobody wants at the end of each. */
typedef struct order {
    int32_t width, height, pitch; /* of the output; pixels from row to row */
    int32_t per_row;              /* tiles; 0: rows run on */
    int32_t tiles;
} order;

static int32_t tiles_for(int32_t pixels) {
    return (pixels + NAS__TILE_PIXELS - 1) / NAS__TILE_PIXELS;
}

static order choose_order(const nas__exec_value *in, const nas__exec_value *out,
                          const nas_conv_attributes *c) {
    order o = {.width = out->w, .height = out->h, .per_row = tiles_for(out->w)};
    o.tiles = o.per_row * out->h;
    const int32_t padded = in->left + in->w + in->right, rows = padded * c->stride_h;
    if (rows % c->stride_w != 0) return o;
    const int32_t pitch = rows / c->stride_w;
    const int32_t tiles = tiles_for((out->h - 1) * pitch + out->w);
    if (pitch < out->w || tiles >= o.tiles) return o;
    return (order){out->w, out->h, pitch, 0, tiles};
}

/* Row and column of a pixel of a tile; false: not wanted. */
static bool pixel_of(const order *o, int32_t tile, int32_t r, int32_t *y, int32_t *x) {
    if (o->per_row > 0) {
        *y = tile / o->per_row;
        *x = tile % o->per_row * NAS__TILE_PIXELS + r;
    } else {
        *y = (tile * NAS__TILE_PIXELS + r) / o->pitch;
        *x = (tile * NAS__TILE_PIXELS + r) % o->pitch;
    }
    return *y < o->height && *x < o->width;
}

static void place_pixels(const nas__exec_value *in, const nas__exec_value *out,
                         const nas_conv_attributes *c, const order *o, nas__exec_tiles *t) {
    const ptrdiff_t first = in->origin - c->pad_top * in->row - (ptrdiff_t)c->pad_left * in->cs;
    for (int32_t tile = 0; tile < o->tiles; tile++) {
        for (int32_t r = 0; r < NAS__TILE_PIXELS; r++) {
            int32_t y = 0, x = 0;
            const bool wanted = pixel_of(o, tile, r, &y, &x);
            t->out_at[tile * NAS__TILE_PIXELS + r] =
                wanted ? (int32_t)(y * out->row + (ptrdiff_t)x * out->cs) : -1;
            if (r == 0)
                t->in_at[tile] = (int32_t)(first + y * c->stride_h * in->row +
                                           (ptrdiff_t)x * c->stride_w * in->cs);
        }
    }
}

nas_status nas__exec_tiles_plan(nas_ctx *ctx, nas_exec *e, nas__exec_step *step) {
    const nas_node *node = nas_graph_node(e->graph, step->node);
    const nas_conv_attributes *c = &node->conv;
    const nas__exec_value *in = nas__exec_root(e, node->inputs[0]);
    const nas__exec_value *out = nas__exec_root(e, step->node);
    const order o = choose_order(in, out, c);
    nas__exec_tiles *t = nas_arena_alloc(ctx, e->arena, 1, sizeof *t);
    if (t == NULL) return NAS_ERR_NOMEM;
    t->run_taps = c->dilation_w == 1 ? c->kernel_w : 1;
    t->n_runs = step->n_taps / t->run_taps;
    t->steps = (t->run_taps * in->cs + NAS__TILE_DEPTH - 1) / NAS__TILE_DEPTH;
    t->n_tiles = o.tiles;
    t->pixel_step = c->stride_w * in->cs;
    t->blocks = (step->vectors * NAS__EXEC_LANES + NAS__TILE_OUTPUTS - 1) / NAS__TILE_OUTPUTS;
    t->strip = in->image < STRIP_VALUES ? (int32_t)(STRIP_VALUES / in->image) : 1;
    if (t->strip > e->options.chunk) t->strip = e->options.chunk;
    t->runs = nas_arena_alloc(ctx, e->arena, (size_t)t->n_runs, sizeof *t->runs);
    t->in_at = nas_arena_alloc(ctx, e->arena, (size_t)o.tiles, sizeof *t->in_at);
    t->out_at =
        nas_arena_alloc(ctx, e->arena, (size_t)o.tiles * NAS__TILE_PIXELS, sizeof *t->out_at);
    if (t->runs == NULL || t->in_at == NULL || t->out_at == NULL) return NAS_ERR_NOMEM;
    for (int32_t r = 0; r < t->n_runs; r++)
        t->runs[r] = step->taps[r * t->run_taps] - step->taps[0];
    place_pixels(in, out, c, &o, t);
    t->weights = e->n_halves;
    e->n_halves += (size_t)t->blocks * (size_t)t->n_runs * (size_t)t->steps * NAS__TILE_WEIGHTS;
    const size_t room = nas__exec_tiles_room(t, in->image);
    if (room > e->strip_values) e->strip_values = room;
    step->tiles = t;
    return NAS_OK;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

/* To the nearest, ties to even, as the instructions do; nothing here is a NaN that must stay one. */
static nas__bf16 rounded(float x) {
    uint32_t bits = 0;
    memcpy(&bits, &x, sizeof bits);
    return (nas__bf16)((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

void nas__exec_tiles_pack(const nas_exec *e, const nas__exec_step *s) {
    const nas__exec_tiles *t = s->tiles;
    const nas_node *node = nas_graph_node(e->graph, s->node);
    const float *weight = nas_graph_param_const(e->graph, node->params[0])->data;
    const int32_t cs = nas__exec_root(e, node->inputs[0])->cs, depth = t->steps * NAS__TILE_DEPTH;
    nas__bf16 *to = e->halves + t->weights;
    for (int32_t block = 0; block < t->blocks; block++) {
        for (int32_t i = 0; i < t->n_runs * depth * NAS__TILE_OUTPUTS; i++) {
            const int32_t run = i / (depth * NAS__TILE_OUTPUTS);
            const int32_t pair = i / (2 * NAS__TILE_OUTPUTS) % (depth / 2);
            const int32_t o = block * NAS__TILE_OUTPUTS + i / 2 % NAS__TILE_OUTPUTS;
            const int32_t k = 2 * pair + i % 2, tap = k / cs, channel = k % cs;
            const bool inside = o < s->group_out && tap < t->run_taps && channel < s->group_in;
            const ptrdiff_t filter = (ptrdiff_t)o * s->n_taps + run * t->run_taps + tap;
            *to++ = inside ? rounded(weight[filter * s->group_in + channel]) : 0;
        }
    }
}

/* ---- running ------------------------------------------------------------------------------------------------------ */

void nas__exec_tiles_conv(const nas_exec *e, const nas__exec_step *s, float *space, int32_t n) {
    const nas_node *node = nas_graph_node(e->graph, s->node);
    const nas__exec_value *in = nas__exec_root(e, node->inputs[0]);
    const nas__exec_value *out = nas__exec_root(e, s->node);
    const nas__exec_tiles_job job = {.plan = s->tiles,
                                     .in = space + e->slot_at[in->slot],
                                     .out = nas__exec_at(e, space, s->node),
                                     .in_image = in->image,
                                     .out_image = out->image,
                                     .images = n,
                                     .outputs = s->vectors * NAS__EXEC_LANES,
                                     .weights = e->halves + s->tiles->weights,
                                     .bias = e->packed + s->bias,
                                     .lo = s->lo,
                                     .hi = s->hi,
                                     .strip = (nas__bf16 *)(void *)(space + e->strip_at)};
    nas__exec_tiles_run(&job);
}
