/* layer_qconv_pixels_amx_emit.c - text of the integer convolutions of values in planes on tile registers.
 *
 * Sums of 16 pixels go through memory to the vectors that make codes of them while the next ones are added: there are two
 * buffers. Weights stay in registers where they all fit beside the sums. */
#include "compiler/layer_qconv_internal.h"
#include "compiler/tile_registers.h"

enum {
    LANES = NAS__Q_PIXEL_LANES,
    GROUP = NAS__Q_PIXEL_GROUP,
    ROWS = 16,
    LINE = 64,
    REGISTERS = NAS__TILE_REGISTERS
};

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

typedef struct planes {
    const nas__qconv *q;
    nas__q_steps s;
    nas__q_plane_tiles t;
    const char *name;
} planes;

/* ---- registers ---------------------------------------------------------------------------------------------------- */

/* Sums, then weights, then pixels; weights that do not stay take turns in all but the last register. */
static int32_t weights_register(const planes *d, int32_t n, int32_t step, int32_t j) {
    const int32_t k = step * n + j;
    return d->t.block + (d->t.held ? k : k % (REGISTERS - 1 - d->t.block));
}

static int32_t pixels_register(const planes *d, int32_t step) {
    const int32_t first = d->t.held ? d->t.block * (1 + d->t.steps) : REGISTERS - 1;
    return first + step % (REGISTERS - first);
}

static void emit_config(const planes *d, nas_buf *out) {
    const int32_t first = pixels_register(d, 0);
    uint8_t rows[REGISTERS], bytes[REGISTERS];
    for (int32_t t = 0; t < REGISTERS; t++) {
        const bool sums = t < d->t.block, pixels = t >= first;
        bytes[t] = (uint8_t)(sums || pixels ? LINE : d->t.rows * GROUP);
        rows[t] = (uint8_t)(pixels ? d->t.rows : d->t.outputs);
    }
    nas__tiles_config(d->name, rows, bytes, out);
}

/* ---- codes -------------------------------------------------------------------------------------------------------- */

static void emit_group(const planes *d, int32_t outputs, int32_t pixels, nas_buf *out) {
    for (int32_t k = 0; k < outputs; k++)
        nas_buf_printf(out, "    const vi a%d_0 = q_i32(sums + %d);\n", k, LINE * k);
    nas__q_pixels_codes_emit(d->q, outputs, pixels, out);
}

