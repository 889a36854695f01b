/* fuzz_onnx.c - any bytes as an ONNX file: no crash, no leak, a message with every error, and every graph that comes
 * out verifies. */
#include "ir/graph.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "fuzz_onnx: %s\n", what);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const long live = nas_mem_live();
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return 0;
    nas_onnx_import_options options = nas_onnx_import_options_default();
    options.max_weight_bytes = 1 << 20;
    nas_graph *g = NULL;
    const nas_status status = nas_onnx_import_bytes(ctx, data, size, "fuzz", &options, &g);
    if (status == NAS_OK) {
        require(nas_graph_verify(ctx, g) == NAS_OK, "an imported graph verifies");
    } else {
        require(g == NULL, "no graph comes with an error");
        require(nas_ctx_message(ctx)[0] != '\0', "an error has a message");
    }
    nas_graph_free(g);
    nas_ctx_free(ctx);
    require(nas_mem_live() == live, "nothing leaks");
    return 0;
}
