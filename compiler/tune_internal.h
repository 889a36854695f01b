/* tune_internal.h - measuring the ways of one convolution, of floats or of codes; never leaves compiler/.
 *
 *   tune.c          one request: program, weights, run, what the program said
 *   tune_program.c  the text of the program: all kernels, run by turns
 *   tune_weights.c  random weights, packed for each way
 *   tune_rows.c     kernels of the row form in such a program
 *   tune_keys.c     what a memory knows a time by; the fastest way, from memory or measured
 *
 * The program is linked with the packed weights of all ways, so that it is one file, which a device can be sent. It checks that
 * every way computes what the first one does: floats within rounding, codes bit for bit. */
#ifndef NAS_COMPILER_TUNE_INTERNAL_H
#define NAS_COMPILER_TUNE_INTERNAL_H

#include "compiler/compiler_internal.h"
#include "compiler/layers_q_internal.h"

/* One convolution, or a stage of the row form, and its ways; borrowed. */
typedef struct nas__tune_subject {
    const nas__conv *conv;     /* of floats */
    const nas__conv_way *ways; /* [n] */
    const nas__qconv *qconv;   /* of codes: not NULL, and the two above are */
    const nas__qconv_way *qways;
    nas__program
        *rows; /* planned, with weights; its stage `stage`: not NULL, and the four above are */
    int32_t stage;
    const nas__row_way *row_ways;
    int32_t n; /* 1..NAS__CONV_WAYS_MAX */
} nas__tune_subject;

/* nas__tune_measure - times the ways of a subject in one program that runs them by turns: what slows the machine down for a
 * while slows all of them. One thread: time that other programs take is not counted; several (options->tune_threads): units
 * are divided among them as in a network, and the clock is the wall's. Each round gives a way one sample of a few ms; there
 * are at least 3, then as many as `seconds` allow, up to 65. Inputs and weights are random and warm.
 * options   the target must run here unless options->tune_device is there to run it; the compiled program is kept in cache_dir
 * seconds   of measuring, > 0; compiling comes on top
 * peak      NULL, or GFLOP/s of a loop of multiply-adds in registers of one thread, run by turns with the ways
 * Errors: UNSUPPORTED (target does not run here), INVALID, INTERNAL (a way computes something else), those of nas_compile and
 * of the device. */
nas_status nas__tune_measure(nas_ctx *ctx, const nas_compile_options *options,
                             const nas__tune_subject *subject, double seconds,
                             nas_tune_timing out[], double *peak);
/* nas__tune_best - index of the fastest way. When `memory` (may be NULL) knows all of them nothing is run; else all
 * are measured together, because only times of one program compare, and stored. p50_ns: NULL, or of each. */
nas_status nas__tune_best(nas_ctx *ctx, const nas_compile_options *options,
                          const nas_tune_memory *memory, const nas__tune_subject *subject,
                          double seconds, int32_t *best, double p50_ns[]);
/* nas__tune_recall - the same from memory alone: *known false when it lacks one of them. */
nas_status nas__tune_recall(nas_ctx *ctx, const nas_compile_options *options,
                            const nas_tune_memory *memory, const nas__tune_subject *subject,
                            bool *known, int32_t *best, double p50_ns[]);
/* nas__tune_fit - how many of the first ways a device can be sent together; all of them where it is this machine. */
int32_t nas__tune_fit(const nas_compile_options *options, const nas__tune_subject *subject);

/* Key texts of a memory. The way's ends in a hash of the emitted text: other code is another way. */
void nas__tune_kernel_text(const nas__conv *conv, nas_buf *out);
void nas__tune_qkernel_text(const nas__qconv *qconv, nas_buf *out);
void nas__tune_way_text(const nas_target *target, const nas__tune_subject *subject, int32_t way,
                        nas_buf *out);
/* nas__tune_device_text - the device, or the processor model here; target, compiler version and flags. */
nas_status nas__tune_device_text(nas_ctx *ctx, const nas_compile_options *options, nas_buf *out);

/* ---- parts ---------------------------------------------------------------------------------------------------------- */

const char *nas__tune_way_name(const nas__tune_subject *s, int32_t way);
void nas__tune_function_name(const nas_target *target, const nas__tune_subject *s, int32_t way,
                             nas_buf *out);
void nas__tune_emit_prelude(const nas_target *target, const nas__tune_subject *s, nas_buf *out);
void nas__tune_emit_way(const nas_target *target, const nas__tune_subject *s, int32_t way,
                        nas_buf *out);
size_t nas__tune_weight_bytes(const nas_target *target, const nas__tune_subject *s, int32_t way);
/* nas__tune_emit_program - the whole text; the weights are the symbol tune_weights, blocks one after another. */
void nas__tune_emit_program(const nas_target *target, const nas__tune_subject *s, nas_buf *out);
/* nas__tune_write_weights - for each way: 64 bytes that begin with the size of its block, 8 bytes, then the block, a multiple
 * of 64. The sizes are not in the text: other zeros, other sizes. */
nas_status nas__tune_write_weights(nas_ctx *ctx, const nas_target *target,
                                   const nas__tune_subject *s, const char *path);

/* ---- tune_rows.c: the same questions of a stage of the row form ----------------------------------------------------- */

size_t nas__tune_rows_in(const nas__tune_subject *s); /* floats */
size_t nas__tune_rows_out(const nas__tune_subject *s);
int32_t nas__tune_rows_units(const nas__tune_subject *s, int32_t way);
size_t nas__tune_rows_scratch(const nas__tune_subject *s, int32_t way); /* bytes */
size_t nas__tune_rows_weight_floats(const nas__tune_subject *s, int32_t way);
void nas__tune_rows_pack(const nas__tune_subject *s, int32_t way, float *out);
const char *nas__tune_rows_way_name(const nas__tune_subject *s, int32_t way);
void nas__tune_rows_kernel_text(const nas__tune_subject *s, nas_buf *out);
void nas__tune_rows_way_text(const nas__tune_subject *s, int32_t way, nas_buf *out);
void nas__tune_rows_prelude(const nas__tune_subject *s, nas_buf *out);
void nas__tune_rows_emit_way(const nas__tune_subject *s, int32_t way, nas_buf *out);
void nas__tune_rows_function_name(const nas__tune_subject *s, int32_t way, nas_buf *out);

#endif
