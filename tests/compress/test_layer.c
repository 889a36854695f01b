/* test_layer.c - one layer compressed by second order: against brute force, against magnitude, in all patterns, and with
 * moments that are singular, zero or wrong. */
#include "compress/layer.h"
#include "tests/compress/nets.h"

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

TestSuite(compress_layer, .init = nets_setup, .fini = nets_teardown, .timeout = 300);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

/* A network of one convolution with noise as weights. */
static nas_graph *one_layer(int32_t outputs, int32_t kernel, int32_t inputs, uint64_t seed,
                            nas_value *v) {
    nas_graph *g = nas_graph_new(ctx, "one");
    nas_value x = 0;
    nas_rng rng = nas_rng_stream(seed, 0, "weights");
    const nas_conv_attributes c = nas_conv_same(outputs, kernel);
    OK(nas_graph_add_input(ctx, g, "x", (nas_shape){1, 4, 4, inputs}, &x));
    OK(nas_graph_add_conv(ctx, g, "c", x, &c, v));
    OK(nas_graph_set_output(ctx, g, *v));
    OK(nas_graph_alloc_weights(ctx, g));
    for (int p = 0; p < 2; p++) {
        nas_param *w = nas_graph_param(g, nas_graph_node(g, *v)->params[p]);
        for (size_t i = 0; i < w->count; i++)
            w->data[i] = (float)nas_rng_normal(&rng);
    }
    return g;
}

/* Moments of `samples` correlated rows of n numbers and the 1. */
static nas_moments moments_of(nas_value v, int32_t n, int32_t samples, uint64_t seed) {
    const size_t size = (size_t)n + 1;
    double *gram = nas_alloc_array(ctx, size * size, sizeof *gram);
    double *x = nas_alloc_array(ctx, size, sizeof *x);
    nas_rng rng = nas_rng_stream(seed, 0, "samples");
    for (int32_t s = 0; s < samples; s++) {
        double common = nas_rng_normal(&rng);
        for (int32_t i = 0; i < n; i++) {
            common = 0.7 * common + 0.7 * nas_rng_normal(&rng);
            x[i] = common + 0.4;
        }
        x[n] = 1;
        for (size_t i = 0; i < size; i++) {
            for (size_t j = 0; j < size; j++)
                gram[i * size + j] += x[i] * x[j];
        }
    }
    nas_free(x);
    return (nas_moments){.conv = v, .size = n + 1, .gram = gram};
}

static void drop(nas_moments m) {
    double *gram = (double *)(uintptr_t)m.gram;
    nas_free(gram);
}

/* ---- brute force -------------------------------------------------------------------------------------------------------- */

/* Least squares over a mask by Gaussian elimination: what the best refit of row w loses, per sample. */
static double best_loss(const nas_moments *m, const double *w, unsigned kept) {
    enum { MOST = 9 };
    const int size = m->size;
    double a[MOST][MOST + 1];
    int list[MOST], n = 0;
    for (int i = 0; i < size; i++) {
        if (i == size - 1 || (kept >> i & 1) != 0) list[n++] = i;
    }
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++)
            a[i][j] = m->gram[list[i] * size + list[j]];
        a[i][n] = 0;
        for (int k = 0; k < size; k++)
            a[i][n] += m->gram[list[i] * size + k] * w[k];
    }
    for (int i = 0; i < n; i++) {
        for (int r = i + 1; r < n; r++) {
            const double f = a[r][i] / a[i][i];
            for (int c = i; c <= n; c++)
                a[r][c] -= f * a[i][c];
        }
    }
    double d[MOST], sum = 0;
    for (int k = 0; k < size; k++)
        d[k] = -w[k];
    for (int i = n - 1; i >= 0; i--) {
        double x = a[i][n];
        for (int c = i + 1; c < n; c++)
            x -= a[i][c] * (d[list[c]] + w[list[c]]);
        d[list[i]] = x / a[i][i] - w[list[i]];
    }
    for (int i = 0; i < size; i++) {
        for (int j = 0; j < size; j++)
            sum += d[i] * m->gram[i * size + j] * d[j];
    }
    return sum / m->gram[size * size - 1];
}

static nas_layer_options tight(void) {
    nas_layer_options o = nas_layer_options_default();
    o.damp = 1e-10;
    o.solver = NAS_SOLVER_EXACT;
    return o;
}

