/* layer_conv_cases.h - ways of single convolutions against a plain double reference, for the tests of the layer form. */
#ifndef NAS_TESTS_LAYER_CONV_CASES_H
#define NAS_TESTS_LAYER_CONV_CASES_H

#include "compiler/layer_conv_internal.h"
#include "compiler/layers_internal.h"

typedef struct shape_row {
    int32_t in_c, out_c, groups, out_h, out_w, kh, kw, sh, sw, dh, dw, in_extra, out_extra;
    bool residual;
    nas__layer_act act;
} shape_row;

enum { LAYER_CONV_CASES_MAX = 48 };
typedef struct layer_conv_cases {
    const nas_target *target;
    const char *const *models; /* NULL, or processors that an emulator runs it as */
    const shape_row *rows;
    int n;                    /* at most LAYER_CONV_CASES_MAX */
    int small_from, small_to; /* rows that are compiled for a small cache */
    bool winograd;            /* those ways alone */
} layer_conv_cases;

/* The context of a test, between the first and the second of these, and a folder of its own. */
extern nas_ctx *layer_conv_ctx;
void layer_conv_setup(void);
void layer_conv_teardown(void);

nas__conv layer_conv_of(const shape_row *row);
/* layer_conv_check - asserts that the ways compile without a warning, agree with the reference and touch nothing else. */
void layer_conv_check(const layer_conv_cases *cases);

#endif
