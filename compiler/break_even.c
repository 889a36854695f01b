/* break_even.c - measures sparse kernels against dense ones: one program for each cell, kernels by turns. */
#include "compiler/break_even.h"
#include "compiler/tune_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DENSE_MAX = 8, SPARSE_MAX = 6 };

nas_sparsity nas_sparsity_with_rate(const nas_sparsity *pattern, double rate) {
    nas_sparsity s = *pattern;
    s.rate = rate;
    if (s.pattern == NAS_SPARSITY_N_OF_M) {
        s.keep = (int32_t)lround((1 - rate) * s.group);
        if (s.keep < 1) s.keep = 1;
    }
    if (s.pattern == NAS_SPARSITY_COMPLEMENTARY) {
        const double most = NAS_SPARSITY_SET_MAX, set = rate < 1 ? 1 / (1 - rate) : most;
        s.outputs = set > most ? NAS_SPARSITY_SET_MAX : (int32_t)lround(set);
        if (s.outputs < 2) s.outputs = 2;
    }
    if (s.pattern == NAS_SPARSITY_PERIODIC) {
        s.entries = (int32_t)lround((1 - rate) * 9);
        if (s.entries < 1) s.entries = 1;
        if (s.entries > 8) s.entries = 8;
    }
    if (s.pattern == NAS_SPARSITY_PATTERN) { /* taps are gone already */
        const double kept = (1 - rate) * 9 / s.entries;
        s.rate = kept > 1 ? 0 : 1 - kept;
    }
    return s;
}

bool nas_break_even_rate(const nas_sparse_cell *cells, int32_t n, bool direct, double *rate) {
    for (int32_t i = n - 1; i >= 0; i--) {
        const double dense = direct ? cells[i].direct_ns : cells[i].dense_ns;
        if (cells[i].sparse_ns <= dense) continue;
        if (i == n - 1) return false;
        const nas_sparse_cell *a = &cells[i], *b = &cells[i + 1];
        const double x = a->sparse_ns / dense - 1;
        const double y = 1 - b->sparse_ns / (direct ? b->direct_ns : b->dense_ns);
        *rate = a->rate + (b->rate - a->rate) * x / (x + y);
        return true;
    }
    *rate = cells[0].rate; /* no slower anywhere */
    return true;
}

/* ---- one shape ---------------------------------------------------------------------------------------------------- */

typedef struct subject {
    nas_ctx *ctx;
    const nas_break_even_options *options;
    nas__conv conv;
    int32_t dims[4];
    size_t count;
    float *weight; /* random, for masks */
    uint8_t *kept;
    nas__conv_way dense[2]; /* the best, and the best that is not Winograd */
    nas__qconv_way qdense[2];
    int32_t n_dense; /* 1 when they are the same */
} subject;

static bool integers(const subject *s) {
    return s->options->bits == 8;
}

/* uint8 to uint8, weights of 8 bits, sums that floats scale: what most quantized layers are. */
static nas__qconv qconv_of(const subject *s, const uint8_t *kept) {
    const bool looks = nas__qconv_looks(s->options->compile->target);
    nas__qconv q = {
        .conv = s->conv, .weight_bits = 8, .single = looks, .open_low = looks, .open_high = looks};
    q.conv.act = NAS__LACT_NONE; /* bounds of the codes */
    q.conv.kept = kept;
    return q;
}

static bool is_qwinograd(const nas__qconv_way *way) {
    return way->algorithm == NAS__QCONV_WINOGRAD_2 || way->algorithm == NAS__QCONV_WINOGRAD_4;
}

static bool is_winograd(const nas__conv_way *way) {
    return way->algorithm == NAS__CONV_WINOGRAD_2 || way->algorithm == NAS__CONV_WINOGRAD_4;
}

static nas_status check_number(nas_ctx *ctx, const char *what, int32_t value, int32_t high) {
    if (value >= 1 && value <= high) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_RANGE, "shape: %s is %d; it has to be 1 to %d", what, value, high);
}