Test(compress_layer, greedy_pruning_is_near_the_best_mask_and_its_refit_is_the_best) {
    double ours = 0, best_of_all = 0, plain = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        enum { INPUTS = 8 };
        nas_value v = 0;
        nas_graph *g = one_layer(1, 1, INPUTS, seed, &v), *h = NULL;
        OK(nas_graph_clone(ctx, g, &h));
        const nas_moments m = moments_of(v, INPUTS, 60, seed);
        const nas_layer_options o = tight();
        nas_layer_options magnitude = o;
        nas_layer_scheme s = nas_layer_scheme_default();
        nas_layer_result r, p;
        double w[INPUTS + 1], best = INFINITY;
        for (int i = 0; i < INPUTS; i++)
            w[i] = (double)nas_graph_param(g, nas_graph_node(g, v)->params[0])->data[i];
        w[INPUTS] = (double)nas_graph_param(g, nas_graph_node(g, v)->params[1])->data[0];
        s.is_sparse = true;
        s.sparsity = nas_sparsity_default(NAS_SPARSITY_UNSTRUCTURED);
        s.sparsity.rate = 0.5;
        magnitude.solver = NAS_SOLVER_MAGNITUDE;
        OK(nas_layer_compress(ctx, g, v, &s, &m, &o, &r));
        OK(nas_layer_compress(ctx, h, v, &s, &m, &magnitude, &p));
        unsigned kept = 0;
        for (int i = 0; i < INPUTS; i++)
            kept |= nas_graph_param(g, nas_graph_node(g, v)->params[0])->data[i] != 0 ? 1U << i : 0;
        for (unsigned mask = 0; mask < 1U << INPUTS; mask++) {
            if (__builtin_popcount(mask) == INPUTS / 2) best = fmin(best, best_loss(&m, w, mask));
        }
        const double refit = best_loss(&m, w, kept);
        cr_assert(fabs(r.loss - refit) <= 1e-4 * refit + 1e-6, "%g, best refit %g", r.loss, refit);
        cr_assert(r.loss >= best - 1e-6 && r.loss <= p.loss + 1e-6 && r.zeros == 4);
        ours += r.loss;
        best_of_all += best;
        plain += p.loss;
        nas_graph_free(g);
        nas_graph_free(h);
        drop(m);
    }
    cr_assert(ours <= 1.25 * best_of_all && ours < 0.5 * plain, "%g, best %g, magnitude %g", ours,
              best_of_all, plain);
}

Test(compress_layer, rounding_is_near_the_best_of_all_codes) {
    double ours = 0, blocked = 0, nearest = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        nas_value v = 0;
        const nas_moments m = moments_of(1, 6, 50, seed);
        double loss[3];
        for (int way = 0; way < 3; way++) {
            nas_graph *g = one_layer(1, 1, 6, seed, &v);
            nas_layer_options o = tight();
            nas_layer_scheme s = nas_layer_scheme_default();
            nas_layer_result r;
            s.bits = 3;
            o.solver = way == 0   ? NAS_SOLVER_EXACT
                       : way == 1 ? NAS_SOLVER_BLOCKED
                                  : NAS_SOLVER_MAGNITUDE;
            OK(nas_layer_compress(ctx, g, v, &s, &m, &o, &r));
            const nas_param *w = nas_graph_param(g, nas_graph_node(g, v)->params[0]);
            for (size_t i = 0; i < w->count; i++) {
                const float code = w->data[i] / w->scales[0];
                cr_assert(fabsf(code - rintf(code)) < 1e-4F && fabsf(code) < 3.001F);
            }
            cr_assert(w->bits == 3);
            loss[way] = r.loss;
            nas_graph_free(g);
        }
        ours += loss[0];
        blocked += loss[1];
        nearest += loss[2];
        drop(m);
    }
    cr_assert(ours <= blocked * 1.001 && blocked < nearest, "exact %g, blocked %g, nearest %g",
              ours, blocked, nearest);
}

/* ---- patterns ------------------------------------------------------------------------------------------------------------ */

static nas_sparsity pattern(int number, double rate) {
    nas_sparsity s = nas_sparsity_default((nas_sparsity_pattern)number);
    s.rate = nas_sparsity_has_rate((nas_sparsity_pattern)number) ? rate : 0;
    if (number == NAS_SPARSITY_N_OF_M) s.outputs = 1;
    return s;
}

