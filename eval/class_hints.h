/* class_hints.h - values of a network that are to look like those of its teacher, for nas_tune. Internal to eval/. */
#ifndef NAS_EVAL_CLASS_HINTS_H
#define NAS_EVAL_CLASS_HINTS_H

#include "eval/class_train.h"
#include "eval/exec_internal.h"

/* nas__hints_check - SHAPE names a hint that does not fit; RANGE: a channel that the teacher's value lacks. */
nas_status nas__hints_check(nas_ctx *ctx, const nas_graph *g, const nas_graph *teacher,
                            const nas_tune_options *o);
/* nas__hints_loss - of one image of a chunk whose values lie in both spaces: the hints' part of its loss; adds its gradient over
 * the values, divided by `batch`, to grads. Both executors keep their values. */
double nas__hints_loss(const nas_tune_options *o, const nas_exec *e, float *space, float *grads,
                       const nas_exec *teacher, float *teacher_space, int32_t image, int32_t batch);

#endif
