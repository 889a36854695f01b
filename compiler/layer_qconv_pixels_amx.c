/* layer_qconv_pixels_amx.c - integer convolutions of values in planes on the tile registers of x86.
 *
 * A row of a plane holds words of four channels of pixels side by side, which is what a tile register takes as its second
 * operand: 16 pixels, and a row for every word of a sum. So weights are the first operand, 16 outputs of up to 64 bytes, and
 * a product adds [16 outputs][16 pixels]. Planes of the rows of a kernel follow each other at one distance; a step of a sum
 * has up to 16 of them at one column of the kernel. A load takes 8 cycles where the column is a multiple of 16 pixels and about
 * 37 elsewhere, as all of its rows lie in two lines of the cache; still few products suffice to pay for it. */
#include "compiler/layer_qconv_internal.h"

#include <string.h>

enum {
    LANES = NAS__Q_PIXEL_LANES,
    GROUP = NAS__Q_PIXEL_GROUP,
    ROWS = 16, /* of a tile register */
    LINE = 64, /* bytes of one */
    REGISTERS = 8,
    BLOCK = 4,        /* tile registers of sums */
    PRODUCTS_MAX = 48 /* of a block, in the text */
};

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* ---- geometry ----------------------------------------------------------------------------------------------------- */

bool nas__q_plane_tiles_legal(const nas_target *target, const nas__qconv *q) {
    const nas__conv *c = &q->conv;
    const nas__q_steps s = nas__q_steps_of(q);
    if (nas__matrix_of(target) != NAS__DOT_AMX || q->out_plane == 0 || q->absent != NULL)
        return false;
    if (c->kernel_h > 1 && s.groups > 1 &&
        (size_t)c->dilation_h * s.row != (size_t)s.groups * s.plane)
        return false; /* rows of words at several distances */
    const nas__q_plane_tiles t = nas__q_plane_tiles_of(q);
    return t.steps * t.block <= PRODUCTS_MAX;
}

nas__q_plane_tiles nas__q_plane_tiles_of(const nas__qconv *q) {
    const nas__conv *c = &q->conv;
    const nas__q_steps s = nas__q_steps_of(q);
    const int32_t words = c->kernel_h * s.groups, all = ceil_div(c->out_c, ROWS);
    nas__q_plane_tiles t = {.rows = min_i32(words, ROWS),
                            .apart = s.groups > 1 ? s.plane : (size_t)c->dilation_h * s.row,
                            .blocks = ceil_div(all, BLOCK)};
    while (words % t.rows != 0)
        t.rows--;
    t.chunks = words / t.rows;
    t.steps = t.chunks * s.columns;
    t.block = ceil_div(all, t.blocks);
    t.outputs = min_i32(c->out_c, ROWS);
    t.held = t.block + t.block * t.steps < REGISTERS;
    t.heads = ceil_div(c->out_c, GROUP) * GROUP * 4 * NAS__Q_PIXEL_HEAD;
    t.tile = t.outputs * LINE;
    t.sums_at = nas__q_pixels_scratch(q);
    return t;
}

int32_t nas__q_plane_tiles_in(const nas__qconv *q, const nas__q_plane_tiles *t, int32_t block) {
    return min_i32(t->block, ceil_div(q->conv.out_c, ROWS) - block * t->block);
}

size_t nas__q_plane_tiles_block(const nas__q_plane_tiles *t) {
    return (size_t)(t->block * (1 + t->steps)) * (size_t)t->tile;
}

size_t nas__q_plane_tiles_weights(const nas__qconv *q) {
    const nas__q_plane_tiles t = nas__q_plane_tiles_of(q);
    return (size_t)t.heads +
           (size_t)(ceil_div(q->conv.out_c, ROWS) * (1 + t.steps)) * (size_t)t.tile;
}

size_t nas__q_plane_tiles_scratch(const nas__qconv *q) {
    const nas__q_plane_tiles t = nas__q_plane_tiles_of(q);
    return t.sums_at + 2 * (size_t)t.block * ROWS * LINE;
}

