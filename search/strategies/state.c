/* state.c - a strategy's whole state as text and back; the format is specified in strategy.h. The reader trusts nothing:
 * points are parsed and checked by the space, counts have limits, and a strategy is replaced only by a complete state. */
#include "search/strategies/policy_internal.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

enum { STATE_VERSION = 1, HASHES_A_LINE = 8 };

/* ---- identity of a space ------------------------------------------------------------------------------------- */

static void hash_bytes(uint64_t *hash, const void *data, size_t len) { /* FNV-1a */
    const unsigned char *bytes = data;
    for (size_t i = 0; i < len; i++)
        *hash = (*hash ^ bytes[i]) * 0x100000001b3u;
}

/* Names and choices of all genes, and the two corners as text: they carry what the choices mean. */
static nas_status space_signature(nas_ctx *ctx, const nas_space *space, uint64_t *out) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (int32_t i = 0; i < nas_space_gene_count(space); i++) {
        const nas_gene *gene = nas_space_gene(space, i);
        hash_bytes(&hash, gene->name, strlen(gene->name) + 1);
        for (int shift = 0; shift < 32; shift += 8) { /* the same on every byte order */
            const unsigned char byte = (unsigned char)((uint32_t)gene->cardinality >> shift);
            hash_bytes(&hash, &byte, 1);
        }
    }
    nas_point corners[2];
    nas_space_smallest(space, &corners[0]);
    nas_space_largest(space, &corners[1]);
    nas_buf text = {0};
    nas_status status = NAS_OK;
    for (int i = 0; i < 2 && status == NAS_OK; i++)
        status = nas_space_format(ctx, space, &corners[i], &text);
    if (status == NAS_OK) {
        hash_bytes(&hash, text.data, text.len);
        *out = hash;
    }
    nas_buf_deinit(&text);
    return status;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static void write_result(const nas_strategy *s, const nas__member *m, nas_buf *out) {
    nas_buf_printf(out, "%" PRId64 " %a", m->trial, m->violation);
    for (int32_t i = 0; i < s->options.n_objectives; i++)
        nas_buf_printf(out, " %a", m->values[i]);
    nas_buf_puts(out, " ");
}

static nas_status write_point(nas_ctx *ctx, const nas_strategy *s, const nas_point *point,
                              nas_buf *out) {
    const nas_status status = nas_space_format(ctx, s->space, point, out);
    nas_buf_puts(out, "\n");
    return status;
}

static void write_slot(const nas_strategy *s, const nas__slot *slot, nas_buf *out) {
    if (!slot->told) {
        nas_buf_puts(out, "asked ");
        return;
    }
    switch (slot->state) {
    case NAS_TOLD_COMPLETE:
        nas_buf_puts(out, "complete ");
        write_result(s, &slot->member, out);
        break;
    case NAS_TOLD_PRUNED: nas_buf_printf(out, "pruned %" PRId64 " ", slot->member.trial); break;
    case NAS_TOLD_FAILED: nas_buf_printf(out, "failed %" PRId64 " ", slot->member.trial); break;
    }
}

static void write_head(const nas_strategy *s, uint64_t signature, nas_buf *out) {
    const nas_strategy_options *o = &s->options;
    nas_buf_printf(out, "nas-strategy %d %s\n", (int)STATE_VERSION, s->ops->name);
    nas_buf_printf(out, "space %s %016" PRIx64 "\n", nas_space_name(s->space), signature);
    nas_buf_printf(out, "options %" PRId32 " %" PRId32 " %a %a %" PRId32 "\n", o->population,
                   o->tournament, o->mutation_rate, o->crossover_rate, o->n_objectives);
}

static void write_policy(const nas_strategy *s, nas_buf *out) {
    nas_buf_printf(out, "policy %016" PRIx64, s->seed);
    if (s->encoder != NULL) nas_buf_printf(out, " %016" PRIx64, nas__encoder_hash(s));
    nas_buf_puts(out, "\n");
}

