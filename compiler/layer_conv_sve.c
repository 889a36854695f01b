/* layer_conv_sve.c - convolutions on SVE, the vectors of Arm whose length only the processor knows. One program is right on
 * any length.
 *
 * Tiles are those of layer_conv_direct.c and layer_conv_depthwise.c with vectors of target->sve_bytes, an expected length: it
 * decides how many channels a block of packed weights has. A tile goes over the channels of its block by the length that it
 * finds: once where that is the expected one or a longer one, whose lanes beyond the block are idle, several times where it
 * is shorter. Every output is the same chain of multiply-adds in any lane, so results do not depend on the length, bit for bit.
 *
 * A pixel's value is repeated by its load (ld1rw). Multiply-adds with a lane of a vector would need a quarter of the loads,
 * but both models of llvm-mca that matter (Neoverse V1, A64FX) start half as many of them. The types cannot be members of
 * arrays, so that sums are variables, and gcc 12 makes copies of them unless multiply-adds are given. */
#include "compiler/layer_conv_internal.h"

#include <stdio.h>

bool nas__conv_is_sve(const nas__conv_way *way) {
    return way->algorithm == NAS__CONV_SVE || way->algorithm == NAS__CONV_SVE_DEPTHWISE;
}

nas_target nas__conv_view(const nas_target *target, const nas__conv_way *way) {
    nas_target view = *target;
    if (nas__conv_is_sve(way)) view.vector_bytes = target->sve_bytes;
    return view;
}

static const char helpers[] =
    "#ifndef SVE_MADD\n"
    "#include <arm_sve.h>\n"
    "/* a += x * b in all lanes; `all` says so. */\n"
    "#define SVE_MADD(a, x, b) \\\n"
    "    __asm__(\"fmla %0.s, %3/m, %1.s, %2.s\" : \"+w\"(a) : \"w\"(x), \"w\"(b), \"Upl\"(all))\n"
    "/* Of a NaN the other operand, as elsewhere. */\n"
    "HELPER svfloat32_t sve_relu(svbool_t all, svfloat32_t v) {\n"
    "    return svmaxnm_n_f32_x(all, v, 0);\n}\n"
    "HELPER svfloat32_t sve_clip(svbool_t all, svfloat32_t v, float lo, float hi) {\n"
    "    return svminnm_n_f32_x(all, svmaxnm_n_f32_x(all, v, lo), hi);\n}\n"
    "HELPER svfloat32_t sve_prelu(svbool_t all, svfloat32_t v, svfloat32_t slope) {\n"
    "    return svsel_f32(svcmpgt_n_f32(all, v, 0), v, svmul_f32_x(all, v, slope));\n}\n"
    "HELPER svfloat32_t sve_hard_swish(svbool_t all, svfloat32_t v) {\n"
    "    const svfloat32_t t = svmad_n_f32_x(all, v, svdup_n_f32(0x1.555556p-3f), 0.5f);\n"
    "    return svmul_f32_x(all, v, sve_clip(all, t, 0, 1));\n}\n"
    "#endif\n";

void nas__sve_emit_helpers(nas_buf *out) {
    nas_buf_puts(out, helpers);
}

/* act(`value`); `slope` loads the slopes of this vector. */
static void put_finish(const nas__conv *c, const char *value, const char *slope, nas_buf *out) {
    switch (c->act) {
    case NAS__LACT_NONE: nas_buf_puts(out, value); return;
    case NAS__LACT_RELU: nas_buf_printf(out, "sve_relu(all, %s)", value); return;
    case NAS__LACT_CLIP:
        nas_buf_printf(out, "sve_clip(all, %s, %af, %af)", value, (double)c->lo, (double)c->hi);
        return;
    case NAS__LACT_PRELU: nas_buf_printf(out, "sve_prelu(all, %s, %s)", value, slope); return;
    case NAS__LACT_LEAKY:
        nas_buf_printf(out, "sve_prelu(all, %s, svdup_n_f32(%af))", value, (double)c->lo);
        return;
    case NAS__LACT_HARD_SWISH: nas_buf_printf(out, "sve_hard_swish(all, %s)", value); return;
    }
}

/* ---- pixels x vectors ------------------------------------------------------------------------------------------------ */

