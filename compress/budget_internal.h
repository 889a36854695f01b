/* budget_internal.h - shared by the two budget solvers. */
#ifndef NAS_COMPRESS_BUDGET_INTERNAL_H
#define NAS_COMPRESS_BUDGET_INTERNAL_H

#include "compress/budget.h"

/* nas__budget_check - numbers are legal and the cheapest levels fit. */
nas_status nas__budget_check(nas_ctx *ctx, const nas_budget_layer *layers, size_t n_layers,
                             double limit);
double nas__budget_slack(double limit); /* the largest sum that fits */
void nas__budget_sum(const nas_budget_layer *layers, size_t n_layers, const int32_t *choice,
                     nas_budget_total *total);

#endif
