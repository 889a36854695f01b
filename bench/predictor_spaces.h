/* predictor_spaces.h - features of published benchmark architectures from their encodings: for bench_predictor. */
#ifndef NAS_BENCH_PREDICTOR_SPACES_H
#define NAS_BENCH_PREDICTOR_SPACES_H

#include "bench/predictor_csv.h"
#include "latency/model.h"

#include <math.h>

enum { FEATURES_MAX = 160 };

typedef struct feature_row {
    double x[FEATURES_MAX];
    char names[FEATURES_MAX][64];
    nas_feature_kind kinds[FEATURES_MAX];
    size_t n;
} feature_row;

static void put(feature_row *r, nas_feature_kind kind, const char *name, double value) {
    (void)snprintf(r->names[r->n], sizeof r->names[0], "%s", name);
    r->kinds[r->n] = kind;
    r->x[r->n++] = value;
}

static void put_of(feature_row *r, nas_feature_kind kind, const char *what, const char *name, int i,
                   double value) {
    char text[64];
    (void)snprintf(text, sizeof text, "%s.%s%d", what, name, i);
    put(r, kind, text, value);
}

/* ---- NAS-Bench-201: six edges -------------------------------------------------------------------------------------- */

enum { CELL_EDGES = 6, CELL_NODES = 4, OP_SKIP = 1, OP_CONV1 = 2, OP_CONV3 = 3, OP_POOL = 4 };
static const int edge_from[CELL_EDGES] = {0, 0, 1, 0, 1, 2},
                 edge_to[CELL_EDGES] = {1, 2, 2, 3, 3, 3};

/* Without what the output does not need. A node that only "none" edges enter still reads its inputs: engines do not know
 * that 0 * x is 0. */
static void cell_reached(const int *ops, int *out) {
    bool live[CELL_NODES] = {[3] = true};
    for (int node = CELL_NODES - 1; node > 0; node--) {
        bool any = false;
        for (int e = 0; e < CELL_EDGES; e++)
            any |= edge_to[e] == node && ops[e] != 0;
        for (int e = 0; e < CELL_EDGES; e++) {
            if (live[node] && edge_to[e] == node && (ops[e] != 0 || !any))
                live[edge_from[e]] = true;
        }
    }
    for (int e = 0; e < CELL_EDGES; e++)
        out[e] = live[edge_to[e]] ? ops[e] : 0;
}

/* Only edges on a path from the input to the output. */
static bool cell_folded(const int *ops, int *out) {
    bool forward[CELL_NODES] = {true}, backward[CELL_NODES] = {[3] = true};
    for (int e = 0; e < CELL_EDGES; e++)
        forward[edge_to[e]] |= ops[e] != 0 && forward[edge_from[e]];
    for (int e = CELL_EDGES - 1; e >= 0; e--)
        backward[edge_from[e]] |= ops[e] != 0 && backward[edge_to[e]];
    for (int e = 0; e < CELL_EDGES; e++)
        out[e] = forward[edge_from[e]] && backward[edge_to[e]] ? ops[e] : 0;
    return forward[3];
}

static double cell_longest(const int *ops, const double *weight) {
    double length[CELL_NODES] = {0, -1e9, -1e9, -1e9};
    for (int e = 0; e < CELL_EDGES; e++) {
        if (ops[e] == 0) continue;
        length[edge_to[e]] = fmax(length[edge_to[e]], length[edge_from[e]] + weight[ops[e]]);
    }
    return fmax(length[3], 0);
}

