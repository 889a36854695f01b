/* layer_qconv.c - the ways to compute an integer convolution, their estimates, sizes and names. */
#include "compiler/layer_qconv_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

static int32_t min_i32(int32_t a, int32_t b) {
    return a < b ? a : b;
}

static bool needs(const nas_target *target, const char *feature) {
    const size_t len = strlen(feature);
    for (const char *p = target->needs; p != NULL && *p != '\0';) {
        const size_t n = strcspn(p, ",");
        if (n == len && memcmp(p, feature, n) == 0) return true;
        p += n + (p[n] == ',');
    }
    return false;
}

nas__dot nas__dot_of(const nas_target *target) {
    if (needs(target, "avx512vnni") && target->vector_bytes == 64) return NAS__DOT_VNNI;
    if (needs(target, "avx512bw") && target->vector_bytes == 64) return NAS__DOT_PAIR;
    if (needs(target, "avx2") && target->vector_bytes == 32) return NAS__DOT_PAIR;
    if (needs(target, "asimddp") && target->vector_bytes == 16) return NAS__DOT_NEON;
    return NAS__DOT_PLAIN;
}

nas__dot nas__matrix_of(const nas_target *target) {
    const nas__dot dot = nas__dot_of(target);
    if (dot == NAS__DOT_NEON && needs(target, "i8mm")) return NAS__DOT_MMLA;
    return dot == NAS__DOT_VNNI && needs(target, "amx_int8") ? NAS__DOT_AMX : dot;
}

bool nas__qconv_looks(const nas_target *target) {
    const nas__dot dot = nas__dot_of(target);
    return dot == NAS__DOT_VNNI || (dot == NAS__DOT_PAIR && target->vector_bytes == 32);
}

bool nas__q_is_single(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    if (!q->single || q->out_plane > 0 || !nas__qconv_looks(target)) return false;
    return nas__q_deals_outputs(target, way) || way->batch > 0 ||
           (way->algorithm == NAS__QCONV_DEPTHWISE && nas__q_deals(way));
}

bool nas__q_is_open(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    return nas__q_is_single(target, q, way) && way->batch == 0 && q->open_low && q->open_high;
}

bool nas__q_joins_words(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    return q->joins && q->dots > 0 && target->vector_bytes == 64 &&
           nas__q_deals_outputs(target, way) && nas__q_is_single(target, q, way);
}

int32_t nas__dots_a_cycle(const nas_target *target) {
    return target->vector_bytes == 64 && !target->splits_vectors ? 2 : 1;
}

int32_t nas__dot_group(nas__dot dot) {
    switch (dot) {
    case NAS__DOT_PLAIN: return 1;
    case NAS__DOT_PAIR: return 2;
    case NAS__DOT_BYTES:
    case NAS__DOT_VNNI:
    case NAS__DOT_NEON:
    case NAS__DOT_AMX: return 4;
    case NAS__DOT_MMLA: return 8;
    }
    return 1;
}

/* ---- geometry ---------------------------------------------------------------------------------------------------- */

