/* class_internal.h - the growing list of labelled images that readers fill. Internal to eval/. */
#ifndef NAS_EVAL_CLASS_INTERNAL_H
#define NAS_EVAL_CLASS_INTERNAL_H

#include "eval/class_data.h"

/* Pixels are [image][h][w][c]: bytes, or floats as the network reads them when `is_float`. */
typedef struct nas__class_set {
    int32_t h, w, c;
    bool is_float;
    uint8_t *pixels;
    size_t cap_bytes;
    int32_t *labels;
    size_t n, cap_labels;
} nas__class_set;

size_t nas__class_image_bytes(const nas__class_set *set);
/* nas__class_add - room for one more image; *pixels is to be filled by the caller at once. */
nas_status nas__class_add(nas_ctx *ctx, nas__class_set *set, int32_t label, uint8_t **pixels);
void nas__class_set_deinit(nas__class_set *set);
/* nas__class_read_set - all images of `path`, of any kind but "glyphs". */
nas_status nas__class_read_set(nas_ctx *ctx, const char *kind, const char *path,
                               nas__class_set *set);

#endif
