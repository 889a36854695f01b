/* sparsity.c - groups of weights, and the projection of trained weights to a pattern. */
#include "ir/sparsity.h"
#include "ir/ir_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES = NAS_SPARSITY_PATTERN_COUNT, OUTPUTS_MAX = 64, TAPS = 9 };

static const char *const names[NAMES] = {"filter",       "channel",      "1xN",     "N:M",
                                         "block",        "punched",      "pattern", "periodic",
                                         "unstructured", "complementary"};

const char *nas_sparsity_pattern_name(nas_sparsity_pattern pattern) {
    return pattern < NAS_SPARSITY_PATTERN_COUNT ? names[pattern] : "none";
}

nas_sparsity_pattern nas_sparsity_pattern_find(const char *name) {
    int i = 0;
    while (i < NAMES && strcmp(names[i], name) != 0)
        i++;
    return (nas_sparsity_pattern)i;
}

void nas_sparsity_short(const nas_sparsity *s, char out[NAS_SPARSITY_SHORT_MAX]) {
    const size_t size = NAS_SPARSITY_SHORT_MAX;
    switch (s->pattern) {
    case NAS_SPARSITY_1XN:
        (void)snprintf(out, size, "1x%" PRId32 "%s", s->n, s->rearrange ? "r" : "");
        return;
    case NAS_SPARSITY_N_OF_M:
        (void)snprintf(out, size, "N:%" PRId32 "x%" PRId32, s->group, s->outputs);
        return;
    case NAS_SPARSITY_BLOCK:
    case NAS_SPARSITY_PUNCHED:
        (void)snprintf(out, size, "%s%" PRId32 "x%" PRId32, names[s->pattern], s->outputs,
                       s->inputs);
        return;
    case NAS_SPARSITY_COMPLEMENTARY:
        (void)snprintf(out, size, "%s%" PRId32, names[s->pattern], s->outputs);
        return;
    case NAS_SPARSITY_FILTER:
    case NAS_SPARSITY_CHANNEL:
    case NAS_SPARSITY_PATTERN:
    case NAS_SPARSITY_PERIODIC:
    case NAS_SPARSITY_UNSTRUCTURED:
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    (void)snprintf(out, size, "%s", nas_sparsity_pattern_name(s->pattern));
}

bool nas_sparsity_has_rate(nas_sparsity_pattern pattern) {
    return pattern != NAS_SPARSITY_N_OF_M && pattern != NAS_SPARSITY_PERIODIC &&
           pattern != NAS_SPARSITY_COMPLEMENTARY;
}

nas_sparsity nas_sparsity_default(nas_sparsity_pattern pattern) {
    const int32_t block = pattern == NAS_SPARSITY_PATTERN ? 1 : 4;
    return (nas_sparsity){.pattern = pattern,
                          .n = 4,
                          .keep = 2,
                          .group = 4,
                          .outputs = block,
                          .inputs = block,
                          .entries = 4,
                          .period = 4};
}

/* ---- legality ----------------------------------------------------------------------------------------------------- */

static nas_status in_range(nas_ctx *ctx, const char *what, int32_t value, int32_t low,
                           int32_t high) {
    if (value >= low && value <= high) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_RANGE,
                    "\"%s\" is %" PRId32 "; it has to be %" PRId32 " to %" PRId32, what, value, low,
                    high);
}