static void cell_form(feature_row *r, const char *form, const int *ops) {
    static const double convs[] = {0, 0, 1, 1, 0}, macs[] = {0, 0, 1, 9, 0},
                        layers[] = {0, 0, 1, 1, 1};
    int count[5] = {0}, reads[CELL_NODES] = {0}, writes[CELL_NODES] = {0}, in[CELL_NODES] = {0};
    for (int e = 0; e < CELL_EDGES; e++) {
        count[ops[e]]++;
        in[edge_to[e]] += ops[e] != 0;
        reads[edge_from[e]] += ops[e] == OP_CONV1 || ops[e] == OP_CONV3;
        writes[edge_to[e]] += ops[e] == OP_CONV3;
    }
    for (int op = OP_SKIP; op <= OP_POOL; op++)
        put_of(r, NAS_FEATURE_TERM, form, "count", op, count[op]);
    const double work = 9.0 * count[OP_CONV3] + count[OP_CONV1];
    put_of(r, NAS_FEATURE_TERM, form, "macs", 0, work);
    put_of(r, NAS_FEATURE_SHAPE, form, "log_macs", 0, log(1 + work));
    put_of(r, NAS_FEATURE_TERM, form, "path.convs", 0, cell_longest(ops, convs));
    put_of(r, NAS_FEATURE_TERM, form, "path.macs", 0, cell_longest(ops, macs));
    put_of(r, NAS_FEATURE_TERM, form, "path.layers", 0, cell_longest(ops, layers));
    double adds = 0, nodes = 0;
    for (int node = 1; node < CELL_NODES; node++) {
        adds += in[node] > 1 ? in[node] - 1 : 0;
        nodes += in[node] > 0;
    }
    put_of(r, NAS_FEATURE_TERM, form, "adds", 0, adds);
    put_of(r, NAS_FEATURE_TERM, form, "nodes", 0, nodes);
    for (int node = 0; node < CELL_NODES - 1; node++)
        put_of(r, NAS_FEATURE_TERM, form, "reads", node, reads[node]);
    for (int node = 1; node < CELL_NODES; node++)
        put_of(r, NAS_FEATURE_TERM, form, "writes", node, writes[node]);
}

static void nb201_features(const char *text, feature_row *r) {
    int ops[CELL_EDGES], reached[CELL_EDGES], folded[CELL_EDGES];
    double none = 0, paths[CELL_NODES] = {1};
    for (int e = 0; e < CELL_EDGES; e++) {
        ops[e] = text[e] - '0';
        none += ops[e] == 0;
        if (ops[e] != 0) paths[edge_to[e]] += paths[edge_from[e]];
    }
    cell_reached(ops, reached);
    const bool alive = cell_folded(ops, folded);
    cell_form(r, "whole", ops);
    cell_form(r, "reached", reached);
    cell_form(r, "folded", folded);
    put(r, NAS_FEATURE_TERM, "none", none);
    put(r, NAS_FEATURE_TERM, "paths", paths[3]);
    put(r, NAS_FEATURE_TERM, "alive", alive);
}

/* The same network with nodes 1 and 2 exchanged, which is a measurement of the same thing; false when there is none. */
static bool nb201_twin(const char *text, char *twin) {
    if (text[2] != '0') return false;
    const char swapped[] = {text[1], text[0], '0', text[3], text[5], text[4], '\0'};
    memcpy(twin, swapped, sizeof swapped);
    return strcmp(twin, text) != 0;
}

/* ---- FBNet: 22 blocks ------------------------------------------------------------------------------------------- */

