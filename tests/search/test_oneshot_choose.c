/* test_oneshot_choose.c - divergence from the dense network, and which network within a budget stands. */
#include "search/oneshot_choose.h"
#include "tests/search/program.h"

#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char folder[128];

static void setup(void) {
    ctx = nas_ctx_new();
    test_folder(folder);
}

static void teardown(void) {
    (void)nas_remove_tree(ctx, folder);
    nas_ctx_free(ctx);
    cr_assert(nas_mem_live() == 0);
}

TestSuite(search_oneshot_choose, .init = setup, .fini = teardown, .timeout = 900);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

enum { LAYERS_MAX = 32, LEVELS = 4 };
static const int32_t bits[LEVELS] = {2, 3, 4, 8};

/* A network of the built-in kind, its table of bits, and the bytes of 3 bits everywhere. */
typedef struct fixture {
    nas_oneshot o;
    nas_oneshot_table t;
    nas_layer_scheme levels[LEVELS * LAYERS_MAX];
    nas_oneshot_choose_options options;
} fixture;

static void fixture_open(fixture *f, int32_t threads) {
    nas_oneshot_options options = nas_oneshot_options_default();
    options.side = 16;
    options.train_steps = 80;
    options.data.glyphs = 1500;
    options.data.reward_max = 150;
    options.data.report_max = 100;
    options.calibration_images = 60;
    options.positions = 16;
    options.threads = threads;
    OK(nas_oneshot_open(ctx, &options, NULL, NULL, &f->o));
    cr_assert(f->o.n_layers <= LAYERS_MAX);
    f->options = nas_oneshot_choose_options_default();
    f->options.layer.solver = NAS_SOLVER_BLOCKED;
    f->options.images = 100;
    for (size_t k = 0; k < LEVELS * f->o.n_layers; k++) {
        f->levels[k] = nas_layer_scheme_default();
        f->levels[k].bits = bits[k / f->o.n_layers];
    }
    OK(nas_oneshot_calibrate(ctx, &f->o, 1));
    OK(nas_oneshot_table_make(ctx, &f->o, f->levels, LEVELS, &f->options.layer, NAS_ONESHOT_BYTES,
                              NAS_ONESHOT_SCALED, &f->t));
    for (size_t i = 0; i < f->o.n_layers; i++)
        f->options.limit += f->t.entries[i * LEVELS + 1].cost;
}

static void fixture_close(fixture *f) {
    nas_oneshot_table_deinit(&f->t);
    nas_oneshot_close(&f->o);
}

Test(search_oneshot_choose, divergence_is_zero_of_the_network_itself_and_grows_as_bits_get_fewer) {
    fixture f = {0};
    nas_oneshot_reference all, some;
    double itself = -1, last = 0;
    fixture_open(&f, 2);
    OK(nas_oneshot_reference_take(ctx, &f.o, f.o.model, NAS_CLASS_REWARD, SIZE_MAX, &all));
    OK(nas_oneshot_reference_take(ctx, &f.o, f.o.model, NAS_CLASS_REWARD, 40, &some));
    cr_assert(all.images == nas_class_data_count(f.o.data, NAS_CLASS_REWARD) && some.images == 40);
    OK(nas_oneshot_divergence(ctx, &f.o, f.o.model, &all, &itself));
    cr_assert(itself == 0, "%g", itself);
    for (int k = LEVELS; k-- > 0;) {
        double divergence = 0;
        OK(nas_oneshot_divergence(ctx, &f.o, f.t.graphs[k], &all, &divergence));
        cr_assert(divergence > last, "%d bits: %g, more bits %g", (int)bits[k], divergence, last);
        last = divergence;
    }
    nas_oneshot_reference_deinit(&all);
    nas_oneshot_reference_deinit(&some);
    fixture_close(&f);
}

