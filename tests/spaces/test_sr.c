/* test_sr.c - the "sr" space itself: options, genes, size, legality of points. */
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

TestSuite(spaces_sr, .init = fixture_setup, .fini = fixture_teardown);

static int32_t gene_index(const nas_space *space, const char *name) {
    for (int32_t i = 0; i < nas_space_gene_count(space); i++) {
        if (strcmp(nas_space_gene(space, i)->name, name) == 0) return i;
    }
    cr_fatal("no gene %s", name);
    return -1;
}

Test(spaces_sr, genes_are_four_globals_and_three_a_block) {
    const nas_sr_options o = nas_sr_options_default();
    nas_space *space = fixture_space(&o);
    cr_assert(eq(str, (char *)nas_space_name(space), "sr"));
    cr_assert(eq(int, nas_space_gene_count(space), 4 + 3 * 16));
    cr_assert(eq(int, nas_space_gene(space, gene_index(space, "residual"))->cardinality, 5));
    cr_assert(eq(int, nas_space_gene(space, gene_index(space, "block16.expand"))->cardinality, 6));
    cr_assert(
        eq(int, (int)nas_space_gene(space, gene_index(space, "block3.keep"))->kind, NAS_GENE_BOOL));
    nas_space_free(space);
}

/* Walks every gene vector, legal or not, and counts those the space accepts. */
static double count_by_force(const nas_space *space) {
    nas_point p = {.n = nas_space_gene_count(space)};
    double count = 0;
    for (;;) {
        if (nas_space_check(ctx, space, &p) == NAS_OK) count++;
        int32_t i = 0;
        while (i < p.n && ++p.gene[i] == nas_space_gene(space, i)->cardinality)
            p.gene[i++] = 0;
        if (i == p.n) return count;
    }
}

Test(spaces_sr, size_equals_the_number_of_accepted_points) {
    nas_sr_options o = fixture_tiny();
    for (o.blocks_min = 1; o.blocks_min <= o.blocks_max; o.blocks_min++) {
        nas_space *space = fixture_space(&o);
        cr_assert(eq(dbl, nas_space_size(space), count_by_force(space)), "blocks_min %d",
                  o.blocks_min);
        nas_space_free(space);
    }
    o = fixture_variant(3);
    nas_space *one = fixture_space(&o);
    cr_assert(eq(dbl, nas_space_size(one), 1.0));
    nas_space_free(one);
}

Test(spaces_sr, size_of_the_default_space_follows_the_binomial_theorem) {
    const nas_sr_options o = nas_sr_options_default();
    nas_space *space = fixture_space(&o);
    double power = 1; /* sum over k >= 1 of C(16,k) 30^k = 31^16 - 1 */
    for (int i = 0; i < 16; i++)
        power *= 31;
    const double expected = 5 * 8 * (power - 1);
    const double relative = (nas_space_size(space) - expected) / expected;
    cr_assert(relative < 1e-12 && relative > -1e-12, "size %.17g, expected %.17g",
              nas_space_size(space), expected);
    nas_space_free(space);
}

typedef struct bad_option {
    const char *message; /* part that must appear */
    void (*spoil)(nas_sr_options *o);
} bad_option;

static void spoil_scale(nas_sr_options *o) {
    o->scale = 5;
}
static void spoil_height(nas_sr_options *o) {
    o->lr_height = 0;
}
static void spoil_width(nas_sr_options *o) {
    o->lr_width = 100000;
}
static void spoil_blocks_max(nas_sr_options *o) {
    o->blocks_max = 17;
}
static void spoil_blocks_min(nas_sr_options *o) {
    o->blocks_min = 0;
}
static void spoil_blocks(nas_sr_options *o) {
    o->blocks_max = 4;
    o->blocks_min = 5;
}
static void spoil_residual(nas_sr_options *o) {
    o->residual = (nas_range){24, 8, 4};
}
static void spoil_residual_low(nas_sr_options *o) {
    o->residual.min = 0;
}
static void spoil_expand(nas_sr_options *o) {
    o->expand = (nas_range){16, 90, 16};
}
static void spoil_expand_high(nas_sr_options *o) {
    o->expand.max = INT32_MAX;
}
static void spoil_project(nas_sr_options *o) {
    o->project.step = 0;
}
static void spoil_project_step(nas_sr_options *o) {
    o->project.step = INT32_MAX;
}
static void spoil_head(nas_sr_options *o) {
    o->head_kernels[1] = 4;
}
static void spoil_tail(nas_sr_options *o) {
    o->n_tail_kernels = 0;
}
static void spoil_tail_many(nas_sr_options *o) {
    o->n_tail_kernels = 5;
}
static void spoil_skip(nas_sr_options *o) {
    o->skip_kernels[1] = 3;
}
static void spoil_skip_wide(nas_sr_options *o) {
    o->skip_kernels[1] = 11;
}