/* The mask of the zeros is one the pattern allows: projecting once more changes nothing. */
static void check_legal(const nas_graph *g, nas_value v, const nas_sparsity *s, bool exact_count) {
    const nas_param *w = nas_graph_param_const(g, nas_graph_node(g, v)->params[0]);
    uint8_t *kept = nas_alloc_array(ctx, w->count, 1);
    OK(nas_sparsity_mask(ctx, s, w->data, w->dims, kept));
    size_t more = 0;
    for (size_t i = 0; i < w->count; i++)
        more += kept[i] == 0 && w->data[i] != 0;
    cr_assert(!exact_count || more == 0, "pattern %s: %zu weights too many",
              nas_sparsity_pattern_name(s->pattern), more);
    nas_free(kept);
}

Test(compress_layer, every_pattern_is_kept_by_both_solvers_and_loses_no_more_than_magnitude) {
    for (int number = 0; number < NAS_SPARSITY_PATTERN_COUNT; number++) {
        for (int bits = 0; bits <= 4; bits += 4) {
            nas_value v = 0;
            const nas_moments m = moments_of(1, 90, 400, 3);
            double loss[3] = {0};
            for (int way = 0; way < 3; way++) {
                nas_graph *g = one_layer(12, 3, 10, 5, &v);
                nas_layer_options o = nas_layer_options_default();
                nas_layer_scheme s = nas_layer_scheme_default();
                nas_layer_result r;
                s.is_sparse = true;
                s.sparsity = pattern(number, 0.5);
                s.bits = bits;
                o.solver = (nas_layer_solver)(NAS_SOLVER_EXACT + way);
                OK(nas_layer_compress(ctx, g, v, &s, &m, &o, &r));
                cr_assert(r.solver == o.solver && r.has_loss && isfinite(r.loss));
                cr_assert(r.zeros >= 250, "%s: %d zeros",
                          nas_sparsity_pattern_name(s.sparsity.pattern), (int)r.zeros);
                /* rounding to zero may move the borders of groups that are compared by size */
                check_legal(g, v, &s.sparsity, bits == 0);
                OK(nas_graph_verify(ctx, g));
                loss[way] = r.loss;
                nas_graph_free(g);
            }
            cr_assert(
                loss[0] <= loss[2] && loss[1] <= loss[2], "%s: exact %g, blocked %g, plain %g",
                nas_sparsity_pattern_name((nas_sparsity_pattern)number), loss[0], loss[1], loss[2]);
            drop(m);
        }
    }
}

Test(compress_layer, n_of_m_has_its_zeros_in_every_group_also_at_a_rest) {
    for (int way = NAS_SOLVER_EXACT; way <= NAS_SOLVER_BLOCKED; way++) {
        nas_value v = 0;
        nas_graph *g = one_layer(6, 3, 10, 9, &v);
        const nas_moments m = moments_of(v, 90, 300, 4);
        nas_layer_options o = nas_layer_options_default();
        nas_layer_scheme s = nas_layer_scheme_default();
        s.is_sparse = true;
        s.sparsity = pattern(NAS_SPARSITY_N_OF_M, 0);
        o.solver = (nas_layer_solver)way;
        OK(nas_layer_compress(ctx, g, v, &s, &m, &o, NULL));
        const float *w = nas_graph_param(g, nas_graph_node(g, v)->params[0])->data;
        for (int row = 0; row < 6 * 9; row++) {
            for (int i = 0; i < 10; i += 4) {
                int zeros = 0;
                for (int k = i; k < i + 4 && k < 10; k++)
                    zeros += w[row * 10 + k] == 0;
                cr_assert(zeros == (i < 8 ? 2 : 1));
            }
        }
        nas_graph_free(g);
        drop(m);
    }
}

Test(compress_layer, loss_grows_with_the_rate_and_falls_with_the_bits) {
    nas_value v = 0;
    const nas_moments m = moments_of(1, 36, 300, 6);
    double before = -1;
    for (int k = 0; k <= 10; k++) {
        nas_graph *g = one_layer(8, 3, 4, 7, &v);
        nas_layer_scheme s = nas_layer_scheme_default();
        const nas_layer_options o = nas_layer_options_default();
        nas_layer_result r;
        s.is_sparse = true;
        s.sparsity = pattern(NAS_SPARSITY_UNSTRUCTURED, 0.1 * k);
        OK(nas_layer_compress(ctx, g, v, &s, &m, &o, &r));
        cr_assert(r.loss >= before - 1e-9 && r.zeros == (uint64_t)floor(28.8 * k + 1e-9));
        before = r.loss;
        nas_graph_free(g);
    }
    for (int32_t bits = 2; bits <= 8; bits++) {
        nas_graph *g = one_layer(8, 3, 4, 7, &v);
        nas_layer_scheme s = nas_layer_scheme_default();
        const nas_layer_options o = nas_layer_options_default();
        nas_layer_result r;
        s.bits = bits;
        OK(nas_layer_compress(ctx, g, v, &s, &m, &o, &r));
        cr_assert(r.loss <= before);
        before = r.loss;
        nas_graph_free(g);
    }
    drop(m);
}