Test(search_oneshot_choose,
     what_stands_is_within_the_budget_and_no_worse_than_the_same_everywhere) {
    fixture f = {0};
    nas_oneshot_choice c;
    fixture_open(&f, 2);
    for (int turn = 0; turn < 2; turn++) {
        f.options.sequential = turn == 1;
        OK(nas_oneshot_choose(ctx, &f.o, &f.t, &f.options, &c));
        const nas_oneshot_candidate *uniform = &c.candidates[NAS_ONESHOT_UNIFORM],
                                    *solved = &c.candidates[NAS_ONESHOT_SOLVED],
                                    *moved = &c.candidates[NAS_ONESHOT_MOVED],
                                    *best = &c.candidates[c.best];
        cr_assert(uniform->is_set && solved->is_set && solved->total.exact);
        for (size_t i = 0; i < f.o.n_layers; i++)
            cr_assert(uniform->choice[i] == 1, "the 3 bits fit");
        cr_assert(moved->is_set == (c.rounds > 0));
        if (moved->is_set)
            cr_assert(moved->divergence < fmin(uniform->divergence, solved->divergence));
        cr_assert(best->graph != NULL && best->has_turn && best->total.cost <= f.options.limit);
        cr_assert(!uniform->has_turn || best->turn_divergence <= uniform->turn_divergence);
        nas_layer_scheme schemes[LAYERS_MAX];
        uint64_t bytes = 0;
        for (size_t i = 0; i < f.o.n_layers; i++)
            schemes[i] = f.levels[(size_t)best->choice[i] * f.o.n_layers + i];
        OK(nas_oneshot_bytes(ctx, &f.o, best->graph, schemes, &bytes));
        cr_assert((double)bytes <= f.options.limit && best->turn_cost == (double)bytes);
        nas_oneshot_choice_deinit(&c);
    }
    fixture_close(&f);
}

Test(search_oneshot_choose, finishing_again_in_turn_is_choosing_in_turn) {
    fixture f = {0};
    nas_oneshot_choice again, turn;
    fixture_open(&f, 2);
    f.options.sequential = false;
    OK(nas_oneshot_choose(ctx, &f.o, &f.t, &f.options, &again));
    const double alone = again.candidates[again.best].turn_divergence;
    f.options.sequential = true;
    OK(nas_oneshot_choose_finish(ctx, &f.o, &f.t, &f.options, &again));
    OK(nas_oneshot_choose(ctx, &f.o, &f.t, &f.options, &turn));
    cr_assert(again.best == turn.best && again.rounds == turn.rounds);
    for (int i = 0; i < NAS_ONESHOT_WAY_COUNT; i++) {
        const nas_oneshot_candidate *a = &again.candidates[i], *b = &turn.candidates[i];
        cr_assert(a->is_set == b->is_set && a->has_turn == b->has_turn);
        cr_assert(a->turn_cost == b->turn_cost && a->turn_divergence == b->turn_divergence);
    }
    cr_assert(again.candidates[again.best].turn_divergence != alone);
    nas_oneshot_choice_deinit(&again);
    nas_oneshot_choice_deinit(&turn);
    fixture_close(&f);
}

/* First 2 bits seem to lose least; then every layer seems to lose the same, however large and wherever it is. */
Test(search_oneshot_choose, losses_that_mislead_the_solver_do_not_mislead_the_choice) {
    fixture f = {0};
    nas_oneshot_choice without, with;
    fixture_open(&f, 2);
    f.options.sequential = false;
    for (size_t i = 0; i < LEVELS * f.o.n_layers; i++)
        f.t.entries[i].loss = bits[i % LEVELS];
    OK(nas_oneshot_choose(ctx, &f.o, &f.t, &f.options, &without));
    const double solved = without.candidates[NAS_ONESHOT_SOLVED].divergence,
                 same = without.candidates[NAS_ONESHOT_UNIFORM].divergence;
    cr_assert(solved > same, "misled: %g, the same everywhere %g", solved, same);
    cr_assert(without.best != NAS_ONESHOT_SOLVED);
    cr_assert(without.candidates[without.best].divergence <= same);
    nas_oneshot_choice_deinit(&without);
    for (size_t i = 0; i < LEVELS * f.o.n_layers; i++)
        f.t.entries[i].loss = 1.0 / bits[i % LEVELS];
    f.options.rounds = 0;
    OK(nas_oneshot_choose(ctx, &f.o, &f.t, &f.options, &without));
    f.options.rounds = 6;
    OK(nas_oneshot_choose(ctx, &f.o, &f.t, &f.options, &with));
    cr_assert(without.rounds == 0 && !without.candidates[NAS_ONESHOT_MOVED].is_set);
    cr_assert(with.rounds > 0 && with.best == NAS_ONESHOT_MOVED, "%d rounds", (int)with.rounds);
    cr_assert(with.candidates[with.best].divergence < without.candidates[without.best].divergence);
    nas_oneshot_choice_deinit(&without);
    nas_oneshot_choice_deinit(&with);
    fixture_close(&f);
}

