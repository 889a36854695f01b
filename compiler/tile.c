/* tile.c - the register tile of each stage, chosen by counting what a core can issue.
 *
 * One tap (one input channel, one kernel position) of a tile of N outputs x P pixel vectors costs N*P multiply-adds,
 * N broadcasts and P loads; a load off the vector grid touches two cache lines. The model is that of current x86 and
 * large Arm cores: two multiply-adds, two loads and four instructions a cycle, four cycles of latency. */
#include "compiler/compiler_internal.h"

enum { VECTORS_MAX = 8 };

static double greatest(double a, double b) {
    return a > b ? a : b;
}

double nas__tap_cycles(int32_t outputs, int32_t vectors, bool off_grid) {
    const double products = (double)outputs * vectors;
    const double loads = outputs + (off_grid ? 2.0 : 1.0) * vectors;
    const double latency = 4.0;
    const double issue = (products + outputs + vectors + 1.0) / 4.0;
    /* Off the grid three vectors are measured slower than two, whatever the outputs. */
    const double odd = off_grid && vectors > 1 && vectors % 2 == 1 ? 0.5 : 0;
    /* One vector: a load for each product. 9x1 to 12x1 are measured a seventh slower than loads alone would make them. */
    const double lone = vectors == 1 ? 0.1 * outputs : 0;
    return greatest(greatest(products / 2.0, loads / 2.0), greatest(issue, latency)) + 0.3 + odd +
           lone;
}

/* Cycles of one tile of phases [first, first + outputs) of a transposed convolution. A row of the window that few phases
 * reach is bound by the chains of its products. */
static double phase_cycles(const nas__term *t, int32_t first, int32_t outputs, int32_t vectors) {
    double cycles = 0;
    for (int32_t ky = 0; ky < t->kernel_h; ky++) {
        double issue = 0;
        int32_t tap[NAS__OUTPUTS_MAX], chain[NAS__OUTPUTS_MAX] = {0}, longest = 0;
        for (int32_t kx = 0; kx < t->kernel_w; kx++) {
            const int32_t n = nas__term_taps(t, first, outputs, ky, kx, tap);
            if (n == 0) continue;
            const double products = (double)n * vectors, loads = n + 2.0 * vectors;
            issue += greatest(greatest(products / 2.0, loads / 2.0),
                              (products + n + vectors + 1.0) / 4.0);
            for (int32_t i = 0; i < outputs; i++) {
                chain[i] += tap[i] >= 0;
                longest = chain[i] > longest ? chain[i] : longest;
            }
        }
        cycles += (greatest(issue, 4.0 * longest) + 1.0) * t->channels;
    }
    return cycles;
}

static double block_cycles(const nas__stage *s, int32_t first, int32_t outputs, int32_t vectors) {
    double cycles = 12.0 + (1.0 + s->n_adds) * outputs * vectors; /* start values, stores, loop */
    if (s->act != NAS__ACT_NONE)
        cycles += (s->act == NAS__ACT_PRELU ? 1.0 : 0.5) * outputs * vectors;
    for (int32_t i = 0; i < s->n_terms; i++) {
        const nas__term *t = &s->terms[i];
        if (t->up > 1) {
            cycles += phase_cycles(t, first, outputs, vectors);
            continue;
        }
        const double taps = (double)t->kernel_h * t->kernel_w * t->channels;
        cycles += taps * nas__tap_cycles(outputs, vectors, t->kernel_w > 1) +
                  1.0 * t->kernel_h * t->channels;
    }
    return cycles;
}

/* Registers: accumulators, the P input vectors, one weight. A convolution whose loads are off the vector grid gets one to
 * spare: 3x3 16 -> 16, AVX2: tile 4x3 88 % of peak, 6x2 95 %. */
static int32_t outputs_max(const nas_target *target, const nas__stage *s, int32_t vectors) {
    bool spare = false;
    for (int32_t i = 0; i < s->n_terms; i++)
        spare = spare || (s->terms[i].kernel_w > 1 && s->terms[i].up == 1);
    const int32_t room = (target->vector_registers - (spare ? 2 : 1) - vectors) / vectors;
    return room < 1 ? 1 : room;
}