/* ---- poor moments ---------------------------------------------------------------------------------------------------------- */

Test(compress_layer, singular_moments_and_channels_that_are_zero_still_give_finite_weights) {
    for (int32_t samples = 0; samples <= 3;
         samples++) { /* far fewer than columns; 0: inputs are always zero */
        for (int way = NAS_SOLVER_EXACT; way <= NAS_SOLVER_BLOCKED; way++) {
            nas_value v = 0;
            nas_graph *g = one_layer(4, 3, 4, 11, &v);
            nas_moments m = moments_of(v, 36, samples, 8);
            double *gram = (double *)(uintptr_t)m.gram;
            for (int i = 0; i < 37 * 37; i++) { /* channel 1 is dead */
                if (i % 37 % 4 == 1 || i / 37 % 4 == 1)
                    gram[i] = i % 37 == 36 && i / 37 == 36 ? gram[i] : 0;
            }
            if (samples == 0) gram[37 * 37 - 1] = 1;
            nas_layer_options o = nas_layer_options_default();
            nas_layer_scheme s = nas_layer_scheme_default();
            nas_layer_result r;
            o.solver = (nas_layer_solver)way;
            s.is_sparse = true;
            s.sparsity = pattern(NAS_SPARSITY_UNSTRUCTURED, 0.5);
            s.bits = 4;
            OK(nas_layer_compress(ctx, g, v, &s, &m, &o, &r));
            cr_assert(isfinite(r.loss) && isfinite(r.relative_loss) && r.damp > 0);
            OK(nas_graph_verify(ctx, g));
            nas_graph_free(g);
            drop(m);
        }
    }
}

Test(compress_layer, what_cannot_be_is_refused_and_changes_nothing) {
    nas_value v = 0;
    nas_graph *g = one_layer(4, 3, 4, 1, &v);
    nas_moments m = moments_of(v, 36, 50, 1), other = moments_of(v, 35, 50, 1);
    const nas_layer_options o = nas_layer_options_default();
    nas_layer_options bad = o;
    nas_layer_scheme s = nas_layer_scheme_default();
    char before[NAS_SHA256_HEX], after[NAS_SHA256_HEX];
    OK(nas_graph_hash(ctx, g, true, before));
    s.bits = 9;
    cr_assert(nas_layer_compress(ctx, g, v, &s, &m, &o, NULL) == NAS_ERR_RANGE);
    cr_assert(strstr(nas_ctx_message(ctx), "layer 'c'") != NULL);
    s.bits = 4;
    cr_assert(nas_layer_compress(ctx, g, v, &s, &other, &o, NULL) == NAS_ERR_INVALID);
    bad.damp = 0;
    cr_assert(nas_layer_compress(ctx, g, v, &s, &m, &bad, NULL) == NAS_ERR_RANGE);
    cr_assert(nas_layer_compress(ctx, g, nas_graph_input(g), &s, NULL, &o, NULL) ==
              NAS_ERR_UNSUPPORTED);
    ((double *)(uintptr_t)m.gram)[5] = NAN;
    cr_assert(nas_layer_compress(ctx, g, v, &s, &m, &o, NULL) == NAS_ERR_INVALID);
    s.is_sparse = true;
    s.sparsity = pattern(NAS_SPARSITY_1XN, 0.5);
    s.sparsity.n = 3;
    cr_assert(nas_layer_compress(ctx, g, v, &s, NULL, &o, NULL) == NAS_ERR_RANGE);
    OK(nas_graph_hash(ctx, g, true, after));
    cr_assert(strcmp(before, after) == 0);
    nas_graph_free(g);
    drop(m);
    drop(other);
}