static void fbnet_features(const char *text, feature_row *r) {
    static const struct {
        int kernel, expansion, groups;
    } block[] = {{3, 1, 1}, {3, 1, 2}, {3, 3, 1}, {3, 6, 1}, {5, 1, 1},
                 {5, 1, 2}, {5, 3, 1}, {5, 6, 1}, {0, 0, 0}};
    static const struct {
        int blocks, channels, size;
    } stage[] = {{1, 16, 32}, {4, 24, 32}, {4, 32, 16}, {4, 64, 8},
                 {4, 112, 8}, {4, 184, 4}, {1, 352, 4}};
    double count[9] = {0}, pointwise = 0, grouped = 0, depthwise[2] = {0}, elements = 0,
           weights = 0;
    int number = 0, in = 16, size = 32;
    for (int s = 0; s < 7; s++) {
        double stage_macs = 0, stage_blocks = 0;
        for (int b = 0; b < stage[s].blocks; b++, number++) {
            const int op = text[number] - '0', out = stage[s].channels, to = stage[s].size;
            const double wide = in * block[op].expansion, before = size * size, after = to * to;
            put_of(r, NAS_FEATURE_CODE, "block", "", number, op);
            count[op]++;
            if (op != 8) {
                const double point = (in * wide * before + wide * out * after) / block[op].groups;
                const double depth = block[op].kernel * block[op].kernel * wide * after;
                *(block[op].groups == 1 ? &pointwise : &grouped) += point;
                depthwise[block[op].kernel == 5] += depth;
                elements += wide * (before + after) + out * after;
                weights += wide * (in + out) / block[op].groups;
                stage_macs += point + depth;
                stage_blocks++;
            } else if (in != out || size != to) {
                pointwise += in * out * after;
            }
            in = out, size = to;
        }
        put_of(r, NAS_FEATURE_TERM, "stage", "macs", s, stage_macs * 1e-6);
        put_of(r, NAS_FEATURE_TERM, "stage", "blocks", s, stage_blocks);
    }
    for (int op = 0; op < 9; op++)
        put_of(r, NAS_FEATURE_TERM, "count", "", op, count[op]);
    put(r, NAS_FEATURE_TERM, "macs.pointwise", pointwise * 1e-6);
    put(r, NAS_FEATURE_TERM, "macs.grouped", grouped * 1e-6);
    put(r, NAS_FEATURE_TERM, "macs.depthwise3", depthwise[0] * 1e-6);
    put(r, NAS_FEATURE_TERM, "macs.depthwise5", depthwise[1] * 1e-6);
    put(r, NAS_FEATURE_TERM, "elements", elements * 1e-6);
    put(r, NAS_FEATURE_TERM, "weights", weights * 1e-6);
    put(r, NAS_FEATURE_TERM, "blocks", 22 - count[8]);
    put(r, NAS_FEATURE_SHAPE, "log_macs",
        log(1e6 + pointwise + grouped + depthwise[0] + depthwise[1]));
}

/* ---- Once-for-All: "ks", "expand" (20 each), "depth" (5), "resolution" -------------------------------------------- */

static void ofa_features(const char *ks, const char *expand, const char *depth, double resolution,
                         feature_row *r) {
    static const int channels[] = {24, 40, 80, 112, 160}, divisor[] = {4, 8, 16, 16, 32};
    double macs = 0, pointwise = 0, deep = 0, elements = 0, blocks = 0;
    int in = 16;
    char *next_k = (char *)(uintptr_t)ks, *next_e = (char *)(uintptr_t)expand,
         *next_d = (char *)(uintptr_t)depth;
    for (int s = 0; s < 5; s++) {
        const int d = (int)strtol(next_d, &next_d, 10);
        double k_sum = 0, e_sum = 0, stage_macs = 0, squares = 0;
        const double side = ceil(resolution / divisor[s]), after = side * side;
        for (int b = 0; b < 4; b++) {
            const double k = (double)strtol(next_k, &next_k, 10),
                         e = (double)strtol(next_e, &next_e, 10);
            if (b >= d) continue;
            const double before = b == 0 && s != 3 ? 4 * after : after, wide = in * e;
            const double point = in * wide * before + wide * channels[s] * after;
            pointwise += point;
            deep += k * k * wide * after;
            stage_macs += point + k * k * wide * after;
            elements += wide * (before + after);
            k_sum += k, e_sum += e, squares += k * k * e;
            in = channels[s];
            blocks++;
        }
        macs += stage_macs;
        put_of(r, NAS_FEATURE_TERM, "stage", "depth", s, d);
        put_of(r, NAS_FEATURE_TERM, "stage", "kernels", s, k_sum);
        put_of(r, NAS_FEATURE_TERM, "stage", "expansions", s, e_sum);
        put_of(r, NAS_FEATURE_TERM, "stage", "windows", s, squares);
        put_of(r, NAS_FEATURE_TERM, "stage", "macs", s, stage_macs * 1e-6);
    }
    put(r, NAS_FEATURE_SHAPE, "resolution", resolution);
    put(r, NAS_FEATURE_TERM, "blocks", blocks);
    put(r, NAS_FEATURE_TERM, "macs.pointwise", pointwise * 1e-6);
    put(r, NAS_FEATURE_TERM, "macs.depthwise", deep * 1e-6);
    put(r, NAS_FEATURE_TERM, "elements", elements * 1e-6);
    put(r, NAS_FEATURE_SHAPE, "log_macs", log(macs));
}

#endif