nas_status nas_strategy_save(nas_ctx *ctx, const nas_strategy *s, nas_buf *out) {
    uint64_t signature = 0;
    nas_status status = space_signature(ctx, s->space, &signature);
    if (status != NAS_OK) return status;
    write_head(s, signature, out);
    const uint64_t *w = s->rng.s;
    nas_buf_printf(out, "rng %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %016" PRIx64 "\n", w[0],
                   w[1], w[2], w[3]);
    nas_buf_printf(out, "batches %" PRId64 "\n", s->batches);
    if (s->ops->start != NULL) write_policy(s, out);
    nas_buf_printf(out, "seeds %zu\n", s->n_seeds - s->next_seed);
    for (size_t i = s->next_seed; i < s->n_seeds && status == NAS_OK; i++) {
        status = write_point(ctx, s, &s->seeds[i], out);
    }
    nas_buf_printf(out, "members %" PRId32 "\n", s->n_members);
    for (int32_t i = 0; i < s->n_members && status == NAS_OK; i++) {
        write_result(s, &s->members[i], out);
        status = write_point(ctx, s, &s->members[i].point, out);
    }
    nas_buf_printf(out, "batch %zu\n", s->n_batch);
    for (size_t i = 0; i < s->n_batch && status == NAS_OK; i++) {
        write_slot(s, &s->batch[i], out);
        status = write_point(ctx, s, &s->batch[i].member.point, out);
    }
    nas_buf_printf(out, "seen %zu\n", s->seen.n);
    for (size_t i = 0; i < s->seen.n; i++) {
        const bool last = i % HASHES_A_LINE == HASHES_A_LINE - 1 || i == s->seen.n - 1;
        nas_buf_printf(out, "%016" PRIx64 "%s", s->seen.hashes[i], last ? "\n" : " ");
    }
    nas_buf_puts(out, "end\n");
    return status == NAS_OK ? nas_buf_status(ctx, out) : status;
}

/* ---- reading: fields of a line -------------------------------------------------------------------------------- */

/* Works on a private copy of the text, cutting lines and fields by NULs. */
typedef struct reader {
    nas_ctx *ctx;
    char *next; /* rest of the text after the current line, NULL at the end */
    char *at;   /* rest of the current line */
    int line;
} reader;

static nas_status read_line(reader *r) {
    r->line++;
    if (r->next == NULL || *r->next == '\0')
        return nas_fail(r->ctx, NAS_ERR_PARSE, "the text ends too early");
    r->at = r->next;
    char *end = strchr(r->at, '\n');
    if (end == NULL) return nas_fail(r->ctx, NAS_ERR_PARSE, "the last line is cut");
    *end = '\0';
    r->next = end + 1;
    return NAS_OK;
}

static nas_status read_field(reader *r, const char *what, const char **out) {
    if (*r->at == '\0') return nas_fail(r->ctx, NAS_ERR_PARSE, "%s is missing", what);
    *out = r->at;
    r->at += strcspn(r->at, " ");
    if (*r->at == ' ') *r->at++ = '\0';
    return NAS_OK;
}

static nas_status read_line_end(reader *r) {
    if (*r->at == '\0') return NAS_OK;
    return nas_fail(r->ctx, NAS_ERR_PARSE, "unexpected '%.40s' at the end of the line", r->at);
}

static nas_status read_int(reader *r, const char *what, int64_t lo, int64_t hi, int64_t *out) {
    const char *field = NULL;
    const nas_status status = read_field(r, what, &field);
    return status == NAS_OK ? nas_parse_i64(r->ctx, what, field, lo, hi, out) : status;
}

static nas_status read_double(reader *r, const char *what, double lo, double *out) {
    const char *field = NULL;
    const nas_status status = read_field(r, what, &field);
    return status == NAS_OK ? nas_parse_double(r->ctx, what, field, lo, DBL_MAX, out) : status;
}

static nas_status read_word64(reader *r, const char *what, uint64_t *out) {
    const char *field = NULL;
    const nas_status status = read_field(r, what, &field);
    if (status != NAS_OK) return status;
    uint8_t bytes[8];
    if (!nas_unhex(field, sizeof bytes, bytes)) {
        return nas_fail(r->ctx, NAS_ERR_PARSE, "%s: '%.40s' is not 16 hex digits", what, field);
    }
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        value = value << 8 | bytes[i];
    *out = value;
    return NAS_OK;
}