/* ---- estimate ----------------------------------------------------------------------------------------------------- */

/* Of 16 pixels, timed in parts (Granite Rapids); codes as on vectors. */
double nas__q_plane_tiles_cycles(const nas__qconv *q) {
    const nas__conv *c = &q->conv;
    const nas__q_steps s = nas__q_steps_of(q);
    const nas__q_plane_tiles t = nas__q_plane_tiles_of(q);
    double loads = 0;
    for (int32_t x = 0; x < s.columns; x++)
        loads += t.chunks * t.rows * (x * s.apart % LANES == 0 ? 0.5 : 2.3);
    double cycles = 0;
    for (int32_t b = 0; b < t.blocks; b++) {
        const int32_t n = nas__q_plane_tiles_in(q, &t, b),
                      outputs = min_i32(c->out_c - b * t.block * ROWS, n * ROWS);
        const double products = n * t.steps * (t.outputs < ROWS ? t.outputs + 2.0 : ROWS);
        const double moved = loads + 8.0 * n * (t.held ? 0 : t.steps) + 24.0 * n;
        const double multiply = (products > moved ? products : moved) + 0.2 * moved,
                     codes = (0.5 * nas__q_pixels_finish(q) + 0.2) * outputs;
        cycles += multiply + codes + 10; /* one after the other (timed) */
    }
    return cycles * ceil_div(c->out_w, LANES) * c->out_h;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

/* Where the weight of input i and tap (y, x) lies among the tiles of an output: its step, and the byte in its row. */
static void place_of(const nas__q_steps *s, const nas__q_plane_tiles *t, int32_t y, int32_t x,
                     int32_t i, int32_t *step, int32_t *byte) {
    const int32_t group = s->staged ? 0 : i / GROUP, column = s->staged ? x / GROUP : x;
    const int32_t word = y * s->groups + group;
    *step = column * t->chunks + word / t->rows;
    *byte = word % t->rows * GROUP + (s->staged ? x : i) % GROUP;
}

/* Heads of four outputs each as in blocks of vectors; then [block]: biases in every lane, [step][16 outputs][64]. */
void nas__q_plane_tiles_pack(const nas__qconv *q, const nas__qconv_data *data, uint8_t *out) {
    const nas__conv *c = &q->conv;
    const nas__q_steps s = nas__q_steps_of(q);
    const nas__q_plane_tiles t = nas__q_plane_tiles_of(q);
    const int32_t taps = c->kernel_h * c->kernel_w;
    for (int32_t first = 0; first < c->out_c; first += GROUP)
        nas__q_pixels_pack_head(q, data, first, min_i32(GROUP, c->out_c - first),
                                out + first * 4 * NAS__Q_PIXEL_HEAD);
    for (int32_t o = 0; o < c->out_c; o++) {
        const int8_t *w = data->weight + (size_t)o * (size_t)(taps * c->in_c);
        const int32_t block = o / (t.block * ROWS), in_block = o % (t.block * ROWS),
                      n = nas__q_plane_tiles_in(q, &t, block);
        uint8_t *tiles = out + t.heads + (size_t)block * nas__q_plane_tiles_block(&t),
                *row = tiles + in_block / ROWS * t.tile + in_block % ROWS * LINE;
        int64_t sum = 0;
        for (int32_t i = 0; i < taps * c->in_c; i++) {
            const int32_t tap = i / c->in_c;
            int32_t step = 0, byte = 0;
            place_of(&s, &t, tap / c->kernel_w, tap % c->kernel_w, i % c->in_c, &step, &byte);
            sum += w[i];
            row[(size_t)((1 + step) * n * t.tile + byte)] = (uint8_t)w[i];
        }
        const int32_t bias = (int32_t)(data->bias[o] - data->zero_in * sum);
        for (int32_t lane = 0; lane < LANES; lane++)
            memcpy(row + 4 * lane, &bias, sizeof bias);
    }
}
