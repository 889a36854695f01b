/* adam.c - Adam (Kingma & Ba, arXiv:1412.6980, algorithm 1) on the touched elements of one tensor.
 *
 * Elements count their own steps, because a small net trains only a slice: the bias correction of an element is
 * that of its own history. */
#include "eval/weights_internal.h"

#include <math.h>

typedef struct correction {
    uint32_t steps;
    float rate;       /* learning rate / (1 - beta1^t) */
    float root_scale; /* 1 / sqrt(1 - beta2^t) */
} correction;

static correction correction_at(uint32_t steps, const nas_train_options *o) {
    const double first = 1.0 - pow(o->beta1, (double)steps);
    const double second = 1.0 - pow(o->beta2, (double)steps);
    return (correction){.steps = steps,
                        .rate = (float)(o->learning_rate / first),
                        .root_scale = (float)(1.0 / sqrt(second))};
}

void nas__adam(nas__weight *weight, const float *gradient, const uint8_t *touched,
               float gradient_scale, const nas_train_options *options) {
    const float beta1 = (float)options->beta1, beta2 = (float)options->beta2;
    const float epsilon = (float)options->epsilon;
    correction now = {0};
    for (size_t i = 0; i < weight->count; i++) {
        if (touched[i] == 0) continue;
        if (weight->steps[i] < UINT32_MAX) weight->steps[i]++;
        if (now.steps != weight->steps[i]) now = correction_at(weight->steps[i], options);
        const float g = gradient[i] * gradient_scale;
        const float m = beta1 * weight->mean[i] + (1.0f - beta1) * g;
        const float v = beta2 * weight->variance[i] + (1.0f - beta2) * g * g;
        weight->mean[i] = m;
        weight->variance[i] = v;
        weight->value[i] -= now.rate * m / (sqrtf(v) * now.root_scale + epsilon);
    }
}
