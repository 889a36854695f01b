/* layer_op_internal.h - what the files layer_op*.c share. The text of a kernel is its head, the body that one of the
 * functions below writes for the units [begin, end), and a closing brace. */
#ifndef NAS_COMPILER_LAYER_OP_INTERNAL_H
#define NAS_COMPILER_LAYER_OP_INTERNAL_H

#include "compiler/layers_internal.h"

enum { NAS__OP_CHUNK = 64 }; /* channels of one unit where a row alone would be too much work */

int32_t nas__op_chunks(const nas__op *op); /* units of one row of the output */
void nas__op_emit_map(const nas_target *target, const nas__op *op,
                      nas_buf *out); /* layer_op_map.c */
void nas__op_emit_move(const nas_target *target, const nas__op *op,
                       nas_buf *out); /* layer_op_move.c */
void nas__op_emit_pool(const nas_target *target, const nas__op *op, nas_buf *out);
void nas__op_emit_resize(const nas_target *target, const nas__op *op, nas_buf *out);
void nas__op_emit_norm(const nas_target *target, const nas__op *op, nas_buf *out);
void nas__op_emit_product(const nas_target *target, const nas__op *op, nas_buf *out);

/* nas__op_emit_nearest - <axis>n, the index of the nearest input pixel of output <axis>, along an axis of `in` and `size`
 * pixels: floor(i * in / size), or half pixels with ties towards zero. */
void nas__op_emit_nearest(const char *axis, int32_t in, int32_t size, bool half, const char *indent,
                          nas_buf *out);
/* nas__op_planes - body of a kernel for the rows [begin, end): between planes [c][h][w] and pixels of a view; blocks of
 * LANES x LANES numbers turned in registers, the rest one by one. to_pixels: from planes `in`, else to planes `out`. */
void nas__op_planes(const nas_target *target, const nas__view *view, bool to_pixels, nas_buf *out);
/* nas__op_act - text of the activation of `value`. */
void nas__op_act(const nas__op *op, const char *value, nas_buf *out);
/* nas__op_each - a loop of whole vectors over `length` floats and its rest. `body` writes one step: at index `c`, with
 * the names of loads and stores and `n` (", 5" for the rest, "" for whole vectors). */
typedef void nas__op_step(const nas__op *op, const char *load, const char *store, const char *n,
                          nas_buf *out);
void nas__op_each(const nas_target *target, const nas__op *op, int32_t length, const char *indent,
                  nas__op_step *step, nas_buf *out);

#endif
