/* fixture.c - see fixture.h. */
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

nas_ctx *ctx;
static long blocks_before;

void fixture_setup(void) {
    blocks_before = nas_mem_live();
    ctx = nas_ctx_new();
}

void fixture_teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), blocks_before));
}

uint64_t fixture_seed(uint64_t usual) {
    const char *text = getenv("SEED");
    const uint64_t seed = text == NULL ? usual : strtoull(text, NULL, 10);
    (void)fprintf(stderr, "  SEED=%" PRIu64 " replays this run\n", seed);
    return seed;
}

nas_sr_options fixture_tiny(void) {
    nas_sr_options o = nas_sr_options_default();
    o.lr_height = 8;
    o.lr_width = 6;
    o.blocks_max = 3;
    o.blocks_min = 2;
    o.residual = (nas_range){8, 12, 4};
    o.expand = (nas_range){16, 32, 16};
    o.project = (nas_range){8, 8, 1};
    o.n_tail_kernels = 1;
    o.n_skip_kernels = 1;
    return o;
}

nas_space *fixture_space(const nas_sr_options *options) {
    nas_space *space = NULL;
    const nas_status status = nas_space_sr_new(ctx, options, &space);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    return space;
}

nas_sr_options fixture_variant(int index) {
    nas_sr_options o = nas_sr_options_default();
    o.lr_height = 8;
    o.lr_width = 6;
    if (index == 1) o = fixture_tiny();
    if (index == 2) {
        o.blocks_max = 5;
        o.blocks_min = 5;
    }
    if (index == 3) {
        o = fixture_tiny();
        o.blocks_max = 2;
        o.residual.max = o.residual.min;
        o.expand.max = o.expand.min;
        o.n_head_kernels = 1;
    }
    return o;
}