Test(spaces_sr, bad_options_are_refused_by_name) {
    static const bad_option rows[] = {
        {"scale is 5, limit 2..4", spoil_scale},
        {"lr_height is 0", spoil_height},
        {"lr_width is 100000", spoil_width},
        {"blocks_max is 17, limit 1..16", spoil_blocks_max},
        {"blocks_min is 0", spoil_blocks_min},
        {"blocks_min 5 is above blocks_max 4", spoil_blocks},
        {"residual is empty: minimum 24 is above maximum 8", spoil_residual},
        {"residual is 0..24 step 4", spoil_residual_low},
        {"misses its maximum 90: use 80 or 96", spoil_expand},
        {"expand is 16..2147483647", spoil_expand_high},
        {"project is 8..24 step 0", spoil_project},
        {"project is 8..24 step 2147483647", spoil_project_step},
        {"head_kernels has kernel 4", spoil_head},
        {"tail_kernels has 0 choices", spoil_tail},
        {"tail_kernels has 5 choices", spoil_tail_many},
        {"skip_kernels has 3 after 3", spoil_skip},
        {"skip_kernels has kernel 11", spoil_skip_wide},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_sr_options o = nas_sr_options_default();
        rows[i].spoil(&o);
        nas_space *space = NULL;
        cr_assert(eq(int, (int)nas_space_sr_new(ctx, &o, &space), (int)NAS_ERR_INVALID), "%s",
                  rows[i].message);
        cr_assert(eq(ptr, space, NULL));
        cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), rows[i].message), NULL),
                  "wanted '%s' in '%s'", rows[i].message, nas_ctx_message(ctx));
    }
}

Test(spaces_sr, check_names_the_gene_that_breaks_a_point) {
    const nas_sr_options o = fixture_tiny();
    nas_space *space = fixture_space(&o);
    nas_point good;
    nas_space_smallest(space, &good);
    cr_assert(eq(int, (int)nas_space_check(ctx, space, &good), NAS_OK));

    nas_point p = good;
    p.n--;
    cr_assert(eq(int, (int)nas_space_check(ctx, space, &p), (int)NAS_ERR_INVALID));
    p = good;
    p.gene[gene_index(space, "block2.expand")] = 2;
    cr_assert(eq(int, (int)nas_space_check(ctx, space, &p), (int)NAS_ERR_RANGE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "'block2.expand' is 2, limit 0..1"), NULL));
    p = good;
    p.gene[gene_index(space, "residual")] = -1;
    cr_assert(eq(int, (int)nas_space_check(ctx, space, &p), (int)NAS_ERR_RANGE));
    p = good;
    p.gene[gene_index(space, "block3.expand")] = 1; /* skipped in the smallest net */
    cr_assert(eq(int, (int)nas_space_check(ctx, space, &p), (int)NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "'block3.expand'"), NULL));
    p = good;
    p.gene[gene_index(space, "block2.keep")] = 0;
    cr_assert(eq(int, (int)nas_space_check(ctx, space, &p), (int)NAS_ERR_INVALID));
    cr_assert(
        ne(ptr, strstr(nas_ctx_message(ctx), "in 1 blocks, the space wants at least 2"), NULL));
    p = good;
    p.gene[NAS_POINT_GENES_MAX - 1] = 1;
    cr_assert(eq(int, (int)nas_space_check(ctx, space, &p), (int)NAS_ERR_INVALID));
    nas_space_free(space);
}

Test(spaces_sr, a_failed_allocation_leaves_nothing_behind) {
    const nas_sr_options o = fixture_tiny();
    nas_space *space = NULL;
    long n = 1;
    for (;; n++) {
        const long live = nas_mem_live();
        nas_mem_fail_after(n);
        const nas_status status = nas_space_sr_new(ctx, &o, &space);
        nas_mem_fail_after(0);
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
        cr_assert(eq(ptr, space, NULL));
        cr_assert(eq(long, nas_mem_live(), live));
    }
    cr_assert(n > 1);
    nas_space_free(space);
    nas_space_free(NULL);
}
