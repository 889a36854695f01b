/* layer_conv_sparse_run.c - outputs that keep different inputs of a run: complementary sets, and N:M of single outputs.
 *
 * Complementary sets (Hunter et al., arXiv:2112.13896, the partitioned form) are dense filters laid over each other: in each
 * run of neighbouring inputs every output of a set keeps one. With channels in lanes their routing is a permutation inside a
 * vector: the run is loaded once for a pixel, each lane picks the input that its output keeps, and one multiply-add makes the
 * products of a whole vector of outputs. No lanes are lost, nothing is transposed.
 *
 * An entry is a run of 4 or 8 inputs of a tap and one kept input for each output of a block; a run that outputs keep more of
 * has more entries, outputs with fewer pick any input with weight 0. The weight block is that of SPARSE with one more word at
 * its begin, where the picks are: 32 bits for a vector of 8 outputs, 4 for each, the first the lowest. */
#include "compiler/layer_conv_internal.h"

#include <string.h>

enum { LANES = 8, PICK_BITS = 4 };

bool nas__run_offered(const nas_target *target, const nas__conv *c, int32_t run) {
    return strcmp(target->arch, "x86-64") == 0 && target->vector_bytes == LANES * 4 &&
           c->in_c % run == 0;
}

size_t nas__run_pick_words(const nas__conv_way *way, int32_t vectors) {
    return way->algorithm == NAS__CONV_SPARSE_RUN ? (size_t)way->entries * (size_t)vectors : 0;
}

static const uint8_t *kept_of(const nas__conv *c, int32_t output, int32_t step) {
    return c->kept + (size_t)output * (size_t)(c->kernel_h * c->kernel_w * c->in_c) + step;
}

/* The kept inputs of the run at `step`: of one output, and the most of n outputs. */
static int32_t kept_in(const nas__conv *c, int32_t output, int32_t step, int32_t run) {
    const uint8_t *kept = kept_of(c, output, step);
    int32_t n = 0;
    for (int32_t i = 0; i < run; i++)
        n += kept[i] != 0;
    return n;
}

static int32_t slots(const nas__conv *c, int32_t first, int32_t n, int32_t step, int32_t run) {
    int32_t most = 0;
    for (int32_t o = first; o < first + n && o < c->out_c; o++) {
        const int32_t of = kept_in(c, o, step, run);
        if (of > most) most = of;
    }
    return most;
}

int32_t nas__run_entries(const nas_target *target, const nas__conv *c, const nas__conv_way *way) {
    const nas__conv_blocks b = nas__conv_block(target, c, way->vectors);
    const int32_t steps = c->kernel_h * c->kernel_w * c->in_c;
    int32_t entries = 0;
    for (int32_t k = 0; k < b.count; k++) {
        const int32_t first = nas__conv_block_first(&b, k);
        const int32_t n = nas__conv_block_first(&b, k + 1) - first;
        for (int32_t step = 0; step < steps; step += way->group)
            entries += slots(c, first, n, step, way->group);
    }
    return entries;
}

/* The place in the run of the kept input number `slot`; -1 when fewer are kept. */
static int32_t pick_of(const nas__conv *c, int32_t output, int32_t step, int32_t run,
                       int32_t slot) {
    const uint8_t *kept = kept_of(c, output, step);
    for (int32_t i = 0; i < run; i++) {
        if (kept[i] != 0 && slot-- == 0) return i;
    }
    return -1;
}

int32_t nas__run_pack(const nas__conv *c, const nas__conv_way *way, int32_t first, int32_t wide,
                      int32_t step, const float *weight, float *values, uint32_t *picks) {
    const size_t steps = (size_t)(c->kernel_h * c->kernel_w * c->in_c);
    const int32_t n = slots(c, first, wide, step, way->group);
    for (int32_t slot = 0; slot < n; slot++, values += wide, picks += wide / LANES) {
        for (int32_t i = 0; i < wide && first + i < c->out_c; i++) {
            const int32_t pick = pick_of(c, first + i, step, way->group, slot);
            if (pick < 0) continue;
            values[i] = weight[(size_t)(first + i) * steps + (size_t)(step + pick)];
            picks[i / LANES] |= (uint32_t)pick << (i % LANES * PICK_BITS);
        }
    }
    return n;
}

/* ---- text --------------------------------------------------------------------------------------------------------- */

static const char helpers[] =
    "#ifndef RUN_PICK4 /* AVX2: lanes pick from a run of 4 or 8 floats */\n"
    "typedef unsigned vpick __attribute__((vector_size(32)));\n"
    "typedef float run_4 __attribute__((vector_size(16), aligned(4), may_alias));\n"
    "#define RUN_PICKS(i, word) __asm__(\"vpbroadcastd %1, %0\\n\\tvpsrlvd %2, %0, %0\" : "
    "\"=&x\"(i) : \"m\"(word), \"x\"(shifts))\n"
    "#define RUN_LOAD4(x, p) __asm__(\"vbroadcastf128 %1, %0\" : \"=x\"(x) : \"m\"(*(const run_4 "
    "*)(p)))\n"
    "#define RUN_LOAD8(x, p) (x = load(p))\n"
    "#define RUN_PICK4(y, x, i) __asm__(\"vpermilps %2, %1, %0\" : \"=x\"(y) : \"x\"(x), "
    "\"x\"(i))\n"
    "#define RUN_PICK8(y, x, i) __asm__(\"vpermps %1, %2, %0\" : \"=x\"(y) : \"x\"(x), "
    "\"x\"(i))\n#endif\n";

void nas__run_emit_helpers(nas_buf *out) {
    nas_buf_puts(out, helpers);
}

void nas__run_emit_sum(const nas__conv_way *way, const size_t *offsets, int32_t pixels,
                       int32_t vectors, nas_buf *out) {
    const int32_t run = way->group;
    nas_buf_printf(out,
                   "    const vpick shifts = {0, 4, 8, 12, 16, 20, 24, 28};\n"
                   "    for (; i < to; i++, v += %d, q += %d) {\n"
                   "        const float *s = in + *i;\n        const vf ",
                   vectors * LANES, vectors);
    for (int32_t v = 0; v < vectors; v++)
        nas_buf_printf(out, "%sb%d = load(v + %d)", v > 0 ? ", " : "", v, v * LANES);
    nas_buf_puts(out, ";\n        vf x, y;\n        vpick ");
    for (int32_t v = 0; v < vectors; v++)
        nas_buf_printf(out, "%si%d", v > 0 ? ", " : "", v);
    nas_buf_puts(out, ";\n       ");
    for (int32_t v = 0; v < vectors; v++)
        nas_buf_printf(out, " RUN_PICKS(i%d, q[%d]);", v, v);
    nas_buf_puts(out, "\n");
    for (int32_t p = 0; p < pixels; p++) {
        nas_buf_printf(out, "        RUN_LOAD%d(x, s + %zu);", run, offsets[p]);
        for (int32_t v = 0; v < vectors; v++)
            nas_buf_printf(out, " RUN_PICK%d(y, x, i%d); MADD(a%d_%d, y, b%d);", run, v, p, v, v);
        nas_buf_puts(out, "\n");
    }
    nas_buf_puts(out, "    }\n");
}