int32_t nas__q_staged_rows(const nas__qconv *q, int32_t rows) {
    const nas__conv *c = &q->conv;
    if (c->kernel_h == 1) return rows;
    return (rows - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1;
}

bool nas__qconv_exponents(const nas__qconv *q, const nas__qconv_way *way) {
    return q->powers && q->weight_bits > 4 && way->stored_bits == 4;
}

static int32_t split_of(const nas__qconv_way *way) {
    return way->split > 1 ? way->split : 1;
}

nas__dot nas__q_dot(const nas_target *target, const nas__qconv_way *way) {
    return way->sums16 > 0 ? NAS__DOT_BYTES : nas__dot_of(target);
}

nas__q_stage nas__q_stage_of(const nas_target *target, const nas__qconv *q,
                             const nas__qconv_way *way, int32_t band_rows) {
    const nas__conv *c = &q->conv;
    const nas__dot dot = nas__q_dot(target, way);
    nas__q_stage s = {.element = dot == NAS__DOT_PLAIN || dot == NAS__DOT_PAIR ? 2 : 1,
                      .group = nas__dot_group(dot) * split_of(way),
                      .joined = c->groups == 1 && c->dilation_w == 1,
                      .step_h = 1,
                      .step_w = 1,
                      .stride_h = c->stride_h,
                      .stride_w = c->stride_w};
    s.channels = c->in_c / c->groups;
    if (!s.joined) s.channels = ceil_div(s.channels, s.group) * s.group;
    s.steps = s.joined ? ceil_div(c->kernel_w * s.channels, s.group)
                       : c->kernel_w * (s.channels / s.group);
    s.pixel = s.channels * c->groups;
    if (c->kernel_h == 1) {
        s.step_h = c->stride_h;
        s.stride_h = 1;
    }
    if (c->kernel_w == 1) {
        s.step_w = c->stride_w;
        s.stride_w = 1;
    }
    s.columns = (c->out_w - 1) * s.stride_w + (c->kernel_w - 1) * c->dilation_w + 1;
    s.row = s.columns * s.pixel;
    s.rows_of_band = nas__q_staged_rows(q, band_rows);
    return s;
}

bool nas__q_unstaged(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    const int32_t group = nas__dot_group(NAS__DOT_VNNI) * split_of(way);
    return way->algorithm == NAS__QCONV_DIRECT && nas__q_dot(target, way) == NAS__DOT_VNNI &&
           !q->in_signed && c->groups == 1 && c->kernel_h == 1 && c->kernel_w == 1 &&
           c->in_c % group == 0;
}

bool nas__q_by_blocks(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    enum { MANY_WEIGHTS = 64 * 1024 };
    return nas__q_unstaged(target, q, way) && q->conv.in_c * q->conv.out_c >= MANY_WEIGHTS;
}

static int32_t steps_of(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    return q->conv.kernel_h * nas__q_stage_of(target, q, way, 1).steps;
}

int32_t nas__q_heads(const nas__qconv_way *way, int32_t vectors) {
    return ceil_div(vectors, split_of(way));
}

int32_t nas__q_step_bytes(const nas_target *target, const nas__qconv_way *way, int32_t vectors) {
    const int32_t elements = target->vector_bytes / 4 * nas__dot_group(nas__q_dot(target, way));
    if (way->stored_bits < 8) return ceil_div(vectors, 8 / way->stored_bits) * elements;
    return vectors * elements * (way->stored_bits / 8);
}

size_t nas__q_block_bytes(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                          int32_t vectors) {
    if (way->algorithm == NAS__QCONV_MATRIX) {
        const nas__q_matrix m = nas__q_matrix_of(target, q, way);
        return (size_t)(nas__q_head_vectors(target, q, way) * vectors * target->vector_bytes) +
               (size_t)m.steps * (size_t)nas__q_matrix_step(target, &m, way, vectors);
    }
    return (size_t)(nas__q_head_vectors(target, q, way) * nas__q_heads(way, vectors) *
                    target->vector_bytes) +
           (size_t)steps_of(target, q, way) * (size_t)nas__q_step_bytes(target, way, vectors);
}

/* ---- estimates --------------------------------------------------------------------------------------------------- */

static const double l2_bytes_cycle = 32, far_bytes_cycle = 10, call_cycles = 16;

static nas__q_blocks blocks_of(int32_t lanes, const nas__conv *c, int32_t vectors) {
    nas__q_blocks b = {.lanes = lanes, .vectors = vectors};
    b.in_c = c->in_c / c->groups;
    b.out_c = c->out_c / c->groups;
    b.count = (b.out_c + vectors * b.lanes - 1) / (vectors * b.lanes);
    const int32_t rest = b.out_c - (b.count - 1) * vectors * b.lanes;
    b.last_vectors = (rest + b.lanes - 1) / b.lanes;
    b.last_lanes = rest - (b.last_vectors - 1) * b.lanes;
    return b;
}

nas__q_blocks nas__q_block(const nas_target *target, const nas__conv *c, int32_t vectors) {
    return blocks_of(target->vector_bytes / 4, c, vectors);
}

nas__q_blocks nas__q_block_of(const nas_target *target, const nas__conv *c,
                              const nas__qconv_way *way) {
    return blocks_of(target->vector_bytes / 4 / split_of(way), c, way->vectors);
}

/* Of one vector of sums. AVX2: timed; NEON and AVX-512: as llvm-mca sees the loops for Neoverse N2 and Sapphire Rapids. */
double nas__q_finish_cycles(const nas_target *target, const nas__qconv *q) {
    const nas__dot dot = nas__dot_of(target);
    const double alone = dot == NAS__DOT_NEON ? 2.5 : target->vector_bytes == 64 ? 7.5 : 4;
    return alone + (q->conv.has_residual ? 2 : 0);
}

/* Of one vector of sums that floats scale, timed (Zen 3). */
static double single_cycles(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way) {
    return (nas__q_is_open(target, q, way) ? 2.5 : 2.9) + (q->conv.has_residual ? 2 : 0);
}

/* Of all vectors of one pixel. Long vectors (timed, Zen 4): four are packed together for less than two, or than one. */
static double finish_cycles(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way, int32_t heads) {
    if (nas__q_is_single(target, q, way)) return single_cycles(target, q, way) * heads;
    if (target->vector_bytes < 64 || !nas__q_deals_outputs(target, way))
        return nas__q_finish_cycles(target, q) * heads;
    const int32_t four = way->split > 1 ? 0 : heads / 4 * 4;
    const int32_t two = way->split > 1 ? 0 : (heads - four) / 2 * 2;
    return 4.5 * four + 5 * two + 5.5 * (heads - four - two) +
           (q->conv.has_residual ? 4 : 0) * heads;
}

/* Instructions of one vector product, four issued a cycle; of one output vector; two loads a cycle. */
static double direct_cycles(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    const nas__dot dot = nas__dot_of(target);
    const nas__conv_tiling t = nas__conv_tile(c, way->pixels);
    const nas__q_blocks b = nas__q_block_of(target, c, way);
    const nas__q_stage s = nas__q_stage_of(target, q, way, t.rows);
    const double widen = way->stored_bits == 16                          ? 0
                         : nas__qconv_exponents(q, way)                  ? 1.5
                         : way->stored_bits < 8                          ? 0.75
                         : dot == NAS__DOT_PAIR || dot == NAS__DOT_PLAIN ? 0.25
                                                                         : 0;
    const double steps = steps_of(target, q, way);
    double cycles = 0;
    for (int32_t narrow = 0; narrow < 2; narrow++) {
        const int32_t pixels = t.rows * (t.columns - narrow), n = narrow ? t.narrow : t.wide;
        for (int32_t last = 0; last < 2; last++) {
            const int32_t vectors = last ? b.last_vectors : b.vectors;
            const double product = way->sums16 == 0 ? 0.5 : 0.5 + 0.5 / way->sums16;
            const double products = pixels * vectors * product + vectors * widen;
            const double loads = (pixels + vectors) / 2.0;
            double step = products > loads ? products : loads;
            step += 0.1 * loads; /* broadcasts compete with the products, if little */
            if (step < 1) step = 1;
            /* sdot by element: cores in order wait when no register is left to load ahead */
            if (dot == NAS__DOT_NEON &&
                pixels * vectors + min_i32(pixels, 2 * vectors) + 2 >= target->vector_registers)
                step *= 1.05;
            const double bytes = nas__q_step_bytes(target, way, vectors);
            if (bytes * steps > 0.5 * target->l1_bytes) step += 0.25 * bytes / l2_bytes_cycle;
            cycles += (double)t.bands * n * (last ? 1 : b.count - 1) *
                      (steps * step + call_cycles +
                       pixels * (finish_cycles(target, q, way, nas__q_heads(way, vectors)) +
                                 (way->split > 1 ? 2.0 * vectors : 0)));
        }
    }
    cycles *= c->groups;
    const double weights = steps * nas__q_step_bytes(target, way, b.vectors) * b.count * c->groups;
    const int32_t times = nas__q_by_blocks(target, q, way) ? 1 : t.bands;
    if (weights > 0.5 * target->l2_bytes) cycles += 0.3 * weights * times / far_bytes_cycle;
    if (nas__q_unstaged(target, q, way)) return cycles;
    return cycles + (double)t.bands * s.rows_of_band * s.row / 16.0;
}

/* ---- candidates -------------------------------------------------------------------------------------------------- */

/* {pixels, vectors}: accumulators, weights, one broadcast and one product fit the registers. The last one leaves no room for a
 * product by itself. */
static const int32_t tiles_16[][2] = {{6, 2}, {4, 2}, {12, 1}, {3, 3}, {1, 8}};
static const int32_t tiles_32[][2] = {{12, 2}, {8, 3}, {6, 4}, {24, 1}, {1, 12}, {14, 2}};
enum { TILES = 5 };

static int by_cycles(const void *a, const void *b) {
    const nas__qconv_way *x = a, *y = b;
    if (x->cycles != y->cycles) return x->cycles < y->cycles ? -1 : 1;
    if (x->stored_bits != y->stored_bits) return x->stored_bits < y->stored_bits ? -1 : 1;
    return x->pixels != y->pixels ? (x->pixels < y->pixels ? 1 : -1) : y->vectors - x->vectors;
}

static bool listed(const nas__qconv_way *list, int32_t n, const nas__qconv_way *way) {
    for (int32_t i = 0; i < n; i++) {
        if (list[i].algorithm == way->algorithm && list[i].pixels == way->pixels &&
            list[i].vectors == way->vectors && list[i].stored_bits == way->stored_bits &&
            list[i].split == way->split && list[i].sums16 == way->sums16 &&
            list[i].batch == way->batch && list[i].group == way->group)
            return true;
    }
    return false;
}

/* Few outputs do not fill their last vector: half as many in each, two sums for each of them. */
static int32_t add_split(const nas_target *target, const nas__qconv *q,
                         nas__qconv_way out[NAS__QCONV_WAYS_MAX], int32_t n) {
    const nas__dot dot = nas__dot_of(target);
    const int32_t lanes = target->vector_bytes / 4 / 2, outputs = q->conv.out_c;
    const int32_t vectors = ceil_div(outputs, lanes);
    if ((dot != NAS__DOT_PAIR && dot != NAS__DOT_VNNI) || q->conv.groups > 1 || vectors > 3 ||
        vectors % 2 == 0)
        return n;
    const int32_t sums = target->vector_registers >= 32 ? 24 : vectors == 3 ? 9 : 12;
    const nas__conv_tiling t = nas__conv_tile(&q->conv, sums / vectors);
    nas__qconv_way way = {.algorithm = NAS__QCONV_DIRECT,
                          .pixels = t.rows * t.columns,
                          .vectors = vectors,
                          .stored_bits = dot == NAS__DOT_PAIR ? 16 : 8,
                          .split = 2};
    way.cycles = direct_cycles(target, q, &way);
    out[n++] = way;
    return n;
}

/* Four vectors of 2-bit weights fill the bytes they share. */
static int32_t add_quarters(const nas_target *target, const nas__qconv *q, int32_t most,
                            nas__qconv_way out[NAS__QCONV_WAYS_MAX], int32_t n) {
    if (q->weight_bits != 2) return n;
    const nas__conv_tiling t = nas__conv_tile(&q->conv, target->vector_registers >= 32 ? 6 : 2);
    nas__qconv_way way = {.algorithm = NAS__QCONV_DIRECT,
                          .pixels = t.rows * t.columns,
                          .vectors = min_i32(4, most),
                          .stored_bits = 2};
    way.cycles = direct_cycles(target, q, &way);
    if (!listed(out, n, &way)) out[n++] = way;
    return n;
}

/* Products of bytes where so few bits of weights cannot exceed 16: pairs of them, then sums of pairs. */
static int32_t add_sums16(const nas_target *target, const nas__qconv *q, int32_t most,
                          nas__qconv_way out[NAS__QCONV_WAYS_MAX], int32_t n) {
    const int32_t weight_max = (1 << (q->weight_bits - 1)) - 1;
    const int32_t sums = INT16_MAX / (2 * 255 * weight_max);
    if (nas__dot_of(target) != NAS__DOT_PAIR || target->vector_bytes != 32 || sums == 0) return n;
    const int32_t vectors = min_i32(2, most);
    /* more than one: the wide sums wait in memory */
    const int32_t pixels = sums < 4 ? 5 : 6;
    const nas__conv_tiling t = nas__conv_tile(&q->conv, vectors == 1 ? 2 * pixels : pixels);
    nas__qconv_way way = {.algorithm = NAS__QCONV_DIRECT,
                          .pixels = t.rows * t.columns,
                          .vectors = vectors,
                          .stored_bits = 8,
                          .sums16 = sums < 4 ? 1 : sums};
    way.cycles = direct_cycles(target, q, &way);
    out[n++] = way;
    return n;
}

static int32_t add_winograd(const nas_target *target, const nas__qconv *q, int32_t most,
                            nas__qconv_way out[NAS__QCONV_WAYS_MAX], int32_t n) {
    static const int32_t batches[] = {12, 24, 48};
    const bool many = target->vector_registers >= 32;
    for (int32_t k = 0; k < 6; k++) {
        const int32_t vectors = min_i32(2, most);
        nas__qconv_way way = {.algorithm = k < 3 ? NAS__QCONV_WINOGRAD_4 : NAS__QCONV_WINOGRAD_2,
                              .pixels = vectors == 1 || many ? 12 : 6,
                              .vectors = vectors,
                              .stored_bits = 16,
                              .batch = batches[k % 3]};
        way.cycles = nas__qconv_winograd_cycles(target, q, &way);
        if (n < NAS__QCONV_WAYS_MAX && !listed(out, n, &way)) out[n++] = way;
    }
    return n;
}

int32_t nas__qconv_ways(const nas_target *target, const nas__qconv *q,
                        nas__qconv_way out[NAS__QCONV_WAYS_MAX]) {
    const nas__conv *c = &q->conv;
    const bool many = target->vector_registers >= 32;
    int32_t n = 0;
    if (q->out_plane > 0) {
        n = nas__q_pixels_ways(target, q, out);
        qsort(out, (size_t)n, sizeof *out, by_cycles);
        return n;
    }
    if (c->groups > 1 && c->groups == c->in_c && c->out_c == c->in_c) {
        n = nas__q_depthwise_ways(target, q, out);
        qsort(out, (size_t)n, sizeof *out, by_cycles);
        return n;
    }
    const int32_t most = ceil_div(c->out_c / c->groups, target->vector_bytes / 4);
    const int32_t least = q->weight_bits == 2 ? 2 : q->weight_bits <= 4 || q->powers ? 4 : 8;
    const int32_t stored[2] = {least, nas__dot_of(target) == NAS__DOT_PAIR ? 16 : 8};
    const int32_t tiles = nas__dot_of(target) == NAS__DOT_VNNI ? TILES + 1 : TILES;
    for (int32_t i = 0; i < tiles; i++) {
        const int32_t *tile = many ? tiles_32[i] : tiles_16[i];
        const nas__conv_tiling t = nas__conv_tile(c, tile[0]);
        for (int32_t k = 0; k < 2; k++) {
            nas__qconv_way way = {.algorithm = NAS__QCONV_DIRECT,
                                  .pixels = t.rows * t.columns,
                                  .vectors = min_i32(tile[1], most),
                                  .stored_bits = stored[k]};
            way.cycles = direct_cycles(target, q, &way);
            if (!listed(out, n, &way)) out[n++] = way;
        }
    }
    n = add_quarters(target, q, most, out, n);
    n = add_split(target, q, out, n);
    n = add_sums16(target, q, most, out, n);
    if (nas__qconv_winograd_legal(target, q)) n = add_winograd(target, q, most, out, n);
    n = nas__q_matrix_ways(target, q, n, out);
    n = nas__q_sparse_ways(target, q, n, out);
    qsort(out, (size_t)n, sizeof *out, by_cycles);
    return n;
}

const char *nas__qconv_algorithm_name(nas__qconv_algorithm algorithm) {
    switch (algorithm) {
    case NAS__QCONV_DIRECT: return "direct";
    case NAS__QCONV_DEPTHWISE: return "depthwise";
    case NAS__QCONV_WINOGRAD_2: return "winograd2";
    case NAS__QCONV_WINOGRAD_4: return "winograd4";
    case NAS__QCONV_MATRIX: return "matrix";
    case NAS__QCONV_SPARSE: return "sparse";
    case NAS__QCONV_SPARSE_PANEL: return "sparse_px";
    case NAS__QCONV_PIXELS: return "pixels";
    case NAS__QCONV_PLANE_TILES: return "plane_tiles";
    }
    return "";
}

bool nas__qconv_same_kind(const nas__qconv_way *a, const nas__qconv_way *b) {
    return a->algorithm == b->algorithm && a->stored_bits == b->stored_bits &&
           a->split == b->split && (a->sums16 > 0) == (b->sums16 > 0);
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

int32_t nas__qconv_units(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    switch (way->algorithm) {
    case NAS__QCONV_SPARSE:
    case NAS__QCONV_DIRECT:
        return nas__conv_tile(c, way->pixels).bands * c->groups *
               nas__q_block_of(target, c, way).count;
    case NAS__QCONV_PIXELS:
    case NAS__QCONV_PLANE_TILES:
    case NAS__QCONV_DEPTHWISE: return c->out_h;
    case NAS__QCONV_WINOGRAD_2:
    case NAS__QCONV_WINOGRAD_4: return nas__qconv_winograd_units(target, q, way);
    case NAS__QCONV_MATRIX:
        return nas__q_matrix_of(target, q, way).strips * c->groups *
               nas__q_block(target, c, way->vectors).count;
    case NAS__QCONV_SPARSE_PANEL: return nas__q_panel_of(target, q, way).tiles;
    }
    return 0;
}

int32_t nas__qconv_rows_of_unit(const nas_target *target, const nas__qconv *q,
                                const nas__qconv_way *way) {
    if (nas__q_by_blocks(target, q, way)) return 0;
    switch (way->algorithm) {
    case NAS__QCONV_SPARSE:
    case NAS__QCONV_DIRECT: return nas__conv_tile(&q->conv, way->pixels).rows;
    case NAS__QCONV_PIXELS:
    case NAS__QCONV_PLANE_TILES:
    case NAS__QCONV_DEPTHWISE: return 1;
    case NAS__QCONV_MATRIX:
    case NAS__QCONV_SPARSE_PANEL:
    case NAS__QCONV_WINOGRAD_2:
    case NAS__QCONV_WINOGRAD_4: break;
    }
    return 0;
}

size_t nas__qconv_scratch_bytes(const nas_target *target, const nas__qconv *q,
                                const nas__qconv_way *way) {
    if (way->algorithm == NAS__QCONV_DEPTHWISE) return 0;
    if (way->algorithm == NAS__QCONV_PIXELS) return nas__q_pixels_scratch(q);
    if (way->algorithm == NAS__QCONV_PLANE_TILES) return nas__q_plane_tiles_scratch(q);
    if (nas__q_unstaged(target, q, way)) return 0;
    if (way->batch > 0) return nas__qconv_winograd_scratch(target, q, way);
    if (way->algorithm == NAS__QCONV_MATRIX) return nas__q_matrix_of(target, q, way).scratch_bytes;
    if (way->algorithm == NAS__QCONV_SPARSE_PANEL)
        return nas__q_panel_of(target, q, way).scratch_bytes;
    const nas__q_stage s =
        nas__q_stage_of(target, q, way, nas__conv_tile(&q->conv, way->pixels).rows);
    return ((size_t)s.rows_of_band * (size_t)s.row + (size_t)s.group) * (size_t)s.element;
}

static size_t round_64(size_t n) {
    return (n + 63) / 64 * 64;
}

size_t nas__qconv_weight_bytes(const nas_target *target, const nas__qconv *q,
                               const nas__qconv_way *way) {
    const nas__conv *c = &q->conv;
    size_t n = 4 * NAS__Q_HEAD;
    switch (way->algorithm) {
    case NAS__QCONV_MATRIX:
    case NAS__QCONV_DIRECT: {
        const nas__q_blocks b = nas__q_block_of(target, c, way);
        n += (size_t)c->groups *
             ((size_t)(b.count - 1) * nas__q_block_bytes(target, q, way, b.vectors) +
              nas__q_block_bytes(target, q, way, b.last_vectors));
        break;
    }
    case NAS__QCONV_DEPTHWISE: n += nas__q_depthwise_weights(target, q, way); break;
    case NAS__QCONV_WINOGRAD_2:
    case NAS__QCONV_WINOGRAD_4: n += nas__qconv_winograd_weights(target, q, way); break;
    case NAS__QCONV_PIXELS: n += nas__q_pixels_weights(q, way); break;
    case NAS__QCONV_PLANE_TILES: n += nas__q_plane_tiles_weights(q); break;
    case NAS__QCONV_SPARSE: return nas__q_lists_of(target, q, way).bytes;
    case NAS__QCONV_SPARSE_PANEL: return nas__q_panel_of(target, q, way).bytes;
    }
    return round_64(n);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

void nas__qconv_name(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                     nas_buf *out) {
    const nas__conv *c = &q->conv;
    char all[512], group[128] = "";
    if (nas__qconv_is_sparse(way)) (void)snprintf(group, sizeof group, "|%d", way->group);
    if (nas__qconv_exponents(q, way)) (void)snprintf(group, sizeof group, "|powers");
    if (q->out_plane > 0 || q->prelu) {
        (void)snprintf(group, sizeof group, "|%zu %zu %zu %d %d %d %d %d %d %d", q->in_plane,
                       q->out_plane, q->residual_plane, (int)q->half, (int)q->single, (int)q->prelu,
                       (int)q->late, (int)q->open_low, (int)q->open_high, q->dots);
    }
    if (nas__q_is_single(target, q, way)) {
        const size_t n = strlen(group);
        (void)snprintf(group + n, sizeof group - n, "|single%s",
                       nas__q_is_open(target, q, way) ? " open" : "");
        if (nas__q_joins_words(target, q, way)) {
            const size_t end = strlen(group);
            (void)snprintf(group + end, sizeof group - end, " %d words", q->dots);
        }
    }
    if (q->absent != NULL) {
        char taps[NAS_SHA256_HEX];
        const size_t n = strlen(group);
        nas_sha256_hex(q->absent, (size_t)(c->out_c * c->kernel_h * c->kernel_w), taps);
        (void)snprintf(group + n, sizeof group - n, "|%.12s", taps);
    }
    const int n = snprintf(
        all, sizeof all,
        "%d %d %d|%d %d %d|%d %d|%d %d %d %d %d %d|%d %d %d|%zu %zu %zu|%d %d %d %d %d|%d %d %d %d "
        "%d %d %d%s",
        target->vector_bytes, target->vector_registers,
        (int)(way->algorithm == NAS__QCONV_MATRIX ? nas__matrix_of(target) : nas__dot_of(target)),
        c->in_c, c->out_c, c->groups, c->out_h, c->out_w, c->kernel_h, c->kernel_w, c->stride_h,
        c->stride_w, c->dilation_h, c->dilation_w, c->in_pitch, c->out_pitch, c->residual_pitch,
        c->in_row, c->out_row, c->residual_row, (int)c->has_residual + (int)q->joins,
        (int)q->in_signed, (int)q->out_signed, (int)(c->has_residual && q->residual_signed),
        (int)q->has_left, (int)way->algorithm, way->pixels, way->vectors, way->stored_bits,
        way->split, way->sums16, way->batch, group);
    char hash[NAS_SHA256_HEX];
    nas_sha256_hex(all, n > 0 ? (size_t)n : 0, hash);
    nas_buf_printf(out, "qconv_%s_w%d_%dx%d_%d_%d_%dx%d_%.12s",
                   nas__qconv_algorithm_name(way->algorithm), way->stored_bits, c->kernel_h,
                   c->kernel_w, c->in_c, c->out_c, c->out_h, c->out_w, hash);
}

void nas__qconv_emit(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                     nas_buf *out) {
    const nas__conv *c = &q->conv;
    nas_buf name = {0};
    nas__qconv_name(target, q, way, &name);
    if (name.failed || name.data == NULL) {
        out->failed = true;
        nas_buf_deinit(&name);
        return;
    }
    nas_buf_printf(
        out,
        "/* 8-bit %s: %d -> %d channels%s, %dx%d taps, stride %d, %dx%d outputs; tile %d x "
        "%d, weights of %d bits */\n",
        nas__qconv_algorithm_name(way->algorithm), c->in_c, c->out_c,
        c->groups > 1 ? " in groups" : "", c->kernel_h, c->kernel_w, c->stride_h, c->out_h,
        c->out_w, way->pixels, way->vectors, way->stored_bits);
    switch (way->algorithm) {
    case NAS__QCONV_SPARSE:
    case NAS__QCONV_DIRECT: nas__qconv_direct_emit(target, q, way, name.data, out); break;
    case NAS__QCONV_DEPTHWISE: nas__qconv_depthwise_emit(target, q, way, name.data, out); break;
    case NAS__QCONV_WINOGRAD_2:
    case NAS__QCONV_WINOGRAD_4: nas__qconv_winograd_emit(target, q, way, name.data, out); break;
    case NAS__QCONV_MATRIX: nas__q_matrix_emit(target, q, way, name.data, out); break;
    case NAS__QCONV_SPARSE_PANEL: nas__q_sparse_emit(target, q, way, name.data, out); break;
    case NAS__QCONV_PIXELS: nas__q_pixels_emit(q, way, name.data, out); break;
    case NAS__QCONV_PLANE_TILES: nas__q_plane_tiles_emit(q, name.data, out); break;
    }
    nas_buf_deinit(&name);
}
