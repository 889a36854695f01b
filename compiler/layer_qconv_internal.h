/* layer_qconv_internal.h - what the files layer_qconv*.c share: geometry of the staged rows. */
#ifndef NAS_COMPILER_LAYER_QCONV_INTERNAL_H
#define NAS_COMPILER_LAYER_QCONV_INTERNAL_H

#include "compiler/layer_conv_internal.h"
#include "compiler/layers_q_internal.h"

/* Input rows of a band as the products want them: 16-bit (PAIR, PLAIN) or 8-bit elements, the channels of each group
 * padded to whole groups of the dot product, and only the columns that are read. */
typedef struct nas__q_stage {
    int32_t element;      /* bytes */
    int32_t group;        /* channels of one product */
    int32_t channels;     /* of one group, padded */
    int32_t pixel;        /* elements from pixel to pixel */
    int32_t columns;      /* of a row */
    int32_t row;          /* elements from row to row */
    int32_t step_h;       /* input rows from staged row to staged row */
    int32_t step_w;       /* input pixels from staged pixel to staged pixel */
    int32_t stride_h;     /* staged rows from output row to output row */
    int32_t stride_w;     /* staged pixels from output pixel to output pixel */
    int32_t rows_of_band; /* staged rows of a whole band */
} nas__q_stage;

/* Output channels of one group in blocks of `vectors`; the last block has last_vectors, its last vector last_lanes. */
typedef struct nas__q_blocks {
    int32_t lanes, vectors, count; /* count: blocks of one group */
    int32_t last_vectors, last_lanes;
    int32_t in_c, out_c; /* of one group */
} nas__q_blocks;

nas__q_blocks nas__q_block(const nas_target *target, const nas__conv *conv, int32_t vectors);

nas__q_stage nas__q_stage_of(const nas_target *target, const nas__qconv *q, int32_t band_rows);
int32_t nas__q_staged_rows(const nas__qconv *q, int32_t output_rows);
/* nas__q_step_bytes - stored weights of one product step for `vectors` vectors. */
int32_t nas__q_step_bytes(const nas_target *target, const nas__qconv_way *way, int32_t vectors);
/* nas__q_block_bytes - bias, multipliers and weights of a block of `vectors` vectors. */
size_t nas__q_block_bytes(const nas_target *target, const nas__qconv *q, const nas__qconv_way *way,
                          int32_t vectors);
/* nas__q_emit_epilogue - requantizes accumulators `a<p>_<v>` of one pixel and stores them: text for one pixel;
 * out_at, residual_at: bytes from the tile's first pixel. */
void nas__q_emit_epilogue(const nas_target *target, const nas__qconv *q, int32_t pixel,
                          int32_t vectors, int32_t last, size_t out_at, size_t residual_at,
                          nas_buf *out);
void nas__qconv_direct_emit(const nas_target *target, const nas__qconv *q,
                            const nas__qconv_way *way, const char *name, nas_buf *out);
void nas__qconv_depthwise_emit(const nas_target *target, const nas__qconv *q,
                               const nas__qconv_way *way, const char *name, nas_buf *out);

/* layer_qconv_winograd.c. The estimate is in cycles of one thread; weights without the head. */
bool nas__qconv_winograd_legal(const nas_target *target, const nas__qconv *q);
double nas__qconv_winograd_cycles(const nas_target *target, const nas__qconv *q,
                                  const nas__qconv_way *way);
int32_t nas__qconv_winograd_units(const nas_target *target, const nas__qconv *q,
                                  const nas__qconv_way *way);
size_t nas__qconv_winograd_scratch(const nas_target *target, const nas__qconv *q,
                                   const nas__qconv_way *way);
size_t nas__qconv_winograd_weights(const nas_target *target, const nas__qconv *q,
                                   const nas__qconv_way *way);
void nas__qconv_winograd_pack(const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, const nas__qconv_data *data, uint8_t *out);
void nas__qconv_winograd_emit(const nas_target *target, const nas__qconv *q,
                              const nas__qconv_way *way, const char *name, nas_buf *out);

#endif
