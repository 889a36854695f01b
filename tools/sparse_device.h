/* sparse_device.h - break-even on another device: one-layer programs, dense and sparse by turns, timed there by the agent. */
#ifndef NAS_TOOLS_SPARSE_DEVICE_H
#define NAS_TOOLS_SPARSE_DEVICE_H

#include "compiler/break_even.h"
#include "latency/latency.h"

/* nas_sparse_device_is - does `target` name a device ("local", "adb:SERIAL", "http://...") and not a row of the table? */
bool nas_sparse_device_is(const char *target);
/* nas_sparse_device_open - and what to compile for: the best row of its processor for `dtype`, see nas_target_best, with what
 * its agent tells of caches and vectors. `key`: of an agent at http, else NULL. */
nas_status nas_sparse_device_open(nas_ctx *ctx, const char *connect, const char *key,
                                  const char *work_dir, nas_dtype dtype, nas_device **device,
                                  nas_target *target);
/* nas_sparse_device_measure - as nas_break_even_measure. The compiler's estimate picks the kernels of both programs, as it
 * would in a network without tuning; medians of whole inferences of the layer, which the copies of input and output are part
 * of. `direct_ns` is that of dense, `peak_gflops` 0. */
nas_status nas_sparse_device_measure(nas_ctx *ctx, nas_device *device,
                                     const nas_break_even_options *options,
                                     const nas_sparse_shape *shape, const nas_sparsity *pattern,
                                     char dense[NAS_BREAK_EVEN_WAY_MAX], nas_sparse_cell out[]);

#endif