/* `round` steps of the sum for all pixels, `limit` steps in all; see nas__conv_emit_loop. */
static void put_loop(const nas__sve_tile *t, const char *limit, const char *indent, nas_buf *out) {
    const int32_t vectors = t->kind.vectors, wide = vectors * t->lanes;
    nas_buf_printf(out, "%sfor (int i = 0; i < %s; i += %d, s += %d, v += %d) {\n", indent, limit,
                   t->round, t->round, t->round * wide);
    if (t->ahead > 0)
        nas_buf_printf(out, "%s    AHEAD(next);%s\n%s    next += %d;\n", indent,
                       t->ahead > 64 ? " AHEAD(next + 64);" : "", indent, t->ahead);
    for (int32_t u = 0; u < t->round; u++) {
        /* the barrier: as in nas__conv_emit_loop */
        nas_buf_printf(out, "%s    {\n%s        __asm__(\"\" : \"+r\"(s));\n", indent, indent);
        nas_buf_printf(out, "%s        const svfloat32_t ", indent);
        for (int32_t k = 0; k < vectors; k++)
            nas_buf_printf(out, "%sb%d = svld1_vnum_f32(p%d, v + %d, %d)", k > 0 ? ", " : "", k, k,
                           u * wide, k);
        nas_buf_printf(out, ";\n%s        svfloat32_t x;\n", indent);
        for (int32_t p = 0; p < t->pixels; p++) {
            nas_buf_printf(out, "%s        x = svdup_n_f32(s[%zu]);", indent,
                           t->offsets[p] + (size_t)u);
            for (int32_t k = 0; k < vectors; k++)
                nas_buf_printf(out, " SVE_MADD(a%d_%d, x, b%d);", p, k, k);
            nas_buf_puts(out, "\n");
        }
        nas_buf_printf(out, "%s    }\n", indent);
    }
    nas_buf_printf(out, "%s}\n", indent);
}

/* The whole sum: kernel rows, their taps unless they are one run, input channels. */
static void put_sum(const nas__conv *c, const nas__sve_tile *t, nas_buf *out) {
    const nas__conv_runs r = nas__conv_run(c, 0);
    char limit[16];
    (void)snprintf(limit, sizeof limit, "%d", r.length);
    nas_buf_printf(out, "        for (int tap = 0; tap < %d; tap++) {\n", c->kernel_h * r.taps);
    nas_buf_printf(out, "            const float *s = in + tap / %d * ROW + tap %% %d * %dL;\n",
                   r.taps, r.taps, c->dilation_w * c->in_pitch);
    put_loop(t, limit, "            ", out);
    nas_buf_puts(out, "        }\n");
}

static void put_stores(const nas__conv *c, const nas__sve_tile *t, nas_buf *out) {
    for (int32_t p = 0; p < t->pixels; p++) {
        const size_t y = (size_t)(p / t->columns), x = (size_t)(p % t->columns);
        for (int32_t k = 0; k < t->kind.vectors; k++) {
            char value[160], slope[64];
            int n = snprintf(value, sizeof value, "a%d_%d", p, k);
            if (c->has_residual)
                n = snprintf(
                    value, sizeof value,
                    "svadd_f32_x(all, a%d_%d, svld1_vnum_f32(p%d, residual + %zu + o, %d))", p, k,
                    k, y * c->residual_row + x * (size_t)c->residual_pitch, k);
            (void)n;
            (void)snprintf(slope, sizeof slope, "svld1_vnum_f32(p%d, slope + o, %d)", k, k);
            nas_buf_printf(out, "        svst1_vnum_f32(p%d, out + %zu + o, %d, ", k,
                           y * c->out_row + x * (size_t)c->out_pitch, k);
            put_finish(c, value, slope, out);
            nas_buf_puts(out, ");\n");
        }
    }
}

/* The sums begin with those so far, and end there unless this part is the last one. */
static void put_part(const nas__conv *c, const nas__sve_tile *t, nas_buf *out) {
    const int32_t vectors = t->kind.vectors;
    for (int32_t p = 0; p < t->pixels; p++) {
        nas_buf_puts(out, "        svfloat32_t ");
        for (int32_t k = 0; k < vectors; k++)
            nas_buf_printf(out, "%sa%d_%d = svld1_vnum_f32(p%d, from + %d * step + o, %d)",
                           k > 0 ? ", " : "", p, k, k, p, k);
        nas_buf_puts(out, ";\n");
    }
    nas_buf_puts(out, "        const float *s = in, *v = w + o;\n");
    put_loop(t, "n", "        ", out);
    nas_buf_puts(out, "        if (to) {\n");
    for (int32_t p = 0; p < t->pixels; p++) {
        nas_buf_puts(out, "           ");
        for (int32_t k = 0; k < vectors; k++)
            nas_buf_printf(out, " svst1_vnum_f32(p%d, to + %d + o, %d, a%d_%d);", k,
                           p * vectors * t->lanes, k, p, k);
        nas_buf_puts(out, "\n");
    }
    nas_buf_puts(out, "            continue;\n        }\n");
    put_stores(c, t, out);
}

