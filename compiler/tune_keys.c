/* tune_keys.c - by what a memory knows the time of a way; the fastest way, from memory or measured now. */
#include "compiler/tune_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- texts ------------------------------------------------------------------------------------------------------- */

static const char *act_text(nas__layer_act act) {
    switch (act) {
    case NAS__LACT_NONE: return "none";
    case NAS__LACT_RELU: return "relu";
    case NAS__LACT_CLIP: return "clip";
    case NAS__LACT_PRELU: return "prelu";
    case NAS__LACT_LEAKY: return "leaky";
    case NAS__LACT_HARD_SWISH: return "hard_swish";
    }
    return "";
}

void nas__tune_kernel_text(const nas__conv *c, nas_buf *out) {
    nas_buf_printf(out,
                   "conv f32 dense %dx%d %d->%d groups %d @%dx%d stride %dx%d dilation %dx%d "
                   "pitch %d,%d,%d row %zu,%zu,%zu%s act %s %a %a",
                   c->kernel_h, c->kernel_w, c->in_c, c->out_c, c->groups, c->out_h, c->out_w,
                   c->stride_h, c->stride_w, c->dilation_h, c->dilation_w, c->in_pitch,
                   c->out_pitch, c->residual_pitch, c->in_row, c->out_row, c->residual_row,
                   c->has_residual ? " residual" : "", act_text(c->act), (double)c->lo,
                   (double)c->hi);
}

void nas__tune_qkernel_text(const nas__qconv *q, nas_buf *out) {
    const nas__conv *c = &q->conv;
    nas_buf_printf(
        out,
        "conv %s->%s w%d%s dense %dx%d %d->%d groups %d @%dx%d stride %dx%d dilation %dx%d "
        "pitch %d,%d,%d row %zu,%zu,%zu%s%s%s",
        q->in_signed ? "s8" : "u8", q->out_signed ? "s8" : "u8", q->weight_bits,
        q->powers ? " powers" : "", c->kernel_h, c->kernel_w, c->in_c, c->out_c, c->groups,
        c->out_h, c->out_w, c->stride_h, c->stride_w, c->dilation_h, c->dilation_w, c->in_pitch,
        c->out_pitch, c->residual_pitch, c->in_row, c->out_row, c->residual_row,
        !c->has_residual     ? ""
        : q->residual_signed ? " residual s8"
                             : " residual u8",
        q->joins ? " joined" : "", q->has_left ? " left" : "");
    if (q->out_plane == 0 && q->single)
        nas_buf_printf(out, " single%s%s", q->open_low ? "" : " low", q->open_high ? "" : " high");
    if (q->out_plane == 0) return;
    nas_buf_printf(out, " planes %zu,%zu,%zu%s%s%s%s%s%s", q->in_plane, q->out_plane,
                   q->residual_plane,
                   q->single ? " single"
                   : q->half ? " half"
                             : "",
                   q->prelu ? " prelu" : "", q->absent != NULL ? " gaps" : "",
                   q->late ? " late" : "", q->open_low ? "" : " low", q->open_high ? "" : " high");
    if (q->dots > 0) nas_buf_printf(out, " dots %d", q->dots);
}

/* Like all that a kernel is known by: what it is, and a hash of its text. */
static void put_way(const nas__tune_subject *s, int32_t i, const char *hash, nas_buf *out) {
    if (s->rows != NULL) {
        nas__tune_rows_way_text(s, i, out);
        nas_buf_printf(out, " #%.12s", hash);
        return;
    }
    if (s->qconv != NULL) {
        const nas__qconv_way *w = &s->qways[i];
        nas_buf_printf(out, "%s %dx%d bits %d split %d sums16 %d batch %d #%.12s",
                       nas__tune_way_name(s, i), w->pixels, w->vectors, w->stored_bits, w->split,
                       w->sums16, w->batch, hash);
        if (nas__qconv_is_sparse(w))
            nas_buf_printf(out, " group %d entries %d", w->group, w->entries);
        return;
    }
    const nas__conv_way *w = &s->ways[i];
    nas_buf_printf(out, "%s %dx%d outer %d batch %d depth %d #%.12s", nas__tune_way_name(s, i),
                   w->pixels, w->vectors, w->outer, w->batch, w->depth, hash);
    if (nas__conv_is_sparse(w)) /* how long the lists are, whatever is in them */
        nas_buf_printf(out, " group %d joined %d entries %d", w->group, w->joined, w->entries);
}

void nas__tune_way_text(const nas_target *target, const nas__tune_subject *s, int32_t way,
                        nas_buf *out) {
    nas_buf text = {0};
    nas__tune_emit_prelude(target, s, &text);
    nas__tune_emit_way(target, s, way, &text);
    if (text.failed || text.data == NULL) {
        out->failed = true;
    } else {
        char hash[NAS_SHA256_HEX];
        nas_sha256_hex(text.data, text.len, hash);
        put_way(s, way, hash, out);
    }
    nas_buf_deinit(&text);
}

/* Name and numbers of the first core: x86, then Arm, then RISC-V. */
static void cpu_text(nas_buf *out) {
    static const char *const names[] = {"model name", "cpu family",  "model", "CPU implementer",
                                        "CPU part",   "CPU variant", "uarch"};
    bool seen[sizeof names / sizeof names[0]] = {false};
    const size_t before = out->len;
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[512];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            const size_t len = strlen(names[i]);
            if (seen[i] || strncmp(line, names[i], len) != 0) continue;
            const char *value = line + len + strspn(line + len, " \t");
            if (*value != ':') continue;
            seen[i] = true;
            value += 1 + strspn(value + 1, " \t");
            nas_buf_printf(out, "%s%.*s", out->len > before ? " " : "", (int)strcspn(value, "\r\n"),
                           value);
        }
    }
    if (file != NULL) (void)fclose(file); /* only read */
    if (out->len == before) nas_buf_puts(out, "unknown cpu");
}

