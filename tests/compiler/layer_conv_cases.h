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
extern char layer_conv_dir[64];
void layer_conv_setup(void);
void layer_conv_teardown(void);

nas__conv layer_conv_of(const shape_row *row);
int32_t layer_conv_in_height(const nas__conv *conv);
int32_t layer_conv_in_width(const nas__conv *conv);
/* layer_conv_exact - floats of a buffer that ends with the last channel of the last pixel that a kernel may touch. */
size_t layer_conv_exact(int32_t height, int32_t width, size_t row, int32_t pitch, int32_t channels);
/* layer_conv_fill - n numbers from -1 to 1. */
void layer_conv_fill(nas_rng *rng, float *p, size_t n);
/* layer_conv_worst - the largest error of out over the sum of the magnitudes of the products; 1e9 where gaps between pixels do
 * not hold their mark. */
double layer_conv_worst(const nas__conv *conv, const float *in, const float *residual,
                        const float *weight, const float *bias, const float *slope,
                        const float *out, size_t out_floats);
/* layer_conv_run - a program in the test's folder; layer_conv_write - a file there. */
int layer_conv_run(const char *const *argv, nas_process_result *result);
void layer_conv_write(const char *name, const void *data, size_t len);
/* layer_conv_check - asserts that the ways compile without a warning, agree with the reference and touch nothing else. */
void layer_conv_check(const layer_conv_cases *cases);

#endif
