/* fuzz_toml.c - any bytes as a config, with and without an override made of them: no crash, no leak, and an error
 * always comes with at least one printable line. */
#include "search/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "fuzz_toml: %s\n", what);
    abort();
}

static void check_outcome(nas_status status, const nas_buf *json, const nas_buf *errors) {
    if (status == NAS_OK) {
        require(json->len > 2 && errors->len == 0, "a legal config has JSON and no errors");
        return;
    }
    require(errors->len > 0 || status == NAS_ERR_RANGE, "an illegal config has errors");
    for (size_t i = 0; i < errors->len; i++) {
        const unsigned char byte = (unsigned char)errors->data[i];
        require(byte == '\n' || (byte >= 0x20 && byte != 0x7f), "errors hold no control bytes");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const long live = nas_mem_live();
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return 0;
    char *override = nas_alloc_array(ctx, size + 1, 1);
    require(override != NULL, "memory for the override");
    if (size > 0) memcpy(override, data, size);
    for (int with_override = 0; with_override <= 1; with_override++) {
        const char *const overrides[] = {override};
        nas_buf json = {0}, errors = {0};
        const nas_status status = nas_config_parse(
            ctx, "fuzz", with_override ? "" : (const char *)data, with_override ? 0 : size,
            overrides, (size_t)with_override, NULL, &json, &errors);
        check_outcome(status, &json, &errors);
        nas_buf_deinit(&json);
        nas_buf_deinit(&errors);
    }
    nas_free(override);
    nas_ctx_free(ctx);
    require(nas_mem_live() == live, "nothing leaks");
    return 0;
}