/* The next line must begin with `word`. */
static nas_status read_keyword(reader *r, const char *word) {
    const char *field = NULL;
    nas_status status = read_line(r);
    if (status == NAS_OK) status = read_field(r, word, &field);
    if (status == NAS_OK && strcmp(field, word) != 0) {
        status = nas_fail(r->ctx, NAS_ERR_PARSE, "expected '%s', found '%.40s'", word, field);
    }
    return status;
}

static nas_status read_count(reader *r, const char *word, int64_t max, int64_t *out) {
    nas_status status = read_keyword(r, word);
    if (status == NAS_OK) status = read_int(r, word, 0, max, out);
    if (status == NAS_OK) status = read_line_end(r);
    return status;
}

static nas_status expect_same(reader *r, const char *what, const char *own) {
    const char *field = NULL;
    const nas_status status = read_field(r, what, &field);
    if (status != NAS_OK || strcmp(field, own) == 0) return status;
    return nas_fail(r->ctx, NAS_ERR_INVALID, "the state has %s '%.40s', this strategy '%s'", what,
                    field, own);
}

/* ---- reading: sections ------------------------------------------------------------------------------------------ */

/* Everything that must equal what this strategy would write. */
static nas_status read_head(reader *r, const nas_strategy *s) {
    uint64_t signature = 0;
    nas_status status = space_signature(r->ctx, s->space, &signature);
    if (status != NAS_OK) return status;
    const nas_strategy_options *o = &s->options;
    char version[16], hash[24], population[16], tournament[16], mutation[40], crossover[40],
        objectives[16];
    (void)snprintf(version, sizeof version, "%d", (int)STATE_VERSION);
    (void)snprintf(hash, sizeof hash, "%016" PRIx64, signature);
    (void)snprintf(population, sizeof population, "%" PRId32, o->population);
    (void)snprintf(tournament, sizeof tournament, "%" PRId32, o->tournament);
    (void)snprintf(mutation, sizeof mutation, "%a", o->mutation_rate);
    (void)snprintf(crossover, sizeof crossover, "%a", o->crossover_rate);
    (void)snprintf(objectives, sizeof objectives, "%" PRId32, o->n_objectives);
    status = read_keyword(r, "nas-strategy");
    if (status == NAS_OK) status = expect_same(r, "format version", version);
    if (status == NAS_OK) status = expect_same(r, "name", s->ops->name);
    if (status == NAS_OK) status = read_keyword(r, "space");
    if (status == NAS_OK) status = expect_same(r, "space", nas_space_name(s->space));
    if (status == NAS_OK) status = expect_same(r, "space hash", hash);
    if (status == NAS_OK) status = read_keyword(r, "options");
    if (status == NAS_OK) status = expect_same(r, "population", population);
    if (status == NAS_OK) status = expect_same(r, "tournament", tournament);
    if (status == NAS_OK) status = expect_same(r, "mutation_rate", mutation);
    if (status == NAS_OK) status = expect_same(r, "crossover_rate", crossover);
    if (status == NAS_OK) status = expect_same(r, "n_objectives", objectives);
    if (status == NAS_OK) status = read_line_end(r);
    return status;
}

static nas_status read_counters(reader *r, nas_strategy *s) {
    nas_status status = read_keyword(r, "rng");
    for (int i = 0; i < 4 && status == NAS_OK; i++)
        status = read_word64(r, "rng", &s->rng.s[i]);
    if (status == NAS_OK) status = read_line_end(r);
    if (status == NAS_OK && (s->rng.s[0] | s->rng.s[1] | s->rng.s[2] | s->rng.s[3]) == 0) {
        status = nas_fail(r->ctx, NAS_ERR_PARSE, "rng: all words are 0, which no stream reaches");
    }
    if (status == NAS_OK) status = read_count(r, "batches", INT64_MAX / 2, &s->batches);
    return status;
}