static nas_status check_shape(nas_ctx *ctx, const nas_sparse_shape *s) {
    nas_status status = check_number(ctx, "kernel", s->kernel, 15);
    if (status == NAS_OK) status = check_number(ctx, "stride", s->stride, 8);
    if (status == NAS_OK) status = check_number(ctx, "input channels", s->in_c, 8192);
    if (status == NAS_OK) status = check_number(ctx, "output channels", s->out_c, 8192);
    if (status == NAS_OK) status = check_number(ctx, "height", s->out_h, 4096);
    if (status == NAS_OK) status = check_number(ctx, "width", s->out_w, 4096);
    if (status == NAS_OK && s->out_h * s->out_w == 1)
        status = nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                          "shape: one output pixel; a fully connected layer waits for its weights, "
                          "there is nothing to compare");
    return status;
}

static nas__conv conv_of(const nas_sparse_shape *s) {
    nas__conv c = {.in_c = s->in_c,
                   .out_c = s->out_c,
                   .groups = 1,
                   .out_h = s->out_h,
                   .out_w = s->out_w,
                   .kernel_h = s->kernel,
                   .kernel_w = s->kernel,
                   .stride_h = s->stride,
                   .stride_w = s->stride,
                   .dilation_h = 1,
                   .dilation_w = 1,
                   .in_pitch = s->in_c,
                   .out_pitch = s->out_c,
                   .act = NAS__LACT_RELU};
    c.in_row = (size_t)((s->out_w - 1) * s->stride + s->kernel) * (size_t)s->in_c;
    c.out_row = (size_t)s->out_w * (size_t)s->out_c;
    return c;
}

static nas_status subject_new(nas_ctx *ctx, const nas_break_even_options *options,
                              const nas_sparse_shape *shape, subject *out) {
    subject s = {.ctx = ctx, .options = options, .conv = conv_of(shape)};
    const int32_t dims[4] = {shape->out_c, shape->kernel, shape->kernel, shape->in_c};
    memcpy(s.dims, dims, sizeof dims);
    s.count = (size_t)shape->out_c * (size_t)(shape->kernel * shape->kernel) * (size_t)shape->in_c;
    s.weight = nas_alloc_array(ctx, s.count, sizeof *s.weight);
    s.kept = s.weight != NULL ? nas_alloc_array(ctx, s.count, 1) : NULL;
    *out = s;
    if (s.kept == NULL) return NAS_ERR_NOMEM;
    nas_rng rng = nas_rng_stream(1, 0, "break even");
    for (size_t i = 0; i < s.count; i++)
        s.weight[i] = (float)(2 * nas_rng_uniform(&rng) - 1);
    return NAS_OK;
}

static void subject_free(subject *s) {
    nas_free(s->weight);
    nas_free(s->kept);
}

static nas_status find_qdense(subject *s) {
    const nas_compile_options *o = s->options->compile;
    const nas__qconv q = qconv_of(s, NULL);
    nas__qconv_way ways[NAS__QCONV_WAYS_MAX];
    double ns[NAS__CONV_WAYS_MAX];
    int32_t n = nas__qconv_ways(o->target, &q, ways), best = 0, direct = -1;
    if (n > DENSE_MAX) { /* both kinds */
        int32_t kept = 0, of[2] = {0, 0};
        for (int32_t i = 0; i < n; i++) {
            if (of[is_qwinograd(&ways[i])]++ < DENSE_MAX / 2) ways[kept++] = ways[i];
        }
        n = kept;
    }
    const nas__tune_subject tuned = {.qconv = &q, .qways = ways, .n = n};
    const nas_status status =
        nas__tune_best(s->ctx, o, o->memory, &tuned, 2 * s->options->seconds, &best, ns);
    if (status != NAS_OK) return status;
    for (int32_t i = 0; i < n; i++) {
        if (!is_qwinograd(&ways[i]) && (direct < 0 || ns[i] < ns[direct])) direct = i;
    }
    s->qdense[0] = ways[best];
    s->n_dense = 1;
    if (direct >= 0 && direct != best) s->qdense[s->n_dense++] = ways[direct];
    return NAS_OK;
}

