/* fuzz_image.c - libFuzzer target of the image readers: any bytes give an image within the limits or an error, never
 * a crash, a leak of ours or an output beside an error.
 * Seeds, one of every kind of file, are in fuzz/corpus/fuzz_image/. Run by `make fuzz`. */
#include "eval/image.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_image(const nas_image *image) {
    if (image->c != 3 || image->h < 1 || image->w < 1) abort();
    if ((int64_t)image->h * image->w > NAS_IMAGE_PIXELS_MAX) abort();
    const size_t n = (size_t)image->h * (size_t)image->w * 3;
    for (size_t i = 0; i < n; i++) {
        if (!(image->data[i] >= 0.0f && image->data[i] <= 1.0f)) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return 0;
    const long before = nas_mem_live();
    nas_image image = {0};
    const nas_status status = nas_image_decode(ctx, data, size, &image);
    if (status == NAS_OK) {
        check_image(&image);
    } else if (image.data != NULL || nas_ctx_message(ctx)[0] == '\0') {
        abort();
    }
    nas_image_deinit(&image);
    if (nas_mem_live() != before) abort();
    nas_ctx_free(ctx);
    return 0;
}