Test(compress_layer, the_result_does_not_depend_on_the_threads) {
    char hash[2][NAS_SHA256_HEX];
    for (int t = 0; t < 2; t++) {
        nas_value v = 0;
        nas_graph *g = one_layer(12, 3, 8, 2, &v);
        const nas_moments m = moments_of(v, 72, 200, 2);
        nas_layer_options o = nas_layer_options_default();
        nas_layer_scheme s = nas_layer_scheme_default();
        o.threads = 1 + 2 * t;
        s.is_sparse = true;
        s.sparsity = pattern(NAS_SPARSITY_1XN, 0.5);
        s.sparsity.rearrange = true;
        s.bits = 3;
        OK(nas_layer_compress(ctx, g, v, &s, &m, &o, NULL));
        OK(nas_graph_hash(ctx, g, true, hash[t]));
        nas_graph_free(g);
        drop(m);
    }
    cr_assert(strcmp(hash[0], hash[1]) == 0);
}

Test(compress_layer, auto_takes_the_exact_solver_while_it_is_cheap) {
    nas_layer_scheme s = nas_layer_scheme_default();
    s.bits = 4;
    const int32_t small[4] = {64, 3, 3, 64}, large[4] = {512, 3, 3, 512};
    const double limit = nas_layer_options_default().exact_macs;
    cr_assert(nas_layer_exact_macs(small, &s) < limit && nas_layer_exact_macs(large, &s) > limit);
}

/* ---- targets ------------------------------------------------------------------------------------------------------------ */

/* What weights v (and bias) would answer, as cross moments and squares. */
static nas_moments aimed(nas_moments m, const nas_graph *g, nas_value v, double *cross,
                         double *square) {
    const nas_param *w = nas_graph_param_const(g, nas_graph_node(g, v)->params[0]),
                    *b = nas_graph_param_const(g, nas_graph_node(g, v)->params[1]);
    const size_t n = (size_t)m.size - 1, size = n + 1, rows = b->count;
    for (size_t r = 0; r < rows; r++) {
        square[r] = 0;
        for (size_t i = 0; i < size; i++) {
            double sum = 0;
            for (size_t k = 0; k < size; k++)
                sum += m.gram[i * size + k] * (double)(k < n ? w->data[r * n + k] : b->data[r]);
            cross[i * rows + r] = sum;
            square[r] += sum * (double)(i < n ? w->data[r * n + i] : b->data[r]);
        }
    }
    m.cross = cross;
    m.square = square;
    return m;
}

Test(compress_layer, a_layer_with_targets_becomes_what_answers_them) {
    enum { OUTPUTS = 4, INPUTS = 12, BITS = 4 };
    double cross[(INPUTS + 1) * OUTPUTS], square[OUTPUTS];
    nas_value v = 0;
    nas_graph *other = one_layer(OUTPUTS, 1, INPUTS, 2, &v),
              *g = one_layer(OUTPUTS, 1, INPUTS, 1, &v);
    const nas_moments m = moments_of(v, INPUTS, 200, 1), at = aimed(m, other, v, cross, square);
    const nas_layer_options o = tight();
    nas_layer_scheme s = nas_layer_scheme_default();
    nas_layer_result r, same;
    s.is_sparse = true;
    s.sparsity = nas_sparsity_default(NAS_SPARSITY_UNSTRUCTURED);
    s.sparsity.rate = 0; /* nothing goes: the targets alone are met */
    OK(nas_layer_compress(ctx, g, v, &s, &at, &o, &r));
    cr_assert(r.has_loss && r.relative_loss < 1e-6, "%g", r.relative_loss);
    for (int p = 0; p < 2; p++) {
        const nas_param *a = nas_graph_param_const(g, nas_graph_node(g, v)->params[p]),
                        *b = nas_graph_param_const(other, nas_graph_node(other, v)->params[p]);
        for (size_t i = 0; i < a->count; i++)
            cr_assert(fabsf(a->data[i] - b->data[i]) < 1e-3F, "%d %zu", p, i);
    }
    s.is_sparse = false; /* the other's own outputs as targets: as if there were none */
    s.bits = BITS;
    OK(nas_layer_compress(ctx, g, v, &s, &at, &o, &r));
    OK(nas_layer_compress(ctx, other, v, &s, &m, &o, &same));
    cr_assert(fabs(r.loss - same.loss) < 1e-3 * same.loss + 1e-6, "%g and %g", r.loss, same.loss);
    drop(m);
    nas_graph_free(g);
    nas_graph_free(other);
}
