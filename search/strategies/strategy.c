/* strategy.c - what all strategies share: options, seeds, no point twice, batches told in any order.
 *
 * Random numbers are drawn while asking only, and never between the batches; so proposals depend on what was told, not
 * on the order or the moment. */
#include "search/strategies/policy_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const nas__strategy_ops *const all_ops[] = {&nas__random_ops, &nas__evolution_ops,
                                                   &nas__nsga2_ops,  &nas__greedy_ops,
                                                   &nas__ddpg_ops,   &nas__agmc_ops};
enum { N_STRATEGIES = sizeof all_ops / sizeof all_ops[0] };

const char *const *nas_strategy_names(void) {
    static const char *const names[] = {"random", "evolution", "nsga2", "greedy",
                                        "ddpg",   "agmc",      NULL};
    _Static_assert(sizeof names / sizeof names[0] == N_STRATEGIES + 1, "one name a strategy");
    return names;
}

nas_strategy_options nas_strategy_options_default(void) {
    return (nas_strategy_options){
        .population = 24,
        .tournament = 4,
        .mutation_rate = 0.05,
        .crossover_rate = 0.9,
        .n_objectives = 2,
    };
}

static nas_status check_options(nas_ctx *ctx, const nas_strategy_options *o) {
    enum { POPULATION_MIN = 4, POPULATION_MAX = 4096 };
    if (o->population < POPULATION_MIN || o->population > POPULATION_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "strategy option population is %" PRId32 ", limit %d..%d", o->population,
                        (int)POPULATION_MIN, (int)POPULATION_MAX);
    }
    if (o->tournament < 2 || o->tournament > o->population) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "strategy option tournament is %" PRId32 ", limit 2..%" PRId32
                        " (the population)",
                        o->tournament, o->population);
    }
    if (!(o->mutation_rate > 0 && o->mutation_rate <= 1)) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "strategy option mutation_rate is %g, limit above 0 and up to 1",
                        o->mutation_rate);
    }
    if (!(o->crossover_rate >= 0 && o->crossover_rate <= 1)) {
        return nas_fail(ctx, NAS_ERR_RANGE, "strategy option crossover_rate is %g, limit 0..1",
                        o->crossover_rate);
    }
    if (o->n_objectives < 1 || o->n_objectives > NAS_OBJECTIVES_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "strategy option n_objectives is %" PRId32 ", limit 1..%d", o->n_objectives,
                        (int)NAS_OBJECTIVES_MAX);
    }
    return NAS_OK;
}

static nas_status find_ops(nas_ctx *ctx, const char *name, const nas__strategy_ops **out) {
    char known[128] = "";
    size_t len = 0;
    for (size_t i = 0; i < N_STRATEGIES; i++) {
        if (strcmp(all_ops[i]->name, name) == 0) {
            *out = all_ops[i];
            return NAS_OK;
        }
        const int added =
            snprintf(known + len, sizeof known - len, "%s%s", i > 0 ? ", " : "", all_ops[i]->name);
        if (added > 0 && (size_t)added < sizeof known - len) len += (size_t)added;
    }
    return nas_fail(ctx, NAS_ERR_NOTFOUND, "no strategy '%s': use one of %s", name, known);
}

nas_status nas_strategy_new(nas_ctx *ctx, const char *name, const nas_space *space,
                            const nas_strategy_options *options, uint64_t seed,
                            nas_strategy **out) {
    const nas__strategy_ops *ops = NULL;
    nas_status status = find_ops(ctx, name, &ops);
    if (status == NAS_OK) status = check_options(ctx, options);
    if (status != NAS_OK) return status;
    nas_strategy *s = nas_alloc_array(ctx, 1, sizeof *s);
    if (s == NULL) return NAS_ERR_NOMEM;
    s->ops = ops;
    s->space = space;
    s->options = *options;
    s->rng = nas_rng_stream(seed, 0, "strategy");
    s->seed = seed;
    if (ops->start != NULL) {
        status = ops->start(ctx, s);
    } else if (ops->batch_size !=
               NULL) { /* room for parents and children now: telling never allocates */
        const size_t capacity = 2 * (size_t)options->population;
        status = nas_grow(ctx, &s->members, &s->cap_members, capacity, sizeof *s->members);
        if (status == NAS_OK) status = nas__ranking_init(ctx, (int32_t)capacity, &s->ranking);
    }
    if (status != NAS_OK) {
        nas_strategy_free(s);
        return status;
    }
    *out = s;
    return NAS_OK;
}

