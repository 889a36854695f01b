/* qconv_shapes.h - the shapes of test_layer_qconv.c: convolutions of integers in pixels and in planes. */
#ifndef NAS_TESTS_COMPILER_QCONV_SHAPES_H
#define NAS_TESTS_COMPILER_QCONV_SHAPES_H

#include <stdbool.h>
#include <stdint.h>

/* How the codes are drawn. */
typedef enum fill_mode { ANY, EXTREME, POWERS /* of two, weights */ } fill_mode;
/* Which weights are 0: none that is left out; 1x4 blocks or blocks of 8 outputs x 4 inputs, half of them; four in five; all but the first or the last; whole
 * outputs and inputs; all. FULL may leave zeros out, but there are none. */
typedef enum zeros { DENSE, BLOCKS, TILES, SCATTERED, SINGLE, LINES, EMPTY, FULL } zeros;

typedef struct shape_row {
    int32_t in_c, out_c, groups, out_h, out_w, kh, kw, sh, sw, dh, dw, in_extra, out_extra;
    bool residual, in_signed, out_signed, residual_signed, has_left;
    int32_t bits;
    fill_mode fill;
    zeros zeros;
} shape_row;

static const shape_row fixed_shapes[] = {
    {3, 16, 1, 7, 13, 7, 7, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, ANY, DENSE},
    {64, 40, 1, 7, 7, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 8, ANY, DENSE},
    {16, 19, 1, 9, 10, 3, 3, 1, 1, 1, 1, 3, 5, 1, 1, 1, 1, 0, 8, ANY, DENSE},
    {5, 8, 1, 8, 8, 3, 3, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 4, ANY, DENSE},
    {33, 100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 4, EXTREME, DENSE},
    {8, 210, 1, 1, 1, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 8, EXTREME, DENSE},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 8, EXTREME, DENSE},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 2, ANY, DENSE},
    {21, 21, 21, 6, 11, 3, 3, 1, 1, 1, 1, 0, 0, 1, 0, 0, 1, 0, 8, ANY, DENSE},
    {72, 72, 72, 5, 7, 5, 5, 2, 2, 1, 1, 4, 0, 0, 1, 1, 0, 1, 8, EXTREME, DENSE},
    {16, 16, 16, 4, 9, 3, 3, 1, 1, 2, 2, 0, 3, 0, 0, 1, 0, 0, 4, ANY, DENSE},
    {18, 30, 3, 5, 6, 3, 3, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 8, ANY, DENSE},
    {6, 12, 6, 5, 5, 3, 3, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 4, EXTREME, DENSE},
    {12, 20, 1, 3, 2, 3, 3, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 1, 4, ANY, DENSE},
    {9, 35, 1, 17, 22, 3, 3, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 3, EXTREME, DENSE},
    {10, 24, 1, 4, 3, 3, 2, 1, 2, 3, 2, 2, 0, 0, 0, 0, 0, 0, 8, ANY, DENSE},
    {512, 24, 1, 3, 3, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, EXTREME, DENSE},
    {32, 48, 1, 6, 29, 1, 1, 2, 2, 1, 1, 0, 0, 0, 1, 0, 0, 0, 8, ANY, DENSE},
    {11, 9, 1, 5, 14, 3, 3, 1, 1, 1, 1, 0, 2, 1, 0, 0, 1, 1, 8, ANY, DENSE},
    {24, 20, 1, 5, 9, 3, 3, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 7, EXTREME, DENSE},
    {70, 16, 1, 6, 11, 1, 1, 1, 1, 1, 1, 2, 0, 0, 1, 1, 0, 0, 5, EXTREME, DENSE},
    {13, 24, 1, 9, 8, 3, 3, 2, 2, 1, 1, 0, 0, 0, 0, 1, 0, 0, 6, EXTREME, DENSE},
    {64, 8, 1, 7, 7, 3, 3, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 2, EXTREME, DENSE},
    {56, 4, 1, 4, 13, 5, 5, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 8, EXTREME, DENSE},
    {64, 40, 1, 7, 7, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 8, ANY, BLOCKS},
    {19, 21, 1, 5, 9, 3, 3, 2, 2, 1, 1, 3, 5, 1, 1, 1, 1, 0, 8, EXTREME, SCATTERED},
    {33, 67, 1, 9, 10, 1, 1, 2, 2, 1, 1, 0, 2, 0, 1, 0, 0, 1, 7, ANY, SCATTERED},
    {16, 32, 1, 8, 8, 3, 3, 1, 1, 2, 1, 0, 0, 1, 0, 1, 0, 0, 8, EXTREME, BLOCKS},
    {40, 13, 1, 3, 31, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 4, EXTREME, SINGLE},
    {24, 24, 1, 6, 11, 1, 3, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 1, 8, ANY, LINES},
    {5, 9, 1, 4, 4, 3, 3, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 8, ANY, EMPTY},
    {512, 9, 1, 3, 3, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, EXTREME, SCATTERED},
    {1, 6, 1, 5, 13, 3, 3, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 8, ANY, SCATTERED},
    {12, 8, 1, 5, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, EXTREME, FULL},
    {32, 40, 1, 6, 13, 3, 3, 1, 1, 1, 1, 0, 1, 1, 1, 0, 1, 0, 8, EXTREME, TILES},
    {37, 24, 1, 7, 7, 1, 1, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 1, 8, EXTREME, TILES},
    {20, 48, 1, 5, 10, 3, 2, 1, 1, 2, 2, 2, 0, 1, 1, 1, 0, 0, 8, ANY, TILES},
    {31, 67, 1, 5, 7, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0, 2, ANY, DENSE},
    {12, 130, 1, 3, 9, 3, 3, 1, 1, 1, 1, 2, 1, 0, 1, 0, 0, 0, 2, EXTREME, DENSE},
    {16, 20, 2, 4, 5, 3, 3, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 1, 2, ANY, DENSE},
    {24, 40, 1, 6, 9, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, POWERS, DENSE},
    {7, 21, 1, 5, 11, 3, 3, 1, 1, 1, 1, 3, 0, 1, 1, 1, 1, 1, 8, POWERS, DENSE},
    {19, 9, 1, 4, 6, 3, 2, 2, 1, 1, 1, 0, 2, 0, 1, 0, 0, 0, 7, POWERS, SCATTERED},
    {130, 130, 130, 4, 11, 3, 3, 1, 1, 1, 1, 2, 1, 0, 0, 0, 0, 0, 8, EXTREME, DENSE},
    {111, 111, 111, 3, 9, 5, 4, 2, 1, 1, 2, 0, 0, 1, 1, 1, 1, 0, 8, EXTREME, DENSE},
    {60, 60, 60, 3, 5, 2, 7, 1, 3, 2, 1, 1, 4, 1, 0, 0, 0, 1, 8, ANY, DENSE},
    {32, 32, 32, 1, 17, 1, 3, 1, 2, 1, 1, 0, 0, 0, 1, 1, 0, 0, 8, EXTREME, DENSE},
    {320, 210, 1, 5, 9, 1, 1, 1, 1, 1, 1, 0, 2, 1, 0, 1, 1, 0, 8, EXTREME, DENSE},
    {36, 71, 1, 3, 13, 1, 1, 2, 2, 1, 1, 3, 2, 0, 0, 1, 0, 0, 8, EXTREME, DENSE},
    {64, 96, 1, 7, 12, 3, 3, 1, 1, 1, 1, 0, 0, 1, 0, 0, 1, 0, 8, EXTREME, DENSE},
    {16, 24, 1, 10, 13, 3, 3, 1, 1, 1, 1, 0, 2, 0, 1, 0, 0, 1, 8, ANY, DENSE},
    {48, 80, 1, 9, 9, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 8, EXTREME, DENSE},
    {32, 70, 1, 5, 17, 3, 2, 1, 1, 1, 2, 0, 1, 0, 0, 0, 0, 0, 8, ANY, DENSE},
    {192, 64, 1, 4, 9, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 8, EXTREME, DENSE},
    {16, 16, 1, 7, 21, 3, 3, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 8, ANY, DENSE},
    {48, 32, 1, 6, 19, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 8, ANY, DENSE},
    {20, 64, 1, 5, 11, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 8, ANY, DENSE},
};
/* Values in planes, for targets that have kernels for them: pixels that fill no vector, channels that fill no word, one channel
 * that is staged; prelu, residuals, multipliers of a half and more. */