/* The codes of `pixels` pixels by `outputs` outputs. */
static void emit_codes(const planes *d, int32_t outputs, int32_t pixels, nas_buf *out) {
    const nas__qconv *q = d->q;
    const bool residual = q->conv.has_residual;
    const int32_t whole = outputs / GROUP;
    nas_buf_printf(out,
                   "/* %d pixels, %d channels */\n"
                   "TILE void %s_codes_%d_%d(const unsigned char *sums, unsigned char *restrict "
                   "out,%s const unsigned char *w, const int *h) {\n",
                   pixels, outputs, d->name, pixels, outputs,
                   residual ? " const unsigned char *residual," : "");
    nas__q_pixels_constants_emit(q, out);
    if (whole > 0) {
        nas_buf_printf(out, "    for (int g = 0; g < %d; g++, sums += %d, w += %d, out += %zu",
                       whole, GROUP * LINE, GROUP * 4 * NAS__Q_PIXEL_HEAD, q->out_plane);
        if (residual) nas_buf_printf(out, ", residual += %zu", q->residual_plane);
        nas_buf_puts(out, ") {\n");
        emit_group(d, GROUP, pixels, out);
        nas_buf_puts(out, "    }\n");
    }
    if (outputs % GROUP > 0) {
        nas_buf_puts(out, "    {\n");
        emit_group(d, outputs % GROUP, pixels, out);
        nas_buf_puts(out, "    }\n");
    }
    nas_buf_puts(out, "}\n");
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

static void emit_weights(const planes *d, int32_t n, int32_t step, int32_t j, nas_buf *out) {
    nas_buf_printf(out, "            _tile_loadd(%d, w + %d, 64);\n",
                   weights_register(d, n, step, j), ((1 + step) * n + j) * d->t.tile);
}

/* The sums of 16 pixels at `i` into `sums`, of n tiles of outputs. */
static void emit_sums(const planes *d, int32_t n, nas_buf *out) {
    const nas__q_plane_tiles *t = &d->t;
    for (int32_t j = 0; j < n; j++)
        nas_buf_printf(out, "            _tile_loadd(%d, w + %d, 64);\n", j, j * t->tile);
    for (int32_t step = 0; step < t->steps; step++) {
        const int32_t column = step / t->chunks, chunk = step % t->chunks;
        nas_buf_printf(
            out, "            _tile_loadd(%d, i + %zu, %zu);\n", pixels_register(d, step),
            (size_t)(GROUP * column * d->s.apart) + (size_t)(chunk * t->rows) * t->apart, t->apart);
        for (int32_t j = 0; j < n; j++) {
            if (!t->held) emit_weights(d, n, step, j, out);
            nas_buf_printf(out, "            _tile_dpb%sd(%d, %d, %d);\n",
                           d->q->in_signed ? "ss" : "su", j, weights_register(d, n, step, j),
                           pixels_register(d, step));
        }
    }
}

static void emit_stores(int32_t n, nas_buf *out) {
    for (int32_t j = 0; j < n; j++)
        nas_buf_printf(out, "            _tile_stored(%d, to + %d, 64);\n", j, j * ROWS * LINE);
}

/* The codes of 16 pixels one tile back, or of the last ones. */
static void emit_codes_call(const planes *d, int32_t pixels, int32_t outputs, nas_buf *out) {
    nas_buf_printf(out, "%s_codes_%d_%d(sums + (x - 1) %% 2 * %d, o + (x - 1) * %d,", d->name,
                   pixels, outputs, d->t.block * ROWS * LINE, LANES * GROUP);
    if (d->q->conv.has_residual) nas_buf_printf(out, " r + (x - 1) * %d,", LANES * GROUP);
    nas_buf_puts(out, " head, h);\n");
}

/* A block of outputs of the row at `s`. */
static void emit_block(const planes *d, int32_t n, int32_t outputs, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t tiles = (c->out_w + LANES - 1) / LANES, last = (c->out_w - 1) % LANES + 1;
    for (int32_t step = 0; d->t.held && step < d->t.steps; step++) {
        for (int32_t j = 0; j < n; j++)
            emit_weights(d, n, step, j, out);
    }
    nas_buf_printf(out,
                   "            const unsigned char *i = s;\n"
                   "            long x = 0;\n"
                   "            for (; x < %d; x++, i += %d) {\n"
                   "            unsigned char *const to = sums + x %% 2 * %d;\n"
                   "            q_fence();\n",
                   tiles, LANES * GROUP, d->t.block * ROWS * LINE);
    emit_sums(d, n, out);
    if (n == 1) emit_stores(n, out); /* more of them wait less behind codes (timed) */
    if (tiles > 1) {
        nas_buf_puts(out, "            if (x > 0) ");
        emit_codes_call(d, LANES, outputs, out);
    }
    if (n > 1) emit_stores(n, out);
    nas_buf_puts(out, "            }\n            ");
    emit_codes_call(d, last, outputs, out);
}

/* ---- kernels ------------------------------------------------------------------------------------------------------ */

static int32_t outputs_of(const planes *d, int32_t block) {
    return min_i32(d->q->conv.out_c - block * d->t.block * ROWS, d->t.block * ROWS);
}

static void emit_blocks(const planes *d, nas_buf *out) {
    const nas__qconv *q = d->q;
    const bool residual = q->conv.has_residual;
    const int32_t outputs = d->t.block * ROWS;
    nas_buf_printf(out, "        unsigned char *const row = (unsigned char *)out + u * %zu;\n",
                   q->conv.out_row);
    if (residual)
        nas_buf_printf(
            out,
            "        const unsigned char *const beside = (const unsigned char *)residual "
            "+ u * %zu;\n",
            q->conv.residual_row);
    for (int32_t b = 0; b < d->t.blocks; b++) {
        nas_buf_printf(
            out,
            "        {\n"
            "            unsigned char *const o = row + %zu;\n"
            "            const unsigned char *const w = heads + %zu, *const head = heads "
            "+ %d;\n",
            (size_t)(b * outputs / GROUP) * q->out_plane,
            (size_t)d->t.heads + (size_t)b * nas__q_plane_tiles_block(&d->t),
            b * outputs * 4 * NAS__Q_PIXEL_HEAD);
        if (residual)
            nas_buf_printf(out, "            const unsigned char *const r = beside + %zu;\n",
                           (size_t)(b * outputs / GROUP) * q->residual_plane);
        emit_block(d, nas__q_plane_tiles_in(q, &d->t, b), outputs_of(d, b), out);
        nas_buf_puts(out, "        }\n");
    }
}

static void emit_all_codes(const planes *d, nas_buf *out) {
    const nas__conv *c = &d->q->conv;
    const int32_t last = (c->out_w - 1) % LANES + 1;
    for (int32_t k = 0; k < 2; k++) { /* whole blocks, then the last one where it is not */
        const int32_t b = k == 0 ? 0 : d->t.blocks - 1, outputs = outputs_of(d, b);
        if (k == 1 && outputs == outputs_of(d, 0)) continue;
        if (c->out_w > LANES) emit_codes(d, outputs, LANES, out);
        if (c->out_w <= LANES || last < LANES) emit_codes(d, outputs, last, out);
    }
}

void nas__q_plane_tiles_emit(const nas__qconv *q, const char *name, nas_buf *out) {
    const planes d = {.q = q, .s = nas__q_steps_of(q), .t = nas__q_plane_tiles_of(q), .name = name};
    emit_all_codes(&d, out);
    emit_config(&d, out);
    if (d.s.staged) nas__q_pixels_stage_emit(q, false, name, out);
    nas__q_emit_head(q, name, out);
    nas_buf_printf(out,
                   "    const unsigned char *const heads = (const unsigned char *)weights + %d;\n"
                   "    unsigned char *const sums = (unsigned char *)scratch + %zu;\n"
                   "    _tile_loadconfig(%s_tiles);\n",
                   4 * NAS__Q_HEAD, d.t.sums_at, name);
    nas__q_pixels_rows_emit(q, name, out);
    emit_blocks(&d, out);
    nas_buf_puts(out, "    }\n    _tile_release();\n}\n\n");
}
