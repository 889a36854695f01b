/* layer_conv_code_x86.h - what the assemblers for x86-64 share: the bytes so far, where the bases point, and how a mask is cut
 * (layer_conv_code_x86.c). The instructions themselves are those of layer_conv_code_avx2.c and layer_conv_code_avx512.c. */
#ifndef NAS_COMPILER_LAYER_CONV_CODE_X86_H
#define NAS_COMPILER_LAYER_CONV_CODE_X86_H

#include "compiler/layer_conv_internal.h"

typedef struct nas__x86_isa nas__x86_isa;

enum {
    NAS__X86_SUMS = 2, /* rdx */
    NAS__X86_WEIGHTS = 6,
    NAS__X86_PANEL = 7
};

/* Machine code, and where its bases point. */
typedef struct nas__x86_code {
    const nas__x86_isa *isa;
    nas_buf bytes;
    int32_t weight_at; /* of the next value, from where rsi points */
    int32_t advanced;  /* of rsi, since the code of this group began */
    int32_t panel_at; /* bytes from the begin of this pass' part of the panel to where rdi points */
    int32_t values;   /* of the stream, all so far */
} nas__x86_code;

/* Outputs [first, first + n) of one part of the sum for one block of vectors. Sum (o, v) is register o * block + v. */
typedef struct nas__x86_group {
    const nas__conv *conv;
    int32_t first, n;
    int32_t from, to; /* steps */
    int32_t row;      /* bytes from output to output of the sums */
    nas__code_asks asks;
} nas__x86_group;

/* Displacements of one byte count in units: values of the stream and vectors of the panel are at most `reach` units below
 * and less than that above their bases. */
struct nas__x86_isa {
    int32_t vector_bytes, block;
    int32_t value_reach, vector_reach; /* bytes */
    void (*put_move)(nas__x86_code *a, bool store, int32_t reg, int32_t base, int32_t offset);
    void (*put_value)(nas__x86_code *a, int32_t reg, int32_t offset); /* to all lanes */
    /* All products of one step of the sum; `offset`: its vectors in the panel. */
    void (*put_step)(nas__x86_code *a, const nas__x86_group *group, int32_t step, int32_t offset);
};
extern const nas__x86_isa nas__x86_avx2, nas__x86_avx512;

void nas__x86_put(nas__x86_code *a, const uint8_t *bytes, size_t n);
void nas__x86_put_i32(nas__x86_code *a, int32_t value);
/* nas__x86_value - where the next value of the stream is from rsi, which moves on when it has to. */
int32_t nas__x86_value(nas__x86_code *a);
void nas__x86_next_value(nas__x86_code *a);
/* nas__x86_vector - the offset of a vector of the panel from rdi, which moves on when it has to. */
int32_t nas__x86_vector(nas__x86_code *a, int32_t offset);

#endif
