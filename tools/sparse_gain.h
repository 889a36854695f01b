/* sparse_gain.h - `nas-compile --break-even`: what sparse kernels gain, for the layers of a model or for given shapes. */
#ifndef NAS_TOOLS_SPARSE_GAIN_H
#define NAS_TOOLS_SPARSE_GAIN_H

#include "compiler/break_even.h"
#include "core/rows.h"
#include "db/db.h"
#include "latency/latency.h"

typedef struct nas_sparse_gain {
    const nas_graph *graph; /* its convolutions in one group, each shape once; or NULL */
    const char *
        shapes; /* "KERNEL:IN:OUT:SIZE[:STRIDE]", commas between; SIZE of the output, H or HxW; or NULL */
    const char *
        patterns; /* "1x4,N:8x4,punched8x8 ...", see nas_sparse_gain_pattern; NULL: 1x4, 1x16, N:8x4 */
    const char *rates; /* "0.25,0.5"; NULL: 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.9 */
    const char *dtype; /* "f32", "int8", "f32,int8"; NULL: f32, for a graph what its layers are */
    double seconds;    /* of measuring one cell */
    nas_rows_format format;
    nas_db *db; /* where the cells are kept for searches (db/sparse_cells.h); NULL: nowhere */
    nas_device *device; /* whose cells they are; NULL: nobody's, and not kept */
    const char *device_name;
    bool on_device; /* measured there by the agent, else in this process' children */
} nas_sparse_gain;

/* nas_sparse_gain_pattern - 1xN (1x2 .. 1x32), N:MxP (M inputs a group, P outputs share it), blockPxQ, punchedPxQ, pattern,
 * periodic, filter, channel, unstructured, complementary. NOTFOUND lists them. */
nas_status nas_sparse_gain_pattern(nas_ctx *ctx, const char *text, nas_sparsity *out);
/* nas_sparse_gain_print - measures and prints on stdout; the cells go to the memory of `compile`. */
nas_status nas_sparse_gain_print(nas_ctx *ctx, const nas_compile_options *compile,
                                 const nas_sparse_gain *request);

#endif