static nas_status check_numbers(nas_ctx *ctx, const nas_sparsity *s) {
    nas_status status = NAS_OK;
    switch (s->pattern) {
    case NAS_SPARSITY_1XN:
        if (s->n == 2 || s->n == 4 || s->n == 8 || s->n == 16 || s->n == 32) return NAS_OK;
        return nas_fail(ctx, NAS_ERR_RANGE, "\"n\" is %" PRId32 "; 1xN knows 2, 4, 8, 16 and 32",
                        s->n);
    case NAS_SPARSITY_N_OF_M:
        status = in_range(ctx, "group", s->group, 1, 32);
        if (status == NAS_OK) status = in_range(ctx, "keep", s->keep, 1, s->group);
        if (status == NAS_OK) status = in_range(ctx, "outputs", s->outputs, 1, OUTPUTS_MAX);
        return status;
    case NAS_SPARSITY_BLOCK:
    case NAS_SPARSITY_PUNCHED:
        status = in_range(ctx, "outputs", s->outputs, 1, OUTPUTS_MAX);
        return status == NAS_OK ? in_range(ctx, "inputs", s->inputs, 1, OUTPUTS_MAX) : status;
    case NAS_SPARSITY_PATTERN:
        status = in_range(ctx, "outputs", s->outputs, 1, OUTPUTS_MAX);
        return status == NAS_OK ? in_range(ctx, "entries", s->entries, 1, TAPS - 1) : status;
    case NAS_SPARSITY_PERIODIC:
        status = in_range(ctx, "period", s->period, 1, OUTPUTS_MAX);
        return status == NAS_OK ? in_range(ctx, "entries", s->entries, 1, TAPS - 1) : status;
    case NAS_SPARSITY_COMPLEMENTARY:
        return in_range(ctx, "outputs", s->outputs, 2, NAS_SPARSITY_SET_MAX);
    case NAS_SPARSITY_FILTER:
    case NAS_SPARSITY_CHANNEL:
    case NAS_SPARSITY_UNSTRUCTURED:
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    return NAS_OK;
}

nas_status nas_sparsity_check(nas_ctx *ctx, const nas_sparsity *s, const int32_t dims[4],
                              int32_t groups) {
    if (groups != 1)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "a convolution in %" PRId32
                        " groups stays dense: its sums are too short to leave anything out",
                        groups);
    if (!(s->rate >= 0 && s->rate <= 1))
        return nas_fail(ctx, NAS_ERR_RANGE, "\"rate\" is %g; it has to be 0 to 1", s->rate);
    const bool taps = s->pattern == NAS_SPARSITY_PATTERN || s->pattern == NAS_SPARSITY_PERIODIC;
    if (taps && (dims[1] != 3 || dims[2] != 3))
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "pattern \"%s\" is for 3x3 kernels, this one is %" PRId32 "x%" PRId32,
                        nas_sparsity_pattern_name(s->pattern), dims[1], dims[2]);
    return check_numbers(ctx, s);
}

/* ---- groups ------------------------------------------------------------------------------------------------------- */

/* The tensor, and what the projection works on. */
typedef struct tensor {
    const nas_sparsity *s;
    const float *weight;
    int32_t outputs, taps, inputs;
    int32_t *place; /* of an output among those that form groups */
} tensor;

static size_t ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}

static size_t at(const tensor *t, size_t o, size_t tap, size_t i) {
    return (o * (size_t)t->taps + tap) * (size_t)t->inputs + i;
}

