/* onnx_program.h - ONNX networks written as text, and an evaluator of their operators on arrays of any rank in the order of
 * ONNX: what an import of values of rank 1 to 6 is judged by. */
#ifndef NAS_TESTS_IR_ONNX_PROGRAM_H
#define NAS_TESTS_IR_ONNX_PROGRAM_H

#include "ir/graph.h"

enum { PROGRAM_RANK_MAX = 8 };

/* An array in ONNX order; data lies in a pool that the next program reuses. */
typedef struct program_array {
    int rank;
    int64_t dims[PROGRAM_RANK_MAX];
    size_t count;
    double *data;
} program_array;

/* Statements `out[,out] = Operator operand ... attribute=value ...`, apart by `;`. The input is x, the output y. Operands:
 * a name; w[2,3] floats of that shape, of magnitude 0.5 to 1.5; p[2,3] the same, positive; i[2,3] a list of int64; s(0.5) a
 * float and k(2) an int64 of rank 0; _ for one that is left out. A value is integers apart by commas, a number with a
 * point, or a word. */
typedef struct program {
    int64_t opset;
    int64_t input[PROGRAM_RANK_MAX]; /* shape, ended by 0 */
    const char *text;
} program;

/* program_import - the graph that the import makes of it. */
nas_status program_import(nas_ctx *ctx, const program *p, nas_graph **out);
/* program_run - the answer by definition; `x` holds the input. Valid until the next call. */
program_array program_run(const program *p, const float *x);

#endif
