/* fuzz_point.c - libFuzzer target of the point reader: any bytes are refused with a message, or read as a legal point
 * whose text reads back as the same point. */
#include "spaces/space.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    nas_ctx *ctx = nas_ctx_new();
    nas_sr_options options = nas_sr_options_default();
    options.blocks_max = 3; /* short texts: the fuzzer reaches the end of the grammar sooner */
    nas_space *space = NULL;
    require(ctx != NULL && nas_space_sr_new(ctx, &options, &space) == NAS_OK);
    char *text = nas_alloc_array(ctx, size + 1, 1); /* exact size: reading past the NUL is seen */
    require(text != NULL);
    if (size > 0) memcpy(text, data, size);
    nas_point point, again;
    if (nas_space_parse(ctx, space, text, &point) == NAS_OK) {
        require(nas_space_check(ctx, space, &point) == NAS_OK);
        nas_buf buf = {0};
        require(nas_space_format(ctx, space, &point, &buf) == NAS_OK);
        require(nas_space_parse(ctx, space, buf.data, &again) == NAS_OK);
        require(nas_point_equal(&point, &again));
        nas_buf_deinit(&buf);
    } else {
        require(nas_ctx_message(ctx)[0] != '\0');
    }
    nas_free(text);
    nas_space_free(space);
    nas_ctx_free(ctx);
    return 0;
}