bool nas__tile_allowed(const nas__term *t, int32_t outputs) {
    return t->up == 1 || (outputs % t->up == 0 && t->up * t->up % outputs == 0);
}

/* Cycles of a block whose sums leave no registers for the rest: the inputs, a weight, a temporary of the start values, what an
 * activation compares with. 1x1 12 -> 56 with PReLU, AVX2: tile 6x2 took 1.15 times the time of 4x2, 4x3 1.22 times. */
static double spill_cycles(const nas_target *target, const nas__stage *s, int32_t outputs,
                           int32_t vectors) {
    const int32_t rest = vectors + 2 + (s->act != NAS__ACT_NONE);
    const int32_t over = outputs * vectors + rest - (target->vector_registers - 1);
    return over > 0 ? 12.0 * over : 0;
}

double nas__tile_cycles(const nas_target *target, const nas__stage *s, int32_t n, int32_t vectors) {
    const double second_body = 20.0; /* another loop to fetch, to predict, and to compile */
    const int32_t up = s->n_terms > 0 ? s->terms[0].up : 1, rest = s->channels % n;
    if (n > outputs_max(target, s, vectors) || n > s->channels || n > NAS__OUTPUTS_MAX) return 0;
    if (up > 1 && !nas__tile_allowed(&s->terms[0], n)) return 0;
    double cycles = 0;
    if (up > 1) {
        for (int32_t first = 0; first < up * up; first += n)
            cycles += s->channels / (up * up) * block_cycles(s, first, n, vectors);
    } else {
        cycles = s->channels / n *
                 (block_cycles(s, 0, n, vectors) + spill_cycles(target, s, n, vectors));
    }
    return rest > 0 ? cycles + block_cycles(s, 0, rest, vectors) + second_body : cycles;
}

/* The best number of outputs for tiles of `vectors`, and the cycles of one column of tiles. */
static double best_outputs(const nas_target *target, const nas__stage *s, int32_t vectors,
                           int32_t *outputs) {
    double best = 0;
    for (int32_t n = 1; n <= NAS__OUTPUTS_MAX; n++) {
        const double cycles = nas__tile_cycles(target, s, n, vectors);
        if (cycles > 0 && (best == 0 || cycles < best)) {
            best = cycles;
            *outputs = n;
        }
    }
    return best;
}

/* Everything past the L1 cache streams from L2. */
double nas__pair_crowding(const nas_target *target, const nas__stage *s, const nas__stage *pair,
                          int32_t vectors) {
    const double bytes = (double)pair->channels * vectors * target->vector_bytes +
                         4.0 * (double)(nas__weight_floats(s) + nas__weight_floats(pair));
    const double over = bytes - 0.9 * target->l1_bytes;
    return over > 0 ? 2.0 * over / 48.0 : 0;
}

double nas__choose_tiles(const nas_target *target, const nas__stage *stage, const nas__stage *pair,
                         int32_t row_vectors, nas__tile *tile, nas__tile *pair_tile) {
    double best = 0;
    for (int32_t p = 1; p <= VECTORS_MAX && p <= row_vectors; p++) {
        if (p > 1 && 2 * p + 1 > target->vector_registers) break;
        int32_t outputs = 1, hidden = 1;
        double cycles = best_outputs(target, stage, p, &outputs);
        if (cycles == 0) continue; /* no tile of whole rows of phases fits */
        if (pair != NULL)
            cycles +=
                best_outputs(target, pair, p, &hidden) + nas__pair_crowding(target, stage, pair, p);
        cycles *= (row_vectors + p - 1) /
                  p; /* the last tile overlaps its neighbour when p does not divide */
        if (best > 0 && cycles >= best) continue;
        best = cycles;
        *tile = (nas__tile){.outputs = outputs, .vectors = p};
        *pair_tile = (nas__tile){.outputs = hidden, .vectors = p};
    }
    return best;
}