/* The group of one weight. */
static size_t group_of(const tensor *t, size_t o, size_t tap, size_t i) {
    const nas_sparsity *s = t->s;
    const size_t inputs = (size_t)t->inputs, taps = (size_t)t->taps;
    const size_t p = (size_t)s->outputs, q = (size_t)s->inputs;
    switch (s->pattern) {
    case NAS_SPARSITY_FILTER: return o;
    case NAS_SPARSITY_CHANNEL: return i;
    case NAS_SPARSITY_1XN: return (size_t)t->place[o] / (size_t)s->n * inputs + i;
    case NAS_SPARSITY_N_OF_M: return (o / p * taps + tap) * inputs + i;
    case NAS_SPARSITY_BLOCK: return o / p * ceil_div(inputs, q) + i / q;
    case NAS_SPARSITY_PUNCHED: return (o / p * taps + tap) * ceil_div(inputs, q) + i / q;
    case NAS_SPARSITY_PATTERN: return o / p * inputs + i;
    case NAS_SPARSITY_PERIODIC: return i % (size_t)s->period * taps + tap;
    case NAS_SPARSITY_UNSTRUCTURED:
    case NAS_SPARSITY_COMPLEMENTARY: /* no groups: see nas__complementary_mask */
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    return at(t, o, tap, i);
}

/* A group and its importance. */
typedef struct scored {
    double score;
    size_t group;
} scored;

/* The least important first; of equal ones the later. */
static int by_score(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? -1 : 1;
    return x->group > y->group ? -1 : x->group < y->group;
}

static double importance(const tensor *t, float w) {
    const double v = (double)w;
    return t->s->pattern == NAS_SPARSITY_1XN ? fabs(v) : v * v;
}

/* Scores of all groups, in the order of their numbers. */
static void score_groups(const tensor *t, scored *groups, size_t n) {
    for (size_t g = 0; g < n; g++)
        groups[g] = (scored){.group = g};
    for (size_t o = 0; o < (size_t)t->outputs; o++) {
        for (size_t tap = 0; tap < (size_t)t->taps; tap++) {
            for (size_t i = 0; i < (size_t)t->inputs; i++)
                groups[group_of(t, o, tap, i)].score += importance(t, t->weight[at(t, o, tap, i)]);
        }
    }
}

static size_t count_groups(const tensor *t) {
    size_t most = 0;
    for (size_t o = 0; o < (size_t)t->outputs; o++) {
        for (size_t tap = 0; tap < (size_t)t->taps; tap++) {
            for (size_t i = 0; i < (size_t)t->inputs; i++) {
                const size_t g = group_of(t, o, tap, i);
                if (g > most) most = g;
            }
        }
    }
    return most + 1;
}

/* Drops `n` of the groups [first, first + of). */
static void drop_least(scored *groups, size_t of, size_t n, bool *dropped) {
    qsort(groups, of, sizeof *groups, by_score);
    for (size_t k = 0; k < n; k++)
        dropped[groups[k].group] = true;
}

/* Groups of an N:M row of input channels are neighbours. */
static void drop_n_of_m(const tensor *t, scored *groups, size_t n, bool *dropped) {
    const size_t inputs = (size_t)t->inputs, m = (size_t)t->s->group, keep = (size_t)t->s->keep;
    for (size_t row = 0; row < n; row += inputs) {
        for (size_t i = 0; i < inputs; i += m) {
            const size_t of = inputs - i < m ? inputs - i : m;
            drop_least(groups + row + i, of, of - ceil_div(keep * of, m), dropped);
        }
    }
}

static void drop_periodic(const tensor *t, scored *groups, size_t n, bool *dropped) {
    for (size_t phase = 0; phase < n; phase += TAPS)
        drop_least(groups + phase, TAPS, TAPS - (size_t)t->s->entries, dropped);
}

/* ---- shapes of 3x3 kernels ---------------------------------------------------------------------------------------- */

/* Four taps: the squares and the T shapes that hold the centre. */
static const uint8_t shapes[8][4] = {{0, 1, 3, 4}, {1, 2, 4, 5}, {3, 4, 6, 7}, {4, 5, 7, 8},
                                     {1, 3, 4, 5}, {3, 4, 5, 7}, {1, 3, 4, 7}, {1, 4, 5, 7}};

/* Which taps a kernel keeps, by the energy of each. */
static void choose_taps(const double energy[TAPS], int32_t entries, bool kept[TAPS]) {
    memset(kept, 0, TAPS * sizeof *kept);
    if (entries == 4) {
        int best = 0;
        double most = -1;
        for (int k = 0; k < 8; k++) {
            double sum = 0;
            for (int e = 0; e < 4; e++)
                sum += energy[shapes[k][e]];
            if (sum > most) {
                most = sum;
                best = k;
            }
        }
        for (int e = 0; e < 4; e++)
            kept[shapes[best][e]] = true;
        return;
    }
    for (int32_t n = 0; n < entries; n++) {
        int best = -1;
        for (int tap = 0; tap < TAPS; tap++) {
            if (!kept[tap] && (best < 0 || energy[tap] > energy[best])) best = tap;
        }
        kept[best] = true;
    }
}

/* The taps of every kernel; what the shapes leave out is gone before whole kernels are compared. */
static void keep_shapes(const tensor *t, uint8_t *kept) {
    const size_t p = (size_t)t->s->outputs;
    for (size_t first = 0; first < (size_t)t->outputs; first += p) {
        const size_t end = first + p < (size_t)t->outputs ? first + p : (size_t)t->outputs;
        for (size_t i = 0; i < (size_t)t->inputs; i++) {
            double energy[TAPS] = {0};
            bool taps[TAPS];
            for (size_t o = first; o < end; o++) {
                for (size_t tap = 0; tap < TAPS; tap++)
                    energy[tap] += importance(t, t->weight[at(t, o, tap, i)]);
            }
            choose_taps(energy, t->s->entries, taps);
            for (size_t o = first; o < end; o++) {
                for (size_t tap = 0; tap < TAPS; tap++)
                    kept[at(t, o, tap, i)] = taps[tap];
            }
        }
    }
}

static void score_kept(const tensor *t, const uint8_t *kept, scored *groups, size_t n) {
    for (size_t g = 0; g < n; g++)
        groups[g] = (scored){.group = g};
    for (size_t o = 0; o < (size_t)t->outputs; o++) {
        for (size_t tap = 0; tap < TAPS; tap++) {
            for (size_t i = 0; i < (size_t)t->inputs; i++) {
                const size_t k = at(t, o, tap, i);
                if (kept[k] != 0)
                    groups[group_of(t, o, tap, i)].score += importance(t, t->weight[k]);
            }
        }
    }
}

/* ---- projection --------------------------------------------------------------------------------------------------- */

static double row_sum(const tensor *t, size_t o) {
    double sum = 0;
    for (size_t k = 0; k < (size_t)t->taps * (size_t)t->inputs; k++)
        sum += fabs((double)t->weight[o * (size_t)t->taps * (size_t)t->inputs + k]);
    return sum;
}

/* place[o]: as it is, or by magnitude, largest first; `order` is scratch. */
static void place_outputs(const tensor *t, scored *order) {
    for (size_t o = 0; o < (size_t)t->outputs; o++)
        order[o] = (scored){.score = row_sum(t, o), .group = o};
    const bool sorted = t->s->pattern == NAS_SPARSITY_1XN && t->s->rearrange;
    if (sorted) qsort(order, (size_t)t->outputs, sizeof *order, by_score);
    for (int32_t k = 0; k < t->outputs; k++)
        t->place[order[k].group] = sorted ? t->outputs - 1 - k : k;
}

static void project(const tensor *t, scored *groups, size_t n, bool *dropped, uint8_t *kept) {
    const size_t weights = (size_t)t->outputs * (size_t)t->taps * (size_t)t->inputs;
    memset(kept, 1, weights);
    if (t->s->pattern == NAS_SPARSITY_PATTERN) {
        keep_shapes(t, kept);
        score_kept(t, kept, groups, n);
    } else {
        score_groups(t, groups, n);
    }
    if (t->s->pattern == NAS_SPARSITY_N_OF_M) {
        drop_n_of_m(t, groups, n, dropped);
    } else if (t->s->pattern == NAS_SPARSITY_PERIODIC) {
        drop_periodic(t, groups, n, dropped);
    } else { /* 0.29*100 is 28.999...: the user's digits decide */
        drop_least(groups, n, (size_t)floor(t->s->rate * (double)n + 1e-9), dropped);
    }
    for (size_t o = 0; o < (size_t)t->outputs; o++) {
        for (size_t tap = 0; tap < (size_t)t->taps; tap++) {
            for (size_t i = 0; i < (size_t)t->inputs; i++) {
                if (dropped[group_of(t, o, tap, i)]) kept[at(t, o, tap, i)] = 0;
            }
        }
    }
}

nas_status nas_sparsity_mask(nas_ctx *ctx, const nas_sparsity *s, const float *weight,
                             const int32_t dims[4], uint8_t *kept) {
    const nas_status status = nas_sparsity_check(ctx, s, dims, 1);
    if (status != NAS_OK) return status;
    if (s->pattern == NAS_SPARSITY_COMPLEMENTARY) {
        nas__complementary_mask(weight, dims, s->outputs, kept);
        return NAS_OK;
    }
    tensor t = {
        .s = s, .weight = weight, .outputs = dims[0], .taps = dims[1] * dims[2], .inputs = dims[3]};
    t.place = nas_alloc_array(ctx, (size_t)dims[0], sizeof *t.place);
    scored *order = t.place != NULL ? nas_alloc_array(ctx, (size_t)dims[0], sizeof *order) : NULL;
    scored *groups = NULL;
    bool *dropped = NULL;
    if (order != NULL) {
        place_outputs(&t, order);
        const size_t n = count_groups(&t);
        groups = nas_alloc_array(ctx, n, sizeof *groups);
        dropped = groups != NULL ? nas_alloc_array(ctx, n, sizeof *dropped) : NULL;
        if (dropped != NULL) project(&t, groups, n, dropped, kept);
    }
    const bool done = dropped != NULL;
    nas_free(dropped);
    nas_free(groups);
    nas_free(order);
    nas_free(t.place);
    return done ? NAS_OK : NAS_ERR_NOMEM;
}

nas_status nas_sparsity_apply(nas_ctx *ctx, nas_graph *graph, nas_value v, const nas_sparsity *s) {
    const nas_node *node = nas_graph_node(graph, v);
    if (node->op != NAS_OP_CONV)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "layer '%s' is a %s; only convolutions and fully connected layers have "
                        "sparse weights",
                        node->name, nas_op_name(node->op));
    nas_param *p = nas_graph_param(graph, node->params[0]);
    if (p->data == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "layer '%s' has no weights", node->name);
    nas_status status = nas_sparsity_check(ctx, s, p->dims, node->conv.groups);
    uint8_t *kept = status == NAS_OK ? nas_alloc_array(ctx, p->count, 1) : NULL;
    if (status == NAS_OK && kept == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = nas_sparsity_mask(ctx, s, p->data, p->dims, kept);
    for (size_t k = 0; status == NAS_OK && k < p->count; k++) {
        if (kept[k] == 0) p->data[k] = 0;
    }
    nas_free(kept);
    return nas_wrap(ctx, status, "layer '%s'", node->name);
}

/* ---- storage ------------------------------------------------------------------------------------------------------ */

nas_sparsity_bytes nas_sparsity_storage(const uint8_t *kept, const int32_t dims[4], int32_t outputs,
                                        int32_t bits) {
    const size_t steps = (size_t)dims[1] * (size_t)dims[2] * (size_t)dims[3];
    const size_t rows = (size_t)dims[0], p = (size_t)outputs;
    nas_sparsity_bytes b = {.dense = (rows * steps * (size_t)bits + 7) / 8};
    size_t entries = 0, weights = 0;
    for (size_t first = 0; first < rows; first += p) {
        const size_t n = rows - first < p ? rows - first : p;
        for (size_t k = 0; k < steps; k++) {
            size_t used = 0;
            for (size_t o = first; o < first + n; o++)
                used += kept[o * steps + k] != 0;
            b.kept += used;
            entries += used > 0;
            weights += used > 0 ? n : 0;
        }
    }
    b.bitmask = (rows * steps + 7) / 8 + (b.kept * (size_t)bits + 7) / 8;
    b.lists = entries * (steps > 65536 ? 4 : 2) + (weights * (size_t)bits + 7) / 8 +
              4 * (ceil_div(rows, p) + 1);
    return b;
}

/* Outputs that share a list by the pattern. */
static int32_t shared(const nas_sparsity *s) {
    switch (s->pattern) {
    case NAS_SPARSITY_1XN: return s->rearrange ? 1 : s->n;
    case NAS_SPARSITY_N_OF_M:
    case NAS_SPARSITY_BLOCK:
    case NAS_SPARSITY_PUNCHED:
    case NAS_SPARSITY_PATTERN: return s->outputs;
    case NAS_SPARSITY_CHANNEL:
    case NAS_SPARSITY_PERIODIC: return 16; /* all of them; a register tile of a common processor */
    case NAS_SPARSITY_FILTER:
    case NAS_SPARSITY_UNSTRUCTURED:
    case NAS_SPARSITY_COMPLEMENTARY:
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    return 1;
}

nas_sparsity_bytes nas_sparsity_pattern_storage(const nas_sparsity *s, const uint8_t *kept,
                                                const int32_t dims[4], int32_t bits) {
    nas_sparsity_bytes b = nas_sparsity_storage(kept, dims, shared(s), bits);
    if (s->pattern == NAS_SPARSITY_COMPLEMENTARY)
        b.packed = nas_sparsity_packed_bytes(dims, s->outputs, bits);
    return b;
}
