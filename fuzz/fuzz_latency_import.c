/* fuzz_latency_import.c - any bytes as a table or log of latencies: no crash, no leak; rows that come out are legal
 * architectures with finite values above 0, and a refusal says why. First byte: format and space. */
#include "tools/latency_import.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "fuzz_latency_import: %s\n", what);
    abort();
}

static nas_status parse(nas_ctx *ctx, int format, const nas_encoder *encoder, char *text,
                        size_t len, nas_import *out) {
    const nas_import_options csv = {.arch_columns = "ops",
                                    .value_column = "ms",
                                    .unit = NAS_UNIT_MS},
                             log = {0};
    if (format == 0) return nas_import_csv(ctx, encoder, &csv, text, len, out);
    if (format == 1) return nas_import_benchmark_model(ctx, encoder, &log, text, len, out);
    return nas_import_google_benchmark(ctx, encoder, &log, text, len, out);
}

static void check(nas_ctx *ctx, const nas_encoder *encoder, nas_status status, nas_import *import) {
    if (status == NAS_OK) status = nas_import_check(ctx, import, "fuzz");
    if (status != NAS_OK) {
        require(nas_ctx_message(ctx)[0] != '\0', "a refusal says why");
        return;
    }
    for (size_t i = 0; i < import->n; i++) {
        nas_buf again = {0};
        require(isfinite(import->rows[i].value) && import->rows[i].value > 0, "values are above 0");
        require(nas_encoder_canonical(ctx, encoder, import->rows[i].arch, &again) == NAS_OK,
                "architectures are legal");
        require(strcmp(again.data == NULL ? "" : again.data, import->rows[i].arch) == 0,
                "and canonical");
        nas_buf_deinit(&again);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const spaces[] = {"nb201-reached", "network", "kernel"};
    if (size == 0) return 0;
    const long live = nas_mem_live();
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return 0;
    nas_encoder *encoder = NULL;
    require(nas_encoder_new(ctx, spaces[data[0] / 3 % 3], &encoder) == NAS_OK, "the space opens");
    char *text = nas_alloc_array(ctx, size, 1); /* the NUL takes the place of the first byte */
    require(text != NULL, "memory for the text");
    memcpy(text, data + 1, size - 1);
    nas_import import = {0};
    const nas_status status = parse(ctx, data[0] % 3, encoder, text, size - 1, &import);
    check(ctx, encoder, status, &import);
    nas_import_deinit(&import);
    nas_free(text);
    nas_encoder_free(encoder);
    nas_ctx_free(ctx);
    require(nas_mem_live() == live, "nothing leaks");
    return 0;
}