/* The dense kernels that all cells are compared with: the fastest, and the fastest direct one. */
static nas_status find_dense(subject *s) {
    if (integers(s)) return find_qdense(s);
    const nas_compile_options *o = s->options->compile;
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    double ns[NAS__CONV_WAYS_MAX];
    int32_t n = nas__conv_ways(o->target, &s->conv, ways), best = 0;
    if (n > DENSE_MAX) { /* both kinds */
        int32_t kept = 0, of[2] = {0, 0};
        for (int32_t i = 0; i < n; i++) {
            if (of[is_winograd(&ways[i])]++ < DENSE_MAX / 2) ways[kept++] = ways[i];
        }
        n = kept;
    }
    const nas__tune_subject tuned = {.conv = &s->conv, .ways = ways, .n = n};
    const nas_status status =
        nas__tune_best(s->ctx, o, o->memory, &tuned, 2 * s->options->seconds, &best, ns);
    if (status != NAS_OK) return status;
    int32_t direct = -1;
    for (int32_t i = 0; i < n; i++) {
        if (!is_winograd(&ways[i]) && (direct < 0 || ns[i] < ns[direct])) direct = i;
    }
    s->dense[0] = ways[best];
    s->n_dense = 1;
    if (direct >= 0 && direct != best) s->dense[s->n_dense++] = ways[direct];
    return NAS_OK;
}

/* ---- cells -------------------------------------------------------------------------------------------------------- */

static void put_pattern(const nas_sparsity *s, nas_buf *out) {
    nas_buf_printf(out, "%s rate %.4f n %d keep %d of %d block %dx%d entries %d period %d%s",
                   nas_sparsity_pattern_name(s->pattern), s->rate, s->n, s->keep, s->group,
                   s->outputs, s->inputs, s->entries, s->period, s->rearrange ? " rearranged" : "");
}

/* A cell as a memory knows it: two or three times, one of them with the kernel's name. */
typedef struct cell_keys {
    nas_buf kernel, device, ways[3];
} cell_keys;

static void keys_deinit(cell_keys *k) {
    nas_buf_deinit(&k->kernel);
    nas_buf_deinit(&k->device);
    for (int i = 0; i < 3; i++)
        nas_buf_deinit(&k->ways[i]);
}

static nas_status keys_make(const subject *s, const nas_sparsity *pattern, cell_keys *k) {
    static const char *const roles[] = {"sparse", "dense", "direct"};
    nas_status status = nas__tune_device_text(s->ctx, s->options->compile, &k->device);
    if (integers(s)) nas_buf_puts(&k->kernel, "int8 as ");
    nas__tune_kernel_text(&s->conv, &k->kernel);
    for (int i = 0; i < 3; i++) {
        nas_buf_printf(&k->ways[i], "break-even %s beside ", roles[i]);
        put_pattern(pattern, &k->ways[i]);
        if (status == NAS_OK) status = nas_buf_status(s->ctx, &k->ways[i]);
    }
    return status == NAS_OK ? nas_buf_status(s->ctx, &k->kernel) : status;
}

/* Cells are measured with one thread. */
static nas_tune_key key_of(const cell_keys *k, int way) {
    return (nas_tune_key){k->kernel.data, k->ways[way].data, k->device.data, 1};
}

static bool recall(const nas_tune_memory *m, const cell_keys *k, nas_sparse_cell *out) {
    double *const to[] = {&out->sparse_ns, &out->dense_ns, &out->direct_ns};
    for (int i = 0; i < 3; i++) {
        const nas_tune_key key = key_of(k, i);
        if (!m->find(m->user, &key, to[i]) || !isfinite(*to[i]) || !(*to[i] > 0)) return false;
    }
    (void)snprintf(out->way, sizeof out->way, "remembered");
    return true;
}