/* What the weights were drawn from: the agent is made anew from it. */
static nas_status read_policy(reader *r, nas_strategy *s) {
    if (s->ops->start == NULL) return NAS_OK;
    nas_status status = read_keyword(r, "policy");
    if (status == NAS_OK) status = read_word64(r, "policy", &s->seed);
    uint64_t encoder = 0;
    if (status == NAS_OK && *r->at != '\0') status = read_word64(r, "encoder", &encoder);
    if (status == NAS_OK) status = read_line_end(r);
    if (status == NAS_OK && encoder != nas__encoder_hash(s))
        status = nas_fail(r->ctx, NAS_ERR_INVALID,
                          "the policy began with another encoder than it is given now");
    if (status != NAS_OK) return status;
    nas__agent_free(s->agent);
    s->agent = NULL;
    status = s->ops->start(r->ctx, s);
    if (status == NAS_OK && s->encoder != NULL) nas__agent_start_from(s->agent, s->encoder);
    return status;
}

static nas_status read_point(reader *r, const nas_strategy *s, nas_point *out) {
    return nas_space_parse(r->ctx, s->space, r->at, out);
}

static nas_status read_seeds(reader *r, nas_strategy *s) {
    int64_t n = 0;
    nas_status status = read_count(r, "seeds", INT32_MAX, &n);
    for (int64_t i = 0; i < n && status == NAS_OK; i++) {
        status = read_line(r);
        if (status == NAS_OK)
            status = nas_grow(r->ctx, &s->seeds, &s->cap_seeds, s->n_seeds + 1, sizeof *s->seeds);
        if (status == NAS_OK) status = read_point(r, s, &s->seeds[s->n_seeds]);
        if (status == NAS_OK) s->n_seeds++;
    }
    return status;
}

static nas_status read_trial(reader *r, nas__member *out) {
    return read_int(r, "trial", 0, INT64_MAX, &out->trial);
}

static nas_status read_result(reader *r, const nas_strategy *s, nas__member *out) {
    nas_status status = read_trial(r, out);
    if (status == NAS_OK) status = read_double(r, "violation", 0, &out->violation);
    for (int32_t i = 0; i < s->options.n_objectives && status == NAS_OK; i++) {
        status = read_double(r, "value", -DBL_MAX, &out->values[i]);
    }
    return status;
}

static nas_status read_members(reader *r, nas_strategy *s) {
    int64_t n = 0;
    const int64_t max = s->ops->batch_size == NULL ? 0
                        : s->ops->start != NULL    ? INT32_MAX / 2
                                                   : s->options.population;
    nas_status status = read_count(r, "members", max, &n);
    for (int64_t i = 0; i < n && status == NAS_OK; i++) {
        status = read_line(r);
        if (status == NAS_OK) status = nas__members_reserve(r->ctx, s, (size_t)i + 1);
        if (status != NAS_OK) break;
        nas__member *m = &s->members[i];
        status = read_result(r, s, m);
        if (status == NAS_OK) status = read_point(r, s, &m->point);
    }
    s->n_members = status == NAS_OK ? (int32_t)n : 0;
    return status;
}

static nas_status read_slot(reader *r, const nas_strategy *s, nas__slot *slot) {
    const char *state = NULL;
    nas_status status = read_line(r);
    if (status == NAS_OK) status = read_field(r, "state of a point", &state);
    if (status != NAS_OK) return status;
    *slot = (nas__slot){.told = true};
    if (strcmp(state, "asked") == 0) {
        slot->told = false;
    } else if (strcmp(state, "complete") == 0) {
        slot->state = NAS_TOLD_COMPLETE;
        status = read_result(r, s, &slot->member);
    } else if (strcmp(state, "pruned") == 0) {
        slot->state = NAS_TOLD_PRUNED;
        status = read_trial(r, &slot->member);
    } else if (strcmp(state, "failed") == 0) {
        slot->state = NAS_TOLD_FAILED;
        status = read_trial(r, &slot->member);
    } else {
        return nas_fail(r->ctx, NAS_ERR_PARSE,
                        "a point is '%.40s': asked, complete, pruned or failed", state);
    }
    return status == NAS_OK ? read_point(r, s, &slot->member.point) : status;
}