void nas_strategy_free(nas_strategy *s) {
    if (s == NULL) return;
    nas__seen_deinit(&s->seen);
    nas__ranking_deinit(&s->ranking);
    nas__agent_free(s->agent);
    nas_free(s->encoder);
    nas_free(s->members);
    nas_free(s->batch);
    nas_free(s->seeds);
    nas_free(s);
}

const char *nas_strategy_name(const nas_strategy *s) {
    return s->ops->name;
}

int64_t nas_strategy_asked(const nas_strategy *s) {
    return (int64_t)s->seen.n;
}

nas_status nas_strategy_seed(nas_ctx *ctx, nas_strategy *s, const nas_point *point) {
    if (s->seen.n > 0) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "strategy '%s': a seed after %zu points were asked: seed first",
                        s->ops->name, s->seen.n);
    }
    nas_status status = nas_space_check(ctx, s->space, point);
    if (status != NAS_OK) return nas_wrap(ctx, status, "strategy seed");
    for (size_t i = 0; i < s->n_seeds; i++) {
        if (nas_point_equal(&s->seeds[i], point)) return NAS_OK;
    }
    status = nas_grow(ctx, &s->seeds, &s->cap_seeds, s->n_seeds + 1, sizeof *s->seeds);
    if (status == NAS_OK) s->seeds[s->n_seeds++] = *point;
    return status;
}

/* ---- ask ----------------------------------------------------------------------------------------------------- */

int32_t nas__batch_size(const nas_strategy *s) {
    return s->ops->batch_size == NULL ? INT32_MAX : s->ops->batch_size(s);
}

nas_status nas__members_reserve(nas_ctx *ctx, nas_strategy *s, size_t n) {
    const nas_status status = nas_grow(ctx, &s->members, &s->cap_members, n, sizeof *s->members);
    return status == NAS_OK && s->ops->reserve != NULL ? s->ops->reserve(ctx, s, n) : status;
}

int32_t nas_strategy_ready(const nas_strategy *s) {
    if (s->ops->batch_size == NULL) return INT32_MAX;
    return s->ops->batch_size(s) - (int32_t)s->n_batch;
}

/* A point not asked before: some tries of the strategy's own, then samples of the space. The random stream is left as it
 * was when there is none. */
static nas_status propose_unseen(nas_ctx *ctx, nas_strategy *s, nas_point *out) {
    enum { OWN_TRIES = 100, SAMPLE_TRIES = 20000 };
    const nas_rng before = s->rng;
    const double size = nas_space_size(s->space);
    const int tries = (double)s->seen.n < size ? OWN_TRIES + SAMPLE_TRIES : 0;
    for (int i = 0; i < tries; i++) {
        if (i < OWN_TRIES) {
            s->ops->propose(s, out);
        } else {
            nas_space_sample(s->space, &s->rng, out);
        }
        if (!nas__seen_has(&s->seen, nas_point_hash(out))) return NAS_OK;
    }
    s->rng = before;
    return nas_fail(ctx, NAS_ERR_NOTFOUND,
                    "strategy '%s': the space is exhausted: %zu of its %.0f points were asked and "
                    "%d tries found no "
                    "other",
                    s->ops->name, s->seen.n, size, tries);
}

nas_status nas_strategy_ask(nas_ctx *ctx, nas_strategy *s, nas_point *out) {
    if (nas_strategy_ready(s) == 0) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "strategy '%s': all %zu points of the batch are asked, %zu are not told: "
                        "tell them first",
                        s->ops->name, s->n_batch, s->n_batch - s->n_told);
    }
    nas_status status = nas_grow(ctx, &s->batch, &s->cap_batch, s->n_batch + 1, sizeof *s->batch);
    if (status == NAS_OK) status = nas__seen_reserve(ctx, &s->seen);
    if (status == NAS_OK && s->ops->reserve != NULL)
        status = nas__members_reserve(ctx, s, (size_t)s->n_members + s->n_batch + 1);
    if (status != NAS_OK) return status;
    nas_point point;
    if (s->next_seed < s->n_seeds) {
        point = s->seeds[s->next_seed++];
    } else {
        status = propose_unseen(ctx, s, &point);
        if (status != NAS_OK) return status;
    }
    nas__seen_add(&s->seen, nas_point_hash(&point));
    s->batch[s->n_batch++] = (nas__slot){.member = {.point = point}};
    *out = point;
    return NAS_OK;
}