static nas_status remember(nas_ctx *ctx, const nas_tune_memory *m, const cell_keys *k,
                           const nas_tune_timing *const times[3]) {
    nas_status status = NAS_OK;
    for (int i = 0; i < 3 && status == NAS_OK; i++) {
        const nas_tune_key key = key_of(k, i);
        status = m->store(ctx, m->user, &key, times[i]);
    }
    return nas_wrap(ctx, status, "keeping a cell");
}

/* The kernel, and how many outputs share a list of it. */
static void put_way(const nas_target *target, const nas__conv_way *way,
                    char out[NAS_BREAK_EVEN_WAY_MAX]) {
    const char *name = nas__conv_algorithm_name(way->algorithm);
    const int32_t lanes = target->vector_bytes / 4;
    if (way->algorithm == NAS__CONV_SPARSE_PANEL || way->algorithm == NAS__CONV_SPARSE_CODE)
        (void)snprintf(out, NAS_BREAK_EVEN_WAY_MAX, "%s/%d", name, way->group);
    else if (way->algorithm == NAS__CONV_SPARSE_RUN)
        (void)snprintf(out, NAS_BREAK_EVEN_WAY_MAX, "%s/1", name);
    else if (way->algorithm == NAS__CONV_SPARSE)
        (void)snprintf(out, NAS_BREAK_EVEN_WAY_MAX, "%s/%d", name, way->vectors * lanes);
    else
        (void)snprintf(out, NAS_BREAK_EVEN_WAY_MAX, "%s", name);
}

static void put_qway(const nas_target *target, const nas__qconv_way *way,
                     char out[NAS_BREAK_EVEN_WAY_MAX]) {
    const char *name = nas__qconv_algorithm_name(way->algorithm);
    if (nas__qconv_is_sparse(way))
        (void)snprintf(out, NAS_BREAK_EVEN_WAY_MAX, "%s/%d", name, nas__qconv_shared(target, way));
    else
        (void)snprintf(out, NAS_BREAK_EVEN_WAY_MAX, "%s", name);
}

/* Dense ways first, then the best sparse ones by estimate; returns their number. */
static int32_t cell_ways(const subject *s, const nas__conv *conv,
                         nas__conv_way ways[NAS__CONV_WAYS_MAX]) {
    nas__conv_way all[NAS__CONV_WAYS_MAX];
    int32_t n = 0;
    for (; n < s->n_dense; n++)
        ways[n] = s->dense[n];
    const int32_t n_all = nas__conv_ways(s->options->compile->target, conv, all);
    for (int32_t i = 0; i < n_all && n < s->n_dense + SPARSE_MAX; i++) {
        if (nas__conv_is_sparse(&all[i])) ways[n++] = all[i];
    }
    return n;
}

static int32_t cell_qways(const subject *s, const nas__qconv *q,
                          nas__qconv_way ways[NAS__QCONV_WAYS_MAX]) {
    nas__qconv_way all[NAS__QCONV_WAYS_MAX];
    int32_t n = 0;
    for (; n < s->n_dense; n++)
        ways[n] = s->qdense[n];
    const int32_t n_all = nas__qconv_ways(s->options->compile->target, q, all);
    for (int32_t i = 0; i < n_all && n < s->n_dense + SPARSE_MAX; i++) {
        if (nas__qconv_is_sparse(&all[i])) ways[n++] = all[i];
    }
    return n;
}