void nas__sve_emit_tile(const nas__conv *c, const nas__sve_tile *t, nas_buf *out) {
    const int32_t vectors = t->kind.vectors, wide = vectors * t->lanes;
    const int32_t channels = wide - t->lanes + t->kind.last;
    nas_buf_puts(out, "    const svbool_t all = svptrue_b32();\n"
                      "    const long lanes = (long)svcntw();\n");
    if (!t->parts && c->act == NAS__LACT_PRELU)
        nas_buf_printf(out, "    const float *slope = w + %d;\n", wide);
    nas_buf_printf(out, "    for (long o = 0; o < %d; o += %d * lanes) {\n        const svbool_t ",
                   channels, vectors);
    for (int32_t k = 0; k < vectors; k++)
        nas_buf_printf(out, "%sp%d = svwhilelt_b32_s64(o + %d * lanes, %d)", k > 0 ? ", " : "", k,
                       k, channels);
    nas_buf_puts(out, ";\n");
    if (t->ahead > 0) nas_buf_puts(out, "        const char *next = ahead;\n");
    if (t->parts) {
        put_part(c, t, out);
    } else {
        for (int32_t k = 0; k < vectors; k++) {
            nas_buf_printf(out, "        svfloat32_t a0_%d = svld1_vnum_f32(p%d, w + o, %d)", k, k,
                           k);
            for (int32_t p = 1; p < t->pixels; p++)
                nas_buf_printf(out, ", a%d_%d = a0_%d", p, k, k);
            nas_buf_puts(out, ";\n");
        }
        nas_buf_printf(out, "        const float *v = w + %d + o;\n", nas__conv_heads(c) * wide);
        put_sum(c, t, out);
        put_stores(c, t, out);
    }
    nas_buf_puts(out, "    }\n}\n");
}

/* ---- depthwise ------------------------------------------------------------------------------------------------------- */

void nas__sve_emit_run(const nas__conv *c, int32_t lanes, int32_t columns, int32_t last,
                       nas_buf *out) {
    nas_buf_printf(out,
                   "    const svbool_t all = svptrue_b32();\n"
                   "    for (long o = 0; o < %d; o += (long)svcntw()) {\n"
                   "        const svbool_t part = svwhilelt_b32_s64(o, %d);\n"
                   "        svfloat32_t a0 = svld1_f32(part, w + o)",
                   last, last);
    for (int32_t p = 1; p < columns; p++)
        nas_buf_printf(out, ", a%d = a0", p);
    nas_buf_printf(out,
                   ";\n        const float *s = in + o, *v = w + %d + o;\n"
                   "        for (int y = 0; y < %d; y++, s += %zu, v += %d) {\n"
                   "            const svfloat32_t ",
                   nas__conv_heads(c) * lanes, c->kernel_h, (size_t)c->dilation_h * c->in_row,
                   c->kernel_w * lanes);
    for (int32_t k = 0; k < c->kernel_w; k++)
        nas_buf_printf(out, "%sw%d = svld1_f32(part, v + %d)", k > 0 ? ", " : "", k, k * lanes);
    nas_buf_puts(out, ";\n            svfloat32_t x;\n");
    const int32_t span = (columns - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w + 1;
    for (int32_t i = 0; i < span; i++) {
        bool loaded = false;
        for (int32_t k = 0; k < c->kernel_w; k++) {
            const int32_t start = i - k * c->dilation_w;
            if (start < 0 || start % c->stride_w != 0 || start / c->stride_w >= columns) continue;
            if (!loaded)
                nas_buf_printf(out, "            x = svld1_f32(part, s + %d);", i * c->in_pitch);
            loaded = true;
            nas_buf_printf(out, " SVE_MADD(a%d, x, w%d);", start / c->stride_w, k);
        }
        if (loaded) nas_buf_puts(out, "\n");
    }
    nas_buf_puts(out, "        }\n");
    for (int32_t p = 0; p < columns; p++) {
        char value[160], slope[64];
        (void)snprintf(slope, sizeof slope, "svld1_f32(part, w + %d + o)", lanes);
        (void)snprintf(value, sizeof value, "a%d", p);
        if (c->has_residual)
            (void)snprintf(value, sizeof value,
                           "svadd_f32_x(all, a%d, svld1_f32(part, residual + %d + o))", p,
                           p * c->residual_pitch);
        nas_buf_printf(out, "        svst1_f32(part, out + %d + o, ", p * c->out_pitch);
        put_finish(c, value, slope, out);
        nas_buf_puts(out, ");\n");
    }
    nas_buf_puts(out, "    }\n}\n");
}