/* ---- tell ---------------------------------------------------------------------------------------------------- */

static nas_status check_told(nas_ctx *ctx, const nas_strategy *s, const nas_told *told) {
    if (told->trial < 0) {
        return nas_fail(ctx, NAS_ERR_INVALID, "told trial number %" PRId64 ": must not be negative",
                        told->trial);
    }
    switch (told->state) {
    case NAS_TOLD_PRUNED:
    case NAS_TOLD_FAILED: return NAS_OK;
    case NAS_TOLD_COMPLETE: break;
    }
    if (told->n_values != s->options.n_objectives) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "told trial %" PRId64 ": %" PRId32 " values, the strategy has %" PRId32
                        " objectives",
                        told->trial, told->n_values, s->options.n_objectives);
    }
    for (int32_t i = 0; i < told->n_values; i++) {
        if (!isfinite(told->values[i])) {
            return nas_fail(ctx, NAS_ERR_RANGE, "told trial %" PRId64 ": value %" PRId32 " is %g",
                            told->trial, i, told->values[i]);
        }
    }
    if (!(told->violation >= 0) || !isfinite(told->violation)) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "told trial %" PRId64 ": violation is %g, must be finite and >= 0",
                        told->trial, told->violation);
    }
    return NAS_OK;
}

static nas_status find_slot(nas_ctx *ctx, nas_strategy *s, const nas_told *told, nas__slot **out) {
    nas__slot *found = NULL;
    for (size_t i = 0; i < s->n_batch; i++) {
        nas__slot *slot = &s->batch[i];
        if (slot->told && slot->member.trial == told->trial) {
            return nas_fail(ctx, NAS_ERR_INVALID, "told trial %" PRId64 " twice", told->trial);
        }
        if (!slot->told && nas_point_equal(&slot->member.point, &told->point)) found = slot;
    }
    if (found == NULL) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "told trial %" PRId64 ": strategy '%s' is not waiting for its point",
                        told->trial, s->ops->name);
    }
    *out = found;
    return NAS_OK;
}

static int compare_trials(const void *pa, const void *pb) {
    const nas__slot *a = pa, *b = pb;
    return (a->member.trial > b->member.trial) - (a->member.trial < b->member.trial);
}

nas_status nas_strategy_tell(nas_ctx *ctx, nas_strategy *s, const nas_told *told) {
    nas__slot *slot = NULL;
    nas_status status = check_told(ctx, s, told);
    if (status == NAS_OK) status = find_slot(ctx, s, told, &slot);
    if (status != NAS_OK) return status;
    if (s->ops->advance == NULL) { /* nothing to learn */
        s->n_batch--;
        memmove(slot, slot + 1, (size_t)(&s->batch[s->n_batch] - slot) * sizeof *slot);
        return NAS_OK;
    }
    slot->told = true;
    slot->state = told->state;
    slot->member.trial = told->trial;
    if (told->state == NAS_TOLD_COMPLETE) {
        slot->member.violation = told->violation;
        memcpy(slot->member.values, told->values, (size_t)told->n_values * sizeof told->values[0]);
    }
    s->n_told++;
    if ((int32_t)s->n_told == s->ops->batch_size(s)) {
        qsort(s->batch, s->n_batch, sizeof s->batch[0], compare_trials);
        s->ops->advance(s);
        s->batches++;
        s->n_batch = 0;
        s->n_told = 0;
    }
    return NAS_OK;
}

void nas__completed_join(nas_strategy *s) {
    for (size_t i = 0; i < s->n_batch; i++) {
        if (s->batch[i].state == NAS_TOLD_COMPLETE) s->members[s->n_members++] = s->batch[i].member;
    }
}

void nas__members_rank(nas_strategy *s) {
    nas__rank(&s->ranking, s->options.n_objectives, s->members, s->n_members);
}