static nas_status read_batch(reader *r, nas_strategy *s) {
    int64_t n = 0;
    nas_status status = read_count(r, "batch", nas__batch_size(s), &n);
    for (int64_t i = 0; i < n && status == NAS_OK; i++) {
        status = nas_grow(r->ctx, &s->batch, &s->cap_batch, s->n_batch + 1, sizeof *s->batch);
        if (status == NAS_OK) status = read_slot(r, s, &s->batch[s->n_batch]);
        if (status == NAS_OK) s->n_told += s->batch[s->n_batch++].told;
        if (status == NAS_OK && s->ops->reserve != NULL)
            status = nas__members_reserve(r->ctx, s, (size_t)s->n_members + s->n_batch);
    }
    if (status != NAS_OK) return status;
    /* A complete batch is closed when its last point is told, and without batches told points leave at once. */
    const size_t told_max = s->ops->batch_size == NULL ? 0 : (size_t)nas__batch_size(s) - 1;
    if (s->n_told > told_max) {
        return nas_fail(r->ctx, NAS_ERR_PARSE,
                        "%zu points of the batch are told, at most %zu can be", s->n_told,
                        told_max);
    }
    return NAS_OK;
}

static nas_status read_seen(reader *r, nas_strategy *s) {
    int64_t n = 0;
    nas_status status = read_count(r, "seen", UINT32_MAX / 4, &n);
    for (int64_t i = 0; i < n && status == NAS_OK; i++) {
        uint64_t hash = 0;
        if (i % HASHES_A_LINE == 0) status = read_line(r);
        if (status == NAS_OK) status = read_word64(r, "hash", &hash);
        if (status == NAS_OK && nas__seen_has(&s->seen, hash)) {
            status = nas_fail(r->ctx, NAS_ERR_PARSE, "hash %016" PRIx64 " twice", hash);
        }
        if (status == NAS_OK) status = nas__seen_reserve(r->ctx, &s->seen);
        if (status == NAS_OK) nas__seen_add(&s->seen, hash);
        const bool last = i % HASHES_A_LINE == HASHES_A_LINE - 1 || i == n - 1;
        if (status == NAS_OK && last) status = read_line_end(r);
    }
    for (size_t i = 0; i < s->n_batch && status == NAS_OK; i++) {
        if (!nas__seen_has(&s->seen, nas_point_hash(&s->batch[i].member.point))) {
            status = nas_fail(r->ctx, NAS_ERR_PARSE,
                              "point %zu of the batch is not among the points seen", i);
        }
    }
    return status;
}

static nas_status read_all(reader *r, nas_strategy *s) {
    nas_status status = read_head(r, s);
    if (status == NAS_OK) status = read_counters(r, s);
    if (status == NAS_OK) status = read_policy(r, s);
    if (status == NAS_OK) status = read_seeds(r, s);
    if (status == NAS_OK) status = read_members(r, s);
    if (status == NAS_OK) status = read_batch(r, s);
    if (status == NAS_OK) status = read_seen(r, s);
    if (status == NAS_OK) status = read_keyword(r, "end");
    if (status == NAS_OK) status = read_line_end(r);
    if (status == NAS_OK && *r->next != '\0') {
        r->line++;
        status = nas_fail(r->ctx, NAS_ERR_PARSE, "text after the end");
    }
    return nas_wrap(r->ctx, status, "strategy state, line %d", r->line);
}

nas_status nas_strategy_load(nas_ctx *ctx, nas_strategy *s, const char *text) {
    nas_strategy *fresh = NULL;
    nas_status status = nas_strategy_new(ctx, s->ops->name, s->space, &s->options, 0, &fresh);
    if (status != NAS_OK) return status;
    status = nas__encoder_share(ctx, s, fresh);
    char *copy = status == NAS_OK ? nas_strdup(ctx, text) : NULL;
    if (copy == NULL) {
        nas_strategy_free(fresh);
        return NAS_ERR_NOMEM;
    }
    reader r = {.ctx = ctx, .next = copy, .at = copy};
    status = read_all(&r, fresh);
    if (status == NAS_OK) {
        if (fresh->ops->start == NULL && fresh->n_members > 0) nas__members_rank(fresh);
        const nas_strategy old = *s;
        *s = *fresh;
        *fresh = old;
    }
    nas_free(copy);
    nas_strategy_free(fresh);
    return status;
}