static nas_status measure_cell(subject *s, const cell_keys *keys, nas_sparse_cell *out) {
    const nas_compile_options *o = s->options->compile;
    nas__conv conv = s->conv;
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    nas__qconv_way qways[NAS__QCONV_WAYS_MAX];
    nas_tune_timing t[NAS__CONV_WAYS_MAX];
    const nas__qconv q = qconv_of(s, s->kept);
    const double seconds = s->options->seconds;
    conv.kept = s->kept;
    const int32_t n = integers(s) ? cell_qways(s, &q, qways) : cell_ways(s, &conv, ways);
    const nas__tune_subject tuned = integers(s)
                                        ? (nas__tune_subject){.qconv = &q, .qways = qways, .n = n}
                                        : (nas__tune_subject){.conv = &conv, .ways = ways, .n = n};
    const nas_status status = nas__tune_measure(s->ctx, o, &tuned, seconds, t, &out->peak_gflops);
    if (status != NAS_OK) return status;
    int32_t best = n > s->n_dense ? s->n_dense : 0; /* no zeros that help: the dense kernel */
    for (int32_t i = s->n_dense; i < n; i++) {
        if (t[i].lo_ns < t[best].lo_ns) best = i;
    }
    const int32_t direct = s->n_dense - 1;
    out->sparse_ns = t[best].lo_ns; /* what else runs only ever adds time */
    out->dense_ns = t[0].lo_ns;
    out->direct_ns = t[direct].lo_ns;
    if (integers(s))
        put_qway(o->target, &qways[best], out->way);
    else
        put_way(o->target, &ways[best], out->way);
    const nas_tune_timing *const times[3] = {&t[best], &t[0], &t[direct]};
    return o->memory != NULL ? remember(s->ctx, o->memory, keys, times) : NAS_OK;
}

static nas_status find_cell(subject *s, const nas_sparsity *pattern, nas_sparse_cell *out) {
    nas_sparse_cell cell = {0};
    cell_keys keys = {0};
    nas_status status = nas_sparsity_mask(s->ctx, pattern, s->weight, s->dims, s->kept);
    if (status == NAS_OK) status = keys_make(s, pattern, &keys);
    if (status == NAS_OK) {
        cell.bytes = nas_sparsity_pattern_storage(pattern, s->kept, s->dims, s->options->bits);
        cell.rate = 1 - (double)cell.bytes.kept / (double)s->count;
        const nas_tune_memory *m = s->options->compile->memory;
        if (m == NULL || !recall(m, &keys, &cell)) status = measure_cell(s, &keys, &cell);
    }
    keys_deinit(&keys);
    if (status == NAS_OK) *out = cell;
    return status;
}

nas_status nas_break_even_measure(nas_ctx *ctx, const nas_break_even_options *options,
                                  const nas_sparse_shape *shape, const nas_sparsity *pattern,
                                  char dense[NAS_BREAK_EVEN_WAY_MAX], nas_sparse_cell out[]) {
    if (options->n_rates < 1 || options->n_rates > NAS_BREAK_EVEN_RATES_MAX ||
        options->compile->target == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "break-even needs a target and 1 to %d rates, not %d",
                        NAS_BREAK_EVEN_RATES_MAX, options->n_rates);
    if (options->bits != 32 && options->bits != 8)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "break-even is for floats (32 bits) and integers of 8 bits, not %d",
                        options->bits);
    nas_status status = check_shape(ctx, shape);
    if (status != NAS_OK) return status;
    subject s;
    status = subject_new(ctx, options, shape, &s);
    if (status == NAS_OK) status = nas_sparsity_check(ctx, pattern, s.dims, 1);
    if (status == NAS_OK) status = find_dense(&s);
    for (int32_t i = 0; i < options->n_rates && status == NAS_OK; i++) {
        const nas_sparsity p = nas_sparsity_with_rate(pattern, options->rates[i]);
        status = find_cell(&s, &p, &out[i]);
    }
    if (status == NAS_OK)
        (void)snprintf(dense, NAS_BREAK_EVEN_WAY_MAX, "%s",
                       integers(&s) ? nas__qconv_algorithm_name(s.qdense[0].algorithm)
                                    : nas__conv_algorithm_name(s.dense[0].algorithm));
    subject_free(&s);
    return nas_wrap(ctx, status, "break-even of %dx%d %d -> %d", shape->kernel, shape->kernel,
                    shape->in_c, shape->out_c);
}