nas_status nas__tune_device_text(nas_ctx *ctx, const nas_compile_options *options, nas_buf *out) {
    nas__toolchain t;
    const nas_status status = nas__toolchain_open(ctx, options, &t);
    if (status != NAS_OK) return status;
    if (options->tune_device != NULL && options->tune_device->name != NULL) {
        nas_buf_puts(out, options->tune_device->name);
    } else {
        cpu_text(out);
    }
    nas_buf_printf(out, " | %s | %s | %s", options->target->name, t.version, t.flags);
    return nas_buf_status(ctx, out);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* The key texts of one request. */
typedef struct key_texts {
    nas_buf kernel, device, ways[NAS__CONV_WAYS_MAX];
    int32_t threads;
} key_texts;

static void keys_deinit(key_texts *k) {
    nas_buf_deinit(&k->kernel);
    nas_buf_deinit(&k->device);
    for (int32_t i = 0; i < NAS__CONV_WAYS_MAX; i++)
        nas_buf_deinit(&k->ways[i]);
}

static nas_status keys_make(nas_ctx *ctx, const nas_compile_options *options,
                            const nas__tune_subject *s, key_texts *k) {
    nas_status status = nas__tune_device_text(ctx, options, &k->device);
    k->threads = options->tune_threads;
    if (s->rows != NULL) {
        nas__tune_rows_kernel_text(s, &k->kernel);
    } else if (s->qconv != NULL) {
        nas__tune_qkernel_text(s->qconv, &k->kernel);
    } else {
        nas__tune_kernel_text(s->conv, &k->kernel);
    }
    if (status == NAS_OK) status = nas_buf_status(ctx, &k->kernel);
    for (int32_t i = 0; i < s->n && status == NAS_OK; i++) {
        nas__tune_way_text(options->target, s, i, &k->ways[i]);
        status = nas_buf_status(ctx, &k->ways[i]);
    }
    return status;
}

static nas_tune_key key_of(const key_texts *k, int32_t way) {
    return (nas_tune_key){k->kernel.data, k->ways[way].data, k->device.data, k->threads};
}

static bool recall(const nas_tune_memory *memory, const key_texts *k, int32_t n, double p50_ns[]) {
    for (int32_t i = 0; i < n; i++) {
        const nas_tune_key key = key_of(k, i);
        if (!memory->find(memory->user, &key, &p50_ns[i]) || !isfinite(p50_ns[i]) ||
            !(p50_ns[i] > 0))
            return false;
    }
    return true;
}

static nas_status remember(nas_ctx *ctx, const nas_tune_memory *memory, const key_texts *k,
                           int32_t n, const nas_tune_timing *timings) {
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < n && status == NAS_OK; i++) {
        const nas_tune_key key = key_of(k, i);
        status = memory->store(ctx, memory->user, &key, &timings[i]);
    }
    return nas_wrap(ctx, status, "keeping a timing");
}

static int32_t fastest_of(const double *times, int32_t n) {
    int32_t fastest = 0; /* ties: the one that comes first */
    for (int32_t i = 1; i < n; i++) {
        if (times[i] < times[fastest]) fastest = i;
    }
    return fastest;
}

static nas_status check_count(nas_ctx *ctx, const nas__tune_subject *s) {
    if (s->n >= 1 && s->n <= NAS__CONV_WAYS_MAX) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID, "tuning needs 1..%d ways, not %d", NAS__CONV_WAYS_MAX,
                    s->n);
}

nas_status nas__tune_recall(nas_ctx *ctx, const nas_compile_options *options,
                            const nas_tune_memory *memory, const nas__tune_subject *s, bool *known,
                            int32_t *best, double p50_ns[]) {
    key_texts keys = {0};
    double times[NAS__CONV_WAYS_MAX] = {0};
    nas_status status = check_count(ctx, s);
    if (status == NAS_OK) status = keys_make(ctx, options, s, &keys);
    *known = status == NAS_OK && recall(memory, &keys, s->n, times);
    if (*known) {
        *best = fastest_of(times, s->n);
        memcpy(p50_ns, times, (size_t)s->n * sizeof *p50_ns);
    }
    keys_deinit(&keys);
    return status;
}

nas_status nas__tune_best(nas_ctx *ctx, const nas_compile_options *options,
                          const nas_tune_memory *memory, const nas__tune_subject *s, double seconds,
                          int32_t *best, double p50_ns[]) {
    key_texts keys = {0};
    double times[NAS__CONV_WAYS_MAX] = {0};
    nas_status status = check_count(ctx, s);
    if (status == NAS_OK && memory != NULL) status = keys_make(ctx, options, s, &keys);
    if (status == NAS_OK && (memory == NULL || !recall(memory, &keys, s->n, times))) {
        nas_tune_timing timings[NAS__CONV_WAYS_MAX];
        status = nas__tune_measure(ctx, options, s, seconds, timings, NULL);
        for (int32_t i = 0; i < s->n && status == NAS_OK; i++)
            times[i] = timings[i].p50_ns;
        if (status == NAS_OK && memory != NULL)
            status = remember(ctx, memory, &keys, s->n, timings);
    }
    keys_deinit(&keys);
    if (status != NAS_OK) return status;
    *best = fastest_of(times, s->n);
    if (p50_ns != NULL) memcpy(p50_ns, times, (size_t)s->n * sizeof *p50_ns);
    return NAS_OK;
}