typedef struct planes_row {
    shape_row shape;
    bool prelu;
    bool gaps; /* some taps of some outputs are left out */
    enum {
        WIDE,
        HALF,
        SINGLE_FLOAT,
        WORDS
    } scaling; /* any multipliers; below a half; such that floats are exact; and what follows has 16 bits */
} planes_row;
static const planes_row planes_shapes[] = {
    {{12, 12, 1, 5, 64, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 8, ANY, DENSE}, 1, 0, SINGLE_FLOAT},
    {{16, 16, 1, 3, 80, 3, 3, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 0, 8, EXTREME, DENSE}, 0, 0, HALF},
    {{12, 13, 1, 4, 71, 3, 3, 1, 1, 1, 1, 2, 0, 1, 1, 1, 0, 0, 8, ANY, DENSE}, 0, 0, SINGLE_FLOAT},
    {{5, 6, 1, 2, 100, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 8, EXTREME, DENSE}, 1, 0, WIDE},
    {{1, 9, 1, 40, 37, 5, 5, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 8, ANY, DENSE}, 1, 0, SINGLE_FLOAT},
    {{1, 4, 1, 3, 1, 3, 2, 1, 1, 2, 1, 1, 0, 0, 1, 0, 0, 0, 8, EXTREME, DENSE}, 0, 0, HALF},
    {{1, 3, 1, 2, 17, 1, 9, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 4, ANY, DENSE}, 0, 0, WIDE},
    {{56, 4, 1, 2, 130, 5, 5, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, EXTREME, DENSE}, 0, 0, WIDE},
    {{21, 4, 1, 2, 130, 5, 5, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, ANY, DENSE}, 0, 1, SINGLE_FLOAT},
    {{6, 13, 1, 3, 77, 4, 4, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 8, EXTREME, DENSE}, 0, 1, HALF},
    {{3, 17, 1, 2, 15, 3, 5, 1, 1, 2, 3, 1, 2, 1, 1, 1, 1, 1, 8, ANY, DENSE}, 0, 0, WIDE},
    {{33, 2, 1, 1, 96, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 0, 7, EXTREME, DENSE}, 0, 0, WIDE},
    {{8, 21, 1, 3, 33, 2, 3, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 8, ANY, DENSE}, 1, 0, SINGLE_FLOAT},
    {{16, 16, 1, 4, 128, 3, 3, 1, 1, 1, 1, 0, 0, 1, 0, 0, 1, 0, 8, ANY, DENSE}, 0, 0, SINGLE_FLOAT},
    {{12, 8, 1, 3, 66, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, EXTREME, DENSE},
     0,
     0,
     SINGLE_FLOAT},
    {{12, 12, 1, 5, 70, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, ANY, DENSE}, 1, 0, WORDS},
    {{1, 6, 1, 4, 130, 5, 5, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 8, EXTREME, DENSE}, 1, 0, WORDS},
    {{9, 22, 1, 3, 66, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, EXTREME, DENSE}, 1, 0, WORDS},
    {{12, 16, 1, 3, 96, 3, 3, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 8, ANY, DENSE}, 0, 0, WORDS},
    {{8, 14, 1, 3, 77, 3, 3, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 8, EXTREME, DENSE}, 0, 0, WORDS},
    {{8, 6, 1, 5, 40, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0, 8, EXTREME, DENSE}, 0, 0, WORDS},
};

#endif
