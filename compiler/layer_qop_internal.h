/* layer_qop_internal.h - what the files layer_qop*.c share. Never leaves compiler/. */
#ifndef NAS_COMPILER_LAYER_QOP_INTERNAL_H
#define NAS_COMPILER_LAYER_QOP_INTERNAL_H

#include "compiler/layers_q_internal.h"

/* layer_qop_ends.c: QUANTIZE and DEQUANTIZE of the first channels of a row y, by transposing 16 of them at a time. */
bool nas__qop_transposes(const nas_target *target, const nas__qop *op);
/* nas__qop_transposed - how many channels that does; 0 where it does not. */
int32_t nas__qop_transposed(const nas_target *target, const nas__qop *op);
/* nas__qop_emit_ends_prelude - helpers in front of the kernel, once in a text. */
void nas__qop_emit_ends_prelude(const nas_target *target, const nas__qop *op, nas_buf *out);
void nas__qop_emit_to_pixels(const nas_target *target, const nas__qop *op, nas_buf *out);
void nas__qop_emit_to_planes(const nas_target *target, const nas__qop *op, nas_buf *out);

#endif