Test(search_oneshot_choose, the_choice_does_not_depend_on_the_number_of_threads) {
    nas_oneshot_choice c[2];
    fixture f[2] = {0};
    for (int k = 0; k < 2; k++) {
        fixture_open(&f[k], k + 1);
        OK(nas_oneshot_choose(ctx, &f[k].o, &f[k].t, &f[k].options, &c[k]));
    }
    cr_assert(c[0].best == c[1].best && c[0].rounds == c[1].rounds);
    const nas_oneshot_candidate *a = &c[0].candidates[c[0].best], *b = &c[1].candidates[c[1].best];
    cr_assert(a->divergence == b->divergence && a->turn_divergence == b->turn_divergence);
    cr_assert(memcmp(a->choice, b->choice, f[0].o.n_layers * sizeof *a->choice) == 0);
    for (int k = 0; k < 2; k++) {
        nas_oneshot_choice_deinit(&c[k]);
        fixture_close(&f[k]);
    }
}

Test(search_oneshot_choose, nas_compress_tells_what_it_chose_from) {
    char out[256];
    (void)snprintf(out, sizeof out, "%s/out", folder);
    const char *const args[] = {
        "-q",          "-o",       out,       "--train-steps", "20",      "--side",
        "16",          "--glyphs", "600",     "--reward",      "60",      "--report-images",
        "40",          "--images", "20",      "--bits",        "2,3,4,8", "--budget",
        "bytes=10.5%", "--solver", "blocked", "--moves",       "2",       NULL};
    nas_process_result r = test_run(ctx, "nas-compress", args);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    cr_assert(strstr(r.out.data, "same everywhere ") != NULL, "%s", r.out.data);
    cr_assert(strstr(r.out.data, "least sum") != NULL && strstr(r.out.data, "diverges by"));
    cr_assert(strstr(r.out.data, "budget ") != NULL && strstr(r.out.data, "finished by"));
    nas_process_result_deinit(&r);
    const char *const alone[] = {"-o", out, "--bits", "4", "--moves", "2", NULL};
    r = test_run(ctx, "nas-compress", alone);
    cr_assert(r.exit_code == 2 && strstr(r.err.data, "--budget") != NULL, "%s", r.err.data);
    nas_process_result_deinit(&r);
}

/* Layers in turn round other weights to zero than the table's: the budget line counts the network that is written. */
Test(search_oneshot_choose, nas_compress_tells_the_bytes_of_what_it_wrote) {
    char out[256];
    (void)snprintf(out, sizeof out, "%s/out", folder);
    const char *const args[] = {"-q",
                                "-o",
                                out,
                                "--train-steps",
                                "20",
                                "--side",
                                "16",
                                "--glyphs",
                                "600",
                                "--reward",
                                "60",
                                "--report-images",
                                "40",
                                "--images",
                                "20",
                                "--pattern",
                                "unstructured",
                                "--rate",
                                "0,0.5,0.75",
                                "--bits",
                                "3,4",
                                "--budget",
                                "bytes=6%",
                                "--moves",
                                "0",
                                "--solver",
                                "blocked",
                                NULL};
    nas_process_result r = test_run(ctx, "nas-compress", args);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    const char *budget = strstr(r.out.data, "\nbudget "),
               *weights = strstr(r.out.data, "\nweights ");
    cr_assert(budget != NULL && weights != NULL, "%s", r.out.data);
    const long told = strtol(budget + strlen("\nbudget "), NULL, 10),
               written = strtol(weights + strlen("\nweights "), NULL, 10);
    cr_assert(told > 0 && told == written, "%s", r.out.data);
    nas_process_result_deinit(&r);
}

/* 8 bits times 8 bits are 6.25 % of 32 times 32; with 4 bits for what layers read but the image, about half of that. */
Test(search_oneshot_choose, bit_operations_count_activations_as_they_are) {
    static const struct {
        const char *acts;
        double least, most; /* percent of the float network's */
    } rows[] = {{"8", 6.24, 6.26}, {"4", 3.12, 3.3}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[256];
        (void)snprintf(out, sizeof out, "%s/out", folder);
        const char *const args[] = {
            "-q",         "-o",       out,       "--train-steps", "20",      "--side",
            "16",         "--glyphs", "600",     "--reward",      "60",      "--report-images",
            "40",         "--images", "20",      "--bits",        "8",       "--act-bits",
            rows[i].acts, "--budget", "bops=7%", "--solver",      "blocked", "--moves",
            "0",          NULL};
        nas_process_result r = test_run(ctx, "nas-compress", args);
        cr_assert(r.exit_code == 0, "%s", r.err.data);
        const char *budget = strstr(r.out.data, "\nbudget ");
        const char *share = budget == NULL ? NULL : strchr(budget, '(');
        cr_assert(share != NULL, "%s", r.out.data);
        const double percent = strtod(share + 1, NULL);
        cr_assert(percent >= rows[i].least - 0.05 && percent <= rows[i].most + 0.05, "%s",
                  r.out.data);
        nas_process_result_deinit(&r);
    }
}
