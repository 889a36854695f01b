/* oneshot_args.h - the command line of nas-compress. */
#ifndef NAS_SEARCH_ONESHOT_ARGS_H
#define NAS_SEARCH_ONESHOT_ARGS_H

#include "search/oneshot.h"
#include "search/oneshot_budget.h"

enum { NAS__ONESHOT_LIST_MAX = 32 };

typedef struct nas__oneshot_args {
    nas_oneshot_options oneshot;
    nas_layer_options layer;
    const char *out, *pattern, *budget, *skip, *gains, *device;
    char kind[16];
    double rates[NAS__ONESHOT_LIST_MAX], bits[NAS__ONESHOT_LIST_MAX];
    size_t n_rates, n_bits;
    int32_t tune_steps; /* 0: no training */
    double tune_rate;
    int32_t moves;    /* rounds of moves between the levels of a budget */
    int32_t act_bits; /* of activations; 0: floats */
    nas_grid_kind grid;
    nas_oneshot_sensitivity sensitivity;
    bool per_tensor, quiet, done;
    bool sequential, has_calibrate, has_sensitivity, has_moves, has_solver, is_magnitude;
} nas__oneshot_args;

/* nas__oneshot_args_default - what holds where an option is not given. */
nas__oneshot_args nas__oneshot_args_default(void);
/* nas__oneshot_parse - options into `args`; `done`: nothing is left to do (--help, --version). Texts belong to argv.
 * Errors: INVALID, PARSE, RANGE with a message for the user. */
nas_status nas__oneshot_parse(nas_ctx *ctx, int argc, char **argv, nas__oneshot_args *args);

#endif
