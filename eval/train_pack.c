/* train_pack.c - weights in the order the kernels read them.
 *
 * Forward: [outputs/4][tap][input][4]. Backward to the data is a convolution with outputs and inputs swapped and the
 * kernel turned by 180 degrees, packed the same way. */
#include "eval/train_plan.h"

#include <string.h>

static void pack_forward(const nas__layer *l, const float *weight, float *packed) {
    const int32_t taps = l->kernel_h * l->kernel_w;
    for (int32_t o = 0; o < l->outputs; o++) {
        float *block = packed + (ptrdiff_t)(o / NAS__BLOCK) * taps * l->inputs * NAS__BLOCK;
        for (int32_t k = 0; k < taps * l->inputs; k++) {
            block[k * NAS__BLOCK + o % NAS__BLOCK] = weight[(ptrdiff_t)o * taps * l->inputs + k];
        }
    }
}

static void pack_backward(const nas__layer *l, const float *weight, float *packed) {
    const int32_t taps = l->kernel_h * l->kernel_w;
    for (int32_t i = 0; i < l->inputs; i++) {
        float *block = packed + (ptrdiff_t)(i / NAS__BLOCK) * taps * l->outputs * NAS__BLOCK;
        for (int32_t t = 0; t < taps; t++) {
            for (int32_t o = 0; o < l->outputs; o++) {
                const ptrdiff_t from = ((ptrdiff_t)o * taps + (taps - 1 - t)) * l->inputs + i;
                block[(t * l->outputs + o) * NAS__BLOCK + i % NAS__BLOCK] = weight[from];
            }
        }
    }
}

void nas__plan_pack(const nas__plan *plan, const float *const *params, bool training,
                    float *packed) {
    memset(packed, 0, plan->packed_floats * sizeof *packed);
    for (int32_t i = 0; i < plan->n_layers; i++) {
        const nas__layer *l = &plan->layers[i];
        pack_forward(l, params[l->weight], packed + l->forward_at);
        if (training) pack_backward(l, params[l->weight], packed + l->backward_at);
        if (l->bias >= 0) {
            memcpy(packed + l->bias_at, params[l->bias], (size_t)l->outputs * sizeof *packed);
        }
    }
}
